//! A mover that takes orders, as in its pod.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use pvmigrate_record::order::{Level, Order, PassReport, Report, What};

use crate::tool::{MOVER, Run, ensure_ok, flush, watch_memory};

const POD: &str = "bench";

pub struct Serving {
    child: Child,
    /// Each report with the moment it came; it ends with the mover's output.
    reports: Receiver<(Instant, Report)>,
    memory: Option<JoinHandle<u64>>,
    order_file: PathBuf,
    destination: PathBuf,
}

impl Serving {
    /// Orders are files in `folder`, which is neither of the two sides.
    pub fn start(level: Level, source: &Path, destination: &Path, folder: &Path) -> Result<Self> {
        let order_file = folder.join("order");
        let _ = fs::remove_file(&order_file);
        let mut child = Command::new(MOVER)
            .args(["serve", "--verify", level.name()])
            .args([Path::new("--source"), source])
            .args([Path::new("--destination"), destination])
            .args([Path::new("--order-file"), &order_file])
            .args([Path::new("--termination-log"), &folder.join("none")])
            .env("POD_UID", POD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let (sender, reports) = channel();
        let stdout = child.stdout.take().context("the mover has no output")?;
        std::thread::spawn(move || read(stdout, &sender));
        Ok(Serving {
            memory: Some(watch_memory(child.id())),
            child,
            reports,
            order_file,
            destination: destination.to_owned(),
        })
    }

    /// One warm order, which may take several passes; the last of them says so.
    pub fn warm(&mut self) -> Result<()> {
        self.order(1, What::Warm)?;
        loop {
            let (_, report) = self.reports.recv().context("the mover has ended")?;
            if let Report::Pass(report) = report {
                ensure_ok(&report)?;
                if report.settled {
                    return Ok(());
                }
            }
        }
    }

    /// The final pass, timed from the order to its report, as an application waits for it.
    pub fn finish(mut self) -> Result<Run> {
        let target = fs::File::open(&self.destination)?;
        let begun = Instant::now();
        self.order(2, What::Final)?;
        let (ended, report) = self.final_report()?;
        ensure_ok(&report)?;
        let seconds = ended - begun;
        // As for the other tools, whose time ends with this.
        let begun = Instant::now();
        flush(&target)?;
        let seconds = seconds + begun.elapsed();
        self.child.wait()?;
        Ok(Run {
            seconds: seconds.as_secs_f64(),
            kib: self
                .memory
                .take()
                .and_then(|it| it.join().ok())
                .unwrap_or(0),
            bytes: report.totals.bytes,
            transferred: None,
        })
    }

    fn final_report(&self) -> Result<(Instant, Box<PassReport>)> {
        for (came, report) in &self.reports {
            if let Report::Pass(report) = report
                && report
                    .order
                    .as_ref()
                    .is_some_and(|it| it.what == What::Final)
            {
                return Ok((came, report));
            }
        }
        bail!("the mover has ended without a report")
    }

    fn order(&self, sequence: u64, what: What) -> Result<()> {
        let order = Order {
            pod: POD.into(),
            sequence,
            what,
            at_end: false,
        };
        let new = self.order_file.with_extension("new");
        fs::write(&new, serde_json::to_vec(&order)?)?;
        Ok(fs::rename(&new, &self.order_file)?)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(stdout: ChildStdout, sender: &Sender<(Instant, Report)>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let came = Instant::now();
        if let Ok(report) = serde_json::from_str(&line)
            && sender.send((came, report)).is_err()
        {
            return;
        }
    }
}
