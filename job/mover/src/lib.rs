//! Copies one file tree to another so that no application can tell, and proves it.
//!
//! Everything is relative to file descriptors and never follows a symlink inside a tree; trees of
//! any depth are walked with a bounded number of open files.

mod attributes;
mod block;
mod boundary;
mod content;
mod copy;
mod exclude;
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

use std::collections::BTreeSet;
use std::fs::canonicalize;
use std::io::Error;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use pvmigrate_record::order::{Attribute, Level, PassReport, THREADS, What};
use rustix::fd::OwnedFd;

pub use exclude::Exclusions;
use fault::Fault;
use ledger::Ledger;
pub use ledger::Progress;
use trail::open_root;

/// How a mover works, for all of its passes.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is compared after a pass.
    pub verify: Level,
    /// What is left out, as if the source did not have it.
    pub exclude: Exclusions,
    /// Bytes a second that are read from the source, by all threads together.
    pub bandwidth: Option<NonZeroU64>,
    /// What may be lost without an error.
    pub lose: BTreeSet<Attribute>,
    /// Whether `security.selinux` is kept. A kubelet labels volumes for the pods that mount them.
    pub selinux: bool,
    pub threads: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: Level::default(),
            exclude: Exclusions::default(),
            bandwidth: None,
            lose: BTreeSet::new(),
            selinux: false,
            threads: THREADS,
        }
    }
}

/// Two trees, and what is known of them from one pass to the next.
pub struct Mover {
    source: PathBuf,
    destination: PathBuf,
    options: Options,
    passes: u32,
    /// Of the destination, where it is a block device.
    blocks: block::Known,
}

impl Mover {
    pub fn new(source: &Path, destination: &Path, options: Options) -> Self {
        Mover {
            source: source.to_owned(),
            destination: destination.to_owned(),
            options,
            passes: 0,
            blocks: block::Known::default(),
        }
    }

    /// Whether both sides can be looked into.
    pub fn check(&self) -> std::io::Result<()> {
        if block::are_devices(&self.source, &self.destination).map_err(Error::other)? {
            return block::check(&self.source, &self.destination).map_err(Error::other);
        }
        for folder in [&self.source, &self.destination] {
            std::fs::read_dir(folder)?;
        }
        Ok(())
    }

    /// Makes the tree at the destination equal to the one at the source, whatever it held before.
    ///
    /// The report is ok only if everything was copied, reached the storage, and was compared as
    /// [`Options::verify`] says. Each thing that could not be kept is an error with its path. When
    /// the copy has errors nothing is compared. `progress` is told entries and bytes at most once
    /// a second, of copy and comparison together.
    pub fn pass(&mut self, what: What, progress: Progress<'_>) -> PassReport {
        self.passes += 1;
        let mut ledger = Ledger::new(what, progress);
        let (source, destination) = (&self.source, &self.destination);
        match block::are_devices(source, destination) {
            Ok(true) => {
                let how = block_how(&self.options);
                let pair = (source.as_path(), destination.as_path());
                block::pass(pair, &how, &mut self.blocks, what, &mut ledger);
            }
            Ok(false) => self.pass_trees(what, &mut ledger),
            Err(fault) => ledger.fault(b"", &fault),
        }
        let mut report = ledger.close();
        report.pass = self.passes;
        report
    }

    fn pass_trees(&self, what: What, ledger: &mut Ledger<'_>) {
        let (source, destination) = (&self.source, &self.destination);
        if let Some((from, to)) = open(source, destination, ledger) {
            copy::copy(from, to, ledger);
            if what == What::Final && self.options.verify > Level::None && !ledger.has_errors() {
                compare(source, destination, ledger);
            }
        }
    }
}

/// Compares the two trees and changes neither. Each difference is an error with its path.
pub fn verify(
    source: &Path,
    destination: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> PassReport {
    let mut ledger = Ledger::new(What::Final, progress);
    match block::are_devices(source, destination) {
        Ok(true) => block::verify((source, destination), &block_how(options), &mut ledger),
        Ok(false) => verify_trees(source, destination, &mut ledger),
        Err(fault) => ledger.fault(b"", &fault),
    }
    ledger.close()
}

fn verify_trees(source: &Path, destination: &Path, ledger: &mut Ledger<'_>) {
    if let Some((_, to)) = open(source, destination, ledger) {
        // What is still on its way to the storage cannot be read back from there.
        if let Err(errno) = rustix::fs::syncfs(&to) {
            ledger.fault(b"", &Fault::destination("write it back")(errno));
        }
        compare(source, destination, ledger);
    }
}

fn compare(source: &Path, destination: &Path, ledger: &mut Ledger<'_>) {
    if let Some((from, to)) = open(source, destination, ledger) {
        ledger.report.verified = Some(verify::verify(from, to, ledger));
    }
}

fn block_how(options: &Options) -> block::How<'_> {
    block::How {
        level: options.verify,
        threads: options.threads,
        take: &|_| {},
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
