//! The engine and its program on real file systems: they need root, the tools of ext4, XFS, btrfs,
//! ACLs, attributes and capabilities, SQLite and PostgreSQL.

mod background;
mod below;
mod block;
mod block_volumes;
mod change;
mod cli;
mod databases;
mod exact;
mod excluding;
mod full;
mod keeping;
mod killed;
mod limits;
mod observe;
mod property;
mod repair;
mod serving;
mod silent;
mod torture;
mod verification;
mod volume;

use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::{Level, PassReport, What};

/// A mover that reads all of both sides again, and trusts nothing.
fn mover(source: &Path, destination: &Path) -> Mover {
    let options = Options {
        verify: Level::Full,
        ..Options::default()
    };
    Mover::new(source, destination, options)
}

/// A single pass, final and verified in full.
fn pass(source: &Path, destination: &Path) -> PassReport {
    mover(source, destination).pass(What::Final, &mut |_, _| {})
}

fn warm(source: &Path, destination: &Path) -> PassReport {
    mover(source, destination).pass(What::Warm, &mut |_, _| {})
}

fn verify(source: &Path, destination: &Path) -> PassReport {
    pvmigrate_mover::verify(source, destination, &Options::default(), &mut |_, _| {})
}

/// What the program says of source and destination, and its exit code. `before` it stands a program
/// that starts it, if any.
#[track_caller]
fn program(
    before: &[&str],
    verb: &str,
    options: &[&str],
    (source, destination): (&Path, &Path),
) -> (i32, PassReport) {
    let mut words = before.to_vec();
    words.extend([env!("CARGO_BIN_EXE_pvmigrate-mover"), verb]);
    words.extend(options);
    let output = Command::new(words[0])
        .args(&words[1..])
        .args([source, destination])
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

#[track_caller]
fn assert_ok(report: &PassReport) {
    assert!(report.ok, "{report:#?}");
    assert_eq!((report.error_count, report.errors.len()), (0, 0));
    if let Some(verified) = &report.verified {
        assert_eq!(verified.source_digest, verified.destination_digest);
    }
}

/// The reasons that a report gives for one path.
#[track_caller]
fn reasons(report: &PassReport, path: &str) -> String {
    let found: Vec<_> = report
        .errors
        .iter()
        .filter(|error| error.path == path)
        .map(|error| error.reason.as_str())
        .collect();
    assert!(!found.is_empty(), "{path} is not named: {report:#?}");
    found.join("; ")
}

/// Looks every millisecond until it is so.
#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "not within a minute: {what}"
        );
        sleep(Duration::from_millis(1));
    }
}
