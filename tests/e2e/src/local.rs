use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::cluster::target_folder;

/// A program that runs outside the cluster, so that it can be killed at a chosen moment. It ends
/// when this is dropped.
pub struct Local {
    child: Child,
    log: PathBuf,
}

/// Names the folder with the programs that run outside the cluster.
const PROGRAMS_VARIABLE: &str = "PVMIGRATE_TEST_PROGRAMS";

/// A program as `make image` put it into the image, unless `PVMIGRATE_TEST_PROGRAMS` names another
/// folder.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(PROGRAMS_VARIABLE)
        .map_or_else(|| target_folder().join("image"), PathBuf::from);
    let path = folder.join(name);
    ensure!(
        path.exists(),
        "there is no {}: run `make image`",
        path.display()
    );
    Ok(path)
}

impl Local {
    /// Starts a program with nothing in its environment but this. What it prints is appended to
    /// the log.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self {
            child,
            log: log.into(),
        })
    }

    /// What kills it, for [`Proxy::arm`](crate::Proxy::arm).
    pub fn killer(&self) -> impl FnOnce() + Send + 'static {
        // The id stays its own until it is waited for, which only `wait` does.
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        move || {
            if let Some(pid) = pid {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }

    /// Asks it to end, as a kubelet would.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Keeps it from running, as a node does that has no time for it.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it run again.
    pub fn wake(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().context("it has ended already")?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let ended = timeout(limit, self.child.wait()).await.with_context(|| {
            format!(
                "waited {limit:?} for the end of a local program; its log ends with:\n{}",
                self.tail()
            )
        })?;
        Ok(ended?)
    }

    /// The last lines that it printed.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}
