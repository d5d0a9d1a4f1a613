//! How the kubelet's word that the pod is to end reaches the mover.
//!
//! ```text
//! kubelet ends the pod ─> preStop hook ─> SIGUSR1 ─> the final pass, if one was ordered for the end
//!                      └> SIGTERM      ─> at once, unless such an order waits or is carried out
//! ```
//!
//! Only a kubelet runs the hook. SIGTERM may come from anybody on the node, a shutdown of it among
//! them, while the application still writes: it is no word to begin the last pass.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use signal_hook::flag;

/// As a shell reports a program that SIGTERM ended.
const TERMINATED: i32 = 128 + SIGTERM;

pub struct Ending {
    at_once: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    terminated: Arc<AtomicBool>,
}

impl Ending {
    /// From here on SIGTERM ends the process at once. PID 1 of a container has no default action
    /// for a signal; and there is nothing to tidy up, for the next pass makes good what this one
    /// leaves half done.
    pub fn heed() -> io::Result<Self> {
        let ending = Self {
            at_once: Arc::new(AtomicBool::new(true)),
            asked: Arc::default(),
            terminated: Arc::default(),
        };
        flag::register_conditional_shutdown(SIGTERM, TERMINATED, ending.at_once.clone())?;
        flag::register(SIGTERM, ending.terminated.clone())?;
        flag::register(SIGUSR1, ending.asked.clone())?;
        Ok(ending)
    }

    /// Whether SIGTERM ends the process at once.
    pub fn set_at_once(&self, at_once: bool) {
        self.at_once.store(at_once, Ordering::SeqCst);
    }

    /// Whether the kubelet has said that the pod is to end.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn is_terminated(&self) -> bool {
        self.terminated.load(Ordering::SeqCst)
    }
}

/// What the preStop hook does: tells the mover of this container.
pub fn tell() -> io::Result<()> {
    Ok(kill_process(Pid::INIT, Signal::USR1)?)
}
