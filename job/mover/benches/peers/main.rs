//! The mover beside the tools that people would use instead, on real file systems.
//!
//! ```text
//! for each direction, for each work: source made once
//!     for each round, for each tool: destination as before ─> caches dropped ─> timed command
//! ```
//!
//! Tools take turns within a round, so that a machine that gets slower does so for all of them.
//! Whole processes are timed, and a time ends when the data has reached the storage.

mod check;
mod disk;
mod facts;
mod rows;
mod serving;
mod sizes;
mod table;
mod tool;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use disk::{Disk, Kind};
use rows::{Job, Row};
use serving::Serving;
use sizes::Sizes;
use table::Outcome;
use tool::{Run, Tool};
use tree::Tree;

/// Measures the mover beside rsync, cp, tar and dd. Needs root.
#[derive(Parser)]
struct Arguments {
    /// Only the works of this name; may be repeated
    #[arg(long, value_name = "NAME", value_parser = rows::NAMES)]
    only: Vec<String>,
    /// How often each tool runs; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round of small sizes: it tries the benchmark, and its figures mean nothing
    #[arg(long, conflicts_with_all = ["rounds", "write"])]
    quick: bool,
    /// Put the tables between the markers of this file, too; from the repository's root
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every tool did its work. How fast is for the reader to judge.
fn run(arguments: &Arguments) -> Result<bool> {
    facts::need_tools()?;
    // Cargo runs this in the package's folder.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = arguments.write.as_ref().map(|file| root.join(file));
    if let Some(file) = &file {
        table::write_between_markers(file, None)?;
    }
    let sizes = if arguments.quick {
        Sizes::QUICK
    } else {
        Sizes::FULL
    };
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    ensure!(rounds > 0, "--rounds is at least 1");
    let begun = Instant::now();
    let mut bench = Bench::new(sizes)?;
    let rates = bench.source.measure()?;
    bench.destination.measure()?;
    let mut facts = facts::gather(&bench.source, rates, rounds)?;

    let mut outcomes = Vec::new();
    for (from, to) in [(Kind::Ext4, Kind::Xfs), (Kind::Xfs, Kind::Ext4)] {
        for row in rows::rows(&sizes, from) {
            if arguments.only.is_empty() || arguments.only.iter().any(|name| name == row.name) {
                outcomes.push(bench.measure(row, from, to, rounds)?);
            }
        }
    }
    let minutes = begun.elapsed().as_secs().div_ceil(60);
    facts.push(("all of it took", format!("{minutes} minutes")));
    let text = table::markdown(&facts, &outcomes, arguments.quick);
    println!("{text}");
    if let Some(file) = &file {
        table::write_between_markers(file, Some(&text))?;
    }
    Ok(outcomes.iter().all(Outcome::complete))
}

struct Bench {
    sizes: Sizes,
    source: Disk,
    destination: Disk,
    /// What the source was last made to hold.
    held: Option<(Kind, Tree)>,
    /// How often the source was changed: each time with other contents.
    changes: u64,
    /// Ctrl-C ends the command in hand; this lets the disks be removed before the bench ends.
    interrupted: Arc<AtomicBool>,
}

impl Bench {
    fn new(sizes: Sizes) -> Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("cannot handle signals")?;
        }
        Ok(Bench {
            sizes,
            source: Disk::new("source", sizes.disk)?,
            destination: Disk::new("destination", sizes.disk)?,
            held: None,
            changes: 0,
            interrupted,
        })
    }

    /// All rounds of one work in one direction. A tool that fails is left out from then on.
    fn measure(&mut self, row: Row, from: Kind, to: Kind, rounds: usize) -> Result<Outcome> {
        let (name, job) = (row.name, row.job);
        self.prepare(job, from)?;
        let tools: Vec<Tool> = row.tools().collect();
        let mut outcome = Outcome::new(row, from, to);
        for round in 1..=rounds {
            for &tool in &tools {
                let Some(runs) = outcome.runs(tool) else {
                    continue;
                };
                let run = self.turn(job, tool, to, round == 1);
                ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
                let said = match &run {
                    Ok(run) => format!("{:.2} s", run.seconds),
                    Err(error) => format!("failed: {error:#}"),
                };
                eprintln!("{name} from {from}, round {round}, {tool}: {said}");
                runs.push(run.map_err(|error| format!("{error:#}")));
            }
        }
        Ok(outcome)
    }

    /// Gives the source what the work is about.
    fn prepare(&mut self, job: Job, from: Kind) -> Result<()> {
        if let Some(tree) = job.tree() {
            if self.held != Some((from, tree)) {
                self.source.format(from, &self.sizes)?;
                tree.make(&self.source.path, &self.sizes)?;
                self.held = Some((from, tree));
            }
            return Ok(());
        }
        self.held = None;
        self.source.unmount()?;
        self.destination.unmount()?;
        tree::fill_device(&self.source.device, self.sizes.disk)?;
        if let Job::Device { delta: true } = job {
            Tool::Dd.copy(&self.source.device, &self.destination.device)?;
        }
        Ok(())
    }

    /// One run of one tool, with all that has to be as before the first.
    fn turn(&mut self, job: Job, tool: Tool, to: Kind, first: bool) -> Result<Run> {
        let run = match job {
            Job::Copy(_) => {
                self.destination.format(to, &self.sizes)?;
                self.drop_caches()?;
                tool.copy(&self.source.view, &self.destination.path)?
            }
            Job::Final { changed } => self.finish(tool, to, changed)?,
            Job::Device { delta: false } => {
                tree::zero_device(&self.destination.device, self.sizes.disk)?;
                self.drop_caches()?;
                tool.copy(&self.source.device, &self.destination.device)?
            }
            Job::Device { delta: true } => {
                self.changes += 1;
                tree::change_device(&self.source.device, self.sizes.disk, self.changes)?;
                self.drop_caches()?;
                tool.copy(&self.source.device, &self.destination.device)?
            }
        };
        if first && job.tree().is_some() {
            check::same(&self.source.view, &self.destination.path)?;
        }
        Ok(run)
    }

    /// The last pass of several. The mover makes the first one on a new file system; rsync finds
    /// there what the mover left, so both look at the same files in the same places.
    fn finish(&mut self, tool: Tool, to: Kind, changed: bool) -> Result<Run> {
        let warm = match tool {
            Tool::Mover(level) => {
                self.destination.format(to, &self.sizes)?;
                let (source, destination) = (&self.source.view, &self.destination.path);
                let mut serving =
                    Serving::start(level, source, destination, &self.destination.folder)?;
                serving.warm()?;
                Some(serving)
            }
            _ => None,
        };
        let mut expected = 0;
        if changed {
            self.changes += 1;
            expected = tree::change_small(&self.source.path, self.sizes.small, self.changes)?;
        }
        self.drop_caches()?;
        if let Some(serving) = warm {
            return serving.finish();
        }
        let run = tool.copy(&self.source.view, &self.destination.path)?;
        ensure!(
            run.transferred == Some(expected),
            "{tool} transferred {:?} files rather than {expected}",
            run.transferred
        );
        Ok(run)
    }

    /// The next command finds nothing in memory: what was written is clean, and forgotten.
    fn drop_caches(&self) -> Result<()> {
        self.source.sync()?;
        self.destination.sync()?;
        let file = Path::new("/proc/sys/vm/drop_caches");
        std::fs::write(file, "3").context("cannot drop the caches")
    }
}
