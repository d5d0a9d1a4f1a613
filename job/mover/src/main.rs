//! The mover's program: wires the verbs to the library, and turns outcomes into exit codes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use pvmigrate_mover::serve::{self, Config};
use pvmigrate_mover::{Options, copy, verify};
use pvmigrate_record::names;
use pvmigrate_record::order::{PassReport, What};
use signal_hook::consts::SIGTERM;

/// Not ok, or it could not work at all. 2, wrong usage, is clap's.
const NOT_OK: u8 = 1;
/// As a shell reports a program that SIGTERM ended.
const TERMINATED: i32 = 128 + SIGTERM;

/// Copies one file tree to another, exactly, and proves it.
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
    },
    /// Make a folder equal to another, and print the report as JSON
    Copy {
        /// What to compare afterwards
        #[arg(long, value_enum, default_value_t = Verification::Full)]
        verify: Verification,
        source: PathBuf,
        destination: PathBuf,
    },
    /// Compare two folders, and print the report as JSON
    Verify {
        source: PathBuf,
        destination: PathBuf,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Verification {
    /// Nothing
    None,
    /// Content and metadata of every entry
    Full,
}

fn main() -> ExitCode {
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
    // PID 1 of a container has no default action for a signal. There is nothing to tidy up: the
    // next pass makes good what this one leaves half done.
    let at_once = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_shutdown(SIGTERM, TERMINATED, at_once)
        .context("cannot handle SIGTERM")?;
    match verb {
        Verb::Serve {
            pod_uid,
            source,
            destination,
            order_file,
            termination_log,
        } => {
            serve::serve(&Config {
                pod: pod_uid,
                source,
                destination,
                order_file,
                termination_log,
            })
            .context("the mover cannot work")?;
            Ok(true)
        }
        Verb::Copy {
            verify,
            source,
            destination,
        } => {
            let options = Options {
                what: What::Final,
                verify: verify == Verification::Full,
            };
            print(&copy(&source, &destination, options, &mut |_, _| {}))
        }
        Verb::Verify {
            source,
            destination,
        } => print(&verify(&source, &destination, &mut |_, _| {})),
    }
}

fn print(report: &PassReport) -> anyhow::Result<bool> {
    println!("{}", serde_json::to_string(report)?);
    Ok(report.ok)
}
