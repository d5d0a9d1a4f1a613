//! The mover's program: wires the verbs to the library, and turns outcomes into exit codes.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pvmigrate_mover::ending::{self, Ending};
use pvmigrate_mover::serve::{self, Config};
use pvmigrate_mover::{Exclusions, Mover, Options, verify};
use pvmigrate_record::names;
use pvmigrate_record::order::{Attribute, Level, PassReport, What};
use rustix::fs::Mode;
use rustix::process::umask;

/// Not ok, or it could not work at all. 2, wrong usage, is clap's.
const NOT_OK: u8 = 1;

/// Copies one file tree, or block volume, to another, exactly, and proves it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Carry out the orders of this pod's annotation, until a final pass is done
    Serve {
        /// UID of this pod
        #[arg(long, env = "POD_UID")]
        pod_uid: String,
        #[arg(long, default_value = names::SOURCE_MOUNT)]
        source: PathBuf,
        #[arg(long, default_value = names::DESTINATION_MOUNT)]
        destination: PathBuf,
        #[arg(long, default_value = names::ORDER_FILE)]
        order_file: PathBuf,
        #[arg(long, default_value = "/dev/termination-log")]
        termination_log: PathBuf,
        /// After so many seconds a mover that waits looks at what has changed since its last warm pass
        #[arg(long, value_name = "SECONDS", default_value_t = 5)]
        fresh_for: u64,
        #[command(flatten)]
        how: How,
    },
    /// Tell the mover of this container that its pod is to end; what the pod's preStop hook runs
    End,
    /// Do nothing until asked to end: an anchor's program, whose pod keeps volumes attached
    Rest,
    /// Make the destination equal to the source, and print the report as JSON
    Copy {
        #[command(flatten)]
        how: How,
        source: PathBuf,
        destination: PathBuf,
    },
    /// Compare the two, and print the report as JSON
    Verify {
        #[command(flatten)]
        how: How,
        source: PathBuf,
        destination: PathBuf,
    },
}

#[derive(Args)]
struct How {
    /// What to compare after a pass: none, metadata, written or full
    #[arg(long, value_name = "LEVEL", default_value = Level::default().name(), value_parser = level)]
    verify: Level,
    /// Leave out what this pattern matches, from the root: `*` within a name, `**` across; may be repeated
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    exclude: Vec<String>,
    /// Bytes a second to read from the source at most; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    bandwidth: u64,
    /// What may be lost without an error, separated by commas: owner, mode, times, xattrs, acls,
    /// capabilities, flags, project, holes, specials
    #[arg(long, value_name = "ATTRIBUTES", value_delimiter = ',', value_parser = attribute)]
    lose: Vec<Attribute>,
    /// Keep security.selinux, which is otherwise left to whoever mounts the volume
    #[arg(long)]
    selinux: bool,
    #[arg(long, default_value_t = Options::default().threads)]
    threads: NonZeroUsize,
}

impl How {
    fn options(self) -> anyhow::Result<Options> {
        Ok(Options {
            verify: self.verify,
            exclude: Exclusions::parse(&self.exclude).context("--exclude")?,
            bandwidth: NonZeroU64::new(self.bandwidth),
            lose: self.lose.into_iter().collect(),
            selinux: self.selinux,
            threads: self.threads,
            ..Options::default()
        })
    }
}

fn level(text: &str) -> Result<Level, String> {
    let found = Level::ALL.into_iter().find(|level| level.name() == text);
    found.ok_or_else(|| format!("one of {}", Level::ALL.map(Level::name).join(", ")))
}

/// A pattern that is understood. All of them are compiled together later.
fn pattern(text: &str) -> Result<String, String> {
    match Exclusions::parse(&[text]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn attribute(text: &str) -> Result<Attribute, String> {
    let found = Attribute::ALL.into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| format!("one of {}", Attribute::ALL.map(Attribute::name).join(", ")))
}

fn main() -> ExitCode {
    // Files are made with the mode that they end up with.
    umask(Mode::empty());
    match run(Arguments::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_OK),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(NOT_OK)
        }
    }
}

/// Whether all went well.
fn run(verb: Verb) -> anyhow::Result<bool> {
    let ending = Ending::heed().context("cannot handle signals")?;
    match verb {
        Verb::Serve {
            pod_uid,
            source,
            destination,
            order_file,
            termination_log,
            fresh_for,
            how,
        } => {
            let config = Config {
                pod: pod_uid,
                order_file,
                termination_log,
                fresh_for: Duration::from_secs(fresh_for),
                ending,
            };
            serve::serve(&config, Mover::new(&source, &destination, how.options()?))
                .context("the mover cannot work")?;
            Ok(true)
        }
        Verb::End => {
            ending::tell().context("cannot tell the mover")?;
            Ok(true)
        }
        // SIGTERM ends the process wherever it is; anything else that wakes it does not.
        Verb::Rest => loop {
            std::thread::park();
        },
        Verb::Copy {
            how,
            source,
            destination,
        } => print(
            &Mover::new(&source, &destination, how.options()?).pass(What::Final, &mut |_, _| {}),
        ),
        Verb::Verify {
            how,
            source,
            destination,
        } => print(&verify(
            &source,
            &destination,
            &how.options()?,
            &mut |_, _| {},
        )),
    }
}

fn print(report: &PassReport) -> anyhow::Result<bool> {
    println!("{}", serde_json::to_string(report)?);
    Ok(report.ok)
}
