//! The engine and its program on real file systems: they need root, mkfs.ext4, mkfs.xfs, and the
//! tools of acl, attr, e2fsprogs and libcap.

mod block_volumes;
mod exact;
mod limits;
mod observe;
mod repair;
mod serving;
mod torture;
mod verification;
mod volume;

use std::path::Path;

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
