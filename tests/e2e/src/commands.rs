use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

use crate::Cluster;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
}

impl Output {
    /// What it printed, or an error that shows what it complained about.
    pub fn success(self) -> Result<String> {
        if self.code != Some(0) {
            bail!(
                "exit code {:?}: {}{}",
                self.code,
                self.stderr.trim(),
                self.stdout.trim()
            );
        }
        Ok(self.stdout)
    }
}

impl Cluster {
    /// Runs kubectl as the administrator, whatever $KUBECONFIG says.
    pub async fn kubectl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        self.command("kubectl", arguments).await
    }

    /// Runs helm as the administrator, whatever $KUBECONFIG says.
    pub async fn helm<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Result<Output> {
        self.command("helm", arguments).await
    }

    /// Runs a shell command in a pod and returns what it printed; any other end is an error.
    pub async fn exec(&self, namespace: &str, pod: &str, script: &str) -> Result<String> {
        self.kubectl(&[
            "exec",
            "--namespace",
            namespace,
            pod,
            "--",
            "sh",
            "-c",
            script,
        ])
        .await?
        .success()
        .with_context(|| format!("`{script}` in pod {namespace}/{pod}"))
    }

    async fn command<A: AsRef<OsStr>>(&self, name: &str, arguments: &[A]) -> Result<Output> {
        const LIMIT: Duration = Duration::from_secs(600);
        let built = self.programs.join(name);
        let program = if built.exists() {
            built
        } else {
            PathBuf::from(name)
        };
        let run = Command::new(&program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(LIMIT, run)
            .await
            .with_context(|| format!("{name} did not end within {LIMIT:?}"))?
            .with_context(|| format!("`{}` did not start: run `make deps`", program.display()))?;
        Ok(Output {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        })
    }
}
