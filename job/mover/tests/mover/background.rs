//! What runs beside a test.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

/// A process and all that it starts. They end with this, also when a test fails.
pub struct Background {
    pub child: Child,
}

impl Background {
    pub fn script(folder: &Path, script: &str) -> Self {
        let mut command = Command::new("bash");
        command.args(["-uc", script]).current_dir(folder);
        Self::start(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    pub fn start(command: &mut Command) -> Self {
        let child = command.process_group(0).spawn().unwrap();
        Background { child }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process_group(self.group(), signal).unwrap();
    }

    fn group(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group(), Signal::KILL);
        let _ = self.child.wait();
    }
}
