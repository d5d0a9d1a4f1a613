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
mod content;
mod disk;
mod facts;
mod rows;
mod serving;
mod sizes;
mod table;
mod tool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use content::Content;
use disk::{Disk, Kind};
use rows::{Job, Row};
use serving::Serving;
use sizes::Sizes;
use table::Outcome;
use tool::{Run, Tool};

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
    facts.push(("all of it took", format!("{minutes} min")));
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
    held: Option<(Kind, Content)>,
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
        self.prepare(job.content(), from)?;
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
    fn prepare(&mut self, content: Content, from: Kind) -> Result<()> {
        if self.held == Some((from, content)) {
            return Ok(());
        }
        if content.is_tree() {
            self.source.format(from, &self.sizes)?;
            content.make(&self.source.path, &self.sizes)?;
        } else {
            self.source.unmount()?;
            self.destination.unmount()?;
            content.make(&self.source.device, &self.sizes)?;
        }
        self.held = Some((from, content));
        Ok(())
    }

    /// One run of one tool, with all that has to be as before the first.
    fn turn(&mut self, job: Job, tool: Tool, to: Kind, first: bool) -> Result<Run> {
        let content = job.content();
        let (source, destination) = if content.is_tree() {
            (self.source.view.clone(), self.destination.path.clone())
        } else {
            (self.source.device.clone(), self.destination.device.clone())
        };
        let run = match job {
            Job::Copy(_) => {
                self.clear(content, to)?;
                self.drop_caches()?;
                tool.copy(&source, &destination)?
            }
            Job::Final { changed, .. } => {
                let mut warm = None;
                // The mover makes the first pass too. The next tool finds what it left, so that
                // both look at the same files in the same places.
                if let Tool::Mover(level) = tool {
                    self.clear(content, to)?;
                    let orders = &self.destination.folder;
                    let serving = Serving::start(level, &source, &destination, orders)?;
                    warm.insert(serving).warm()?;
                }
                let changes = if changed { self.change(content)? } else { 0 };
                self.drop_caches()?;
                match warm {
                    Some(serving) => serving.finish()?,
                    None => tool.copy(&source, &destination)?.having_sent(changes)?,
                }
            }
        };
        if first && content.is_tree() {
            check::same(&source, &destination)?;
        }
        Ok(run)
    }

    fn clear(&self, content: Content, to: Kind) -> Result<()> {
        if content.is_tree() {
            self.destination.format(to, &self.sizes)
        } else {
            content::zero_device(&self.destination.device, self.sizes.disk)
        }
    }

    /// Changes a part of the source, another one each time; returns how many files that are.
    fn change(&mut self, content: Content) -> Result<u64> {
        self.changes += 1;
        let at = if content.is_tree() {
            &self.source.path
        } else {
            &self.source.device
        };
        content.change(at, &self.sizes, self.changes)
    }

    /// The next command finds nothing in memory: what was written is clean, and forgotten.
    fn drop_caches(&self) -> Result<()> {
        self.source.sync()?;
        self.destination.sync()?;
        let file = Path::new("/proc/sys/vm/drop_caches");
        std::fs::write(file, "3").context("cannot drop the caches")
    }
}
