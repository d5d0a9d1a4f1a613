//! Copies one file tree to another so that no application can tell, and proves it.
//!
//! Everything is relative to file descriptors and never follows a symlink inside a tree; trees of
//! any depth are walked with a bounded number of open files.

mod attributes;
mod boundary;
mod content;
mod copy;
mod fault;
mod ledger;
mod links;
mod meta;
mod names;
mod remove;
pub mod serve;
mod trail;
mod verify;
mod xattrs;

use std::fs::canonicalize;
use std::path::Path;

use pvmigrate_record::order::{PassReport, What};
use rustix::fd::OwnedFd;

use fault::Fault;
use ledger::Ledger;
pub use ledger::Progress;
use trail::open_root;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether the source may change meanwhile: in a warm pass that is counted and noted, in a
    /// final one it is an error.
    pub what: What,
    /// Compare both sides afterwards.
    pub verify: bool,
}

/// Makes the tree at `destination` equal to the one at `source`, whatever it held before.
///
/// The report is ok only if everything was copied, reached the storage, and, with
/// [`Options::verify`], was read back equal. Each thing that could not be kept is an error with
/// its path. When the copy has errors nothing is verified. `progress` is told entries and bytes
/// at most once a second, of copy and verification together.
pub fn copy(
    source: &Path,
    destination: &Path,
    options: Options,
    progress: Progress<'_>,
) -> PassReport {
    let mut ledger = Ledger::new(options.what, progress);
    if let Some((from, to)) = open(source, destination, &mut ledger) {
        copy::copy(from, to, &mut ledger);
        if options.verify && !ledger.has_errors() {
            compare(source, destination, &mut ledger);
        }
    }
    ledger.close()
}

/// Compares the two trees and changes neither. Each difference is an error with its path.
pub fn verify(source: &Path, destination: &Path, progress: Progress<'_>) -> PassReport {
    let mut ledger = Ledger::new(What::Final, progress);
    if let Some((_, to)) = open(source, destination, &mut ledger) {
        // What is still on its way to the storage cannot be read back from there.
        if let Err(errno) = rustix::fs::syncfs(&to) {
            ledger.fault(b"", &Fault::destination("write it back")(errno));
        }
        compare(source, destination, &mut ledger);
    }
    ledger.close()
}

fn compare(source: &Path, destination: &Path, ledger: &mut Ledger<'_>) {
    if let Some((from, to)) = open(source, destination, ledger) {
        ledger.report.verified = Some(verify::verify(from, to, ledger));
    }
}

fn open(source: &Path, destination: &Path, ledger: &mut Ledger<'_>) -> Option<(OwnedFd, OwnedFd)> {
    let opened = (|| {
        // A source that is not there is no change that a warm pass puts up with.
        let from = open_root(source).map_err(|errno| Fault::Source {
            doing: "open it".into(),
            errno,
        })?;
        let to = open_root(destination).map_err(Fault::destination("open it"))?;
        if let (Ok(source), Ok(destination)) = (canonicalize(source), canonicalize(destination))
            && (source.starts_with(&destination) || destination.starts_with(&source))
        {
            return Err(Fault::Refused(
                "one of the two folders is in the other".into(),
            ));
        }
        Ok((from, to))
    })();
    opened.map_err(|fault| ledger.fault(b"", &fault)).ok()
}
