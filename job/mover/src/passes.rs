//! The passes of a mover over two trees, and what it keeps from one to the next.
//!
//! ```text
//! the time, then syncfs(source)   what is older than this cannot change unseen (trust)
//! copy                            what may have changed is made equal
//! syncfs(destination)             the one place where a lost write shows
//! verify                          what was written is read back; all entries are compared
//! ```

use std::fs::canonicalize;
use std::io::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pvmigrate_record::order::{Level, PassReport, What};
use rustix::fs::syncfs;

use crate::attributes::Keep;
use crate::fault::Fault;
use crate::filesystem::FileSystem;
use crate::foresight::Foresight;
use crate::ledger::{Ledger, Progress, Teller};
use crate::limiter::Limiter;
use crate::manifest::Manifest;
use crate::pair::Sides;
use crate::quiet::open_root;
use crate::space::Margin;
use crate::trust::{Moment, Trust};
use crate::{Options, block, copy, space, verify as comparison};

/// Two trees, and what is known of them from one pass to the next.
pub struct Mover {
    source: PathBuf,
    destination: PathBuf,
    options: Options,
    limiter: Limiter,
    manifest: Manifest,
    /// Of the destination, where it is a block device.
    blocks: block::Known,
    passes: u32,
    /// When the source was last asked what time it is there.
    synced: Option<Moment>,
    foresight: Foresight,
}

impl Mover {
    pub fn new(source: &Path, destination: &Path, options: Options) -> Self {
        Mover {
            source: source.to_owned(),
            destination: destination.to_owned(),
            limiter: Limiter::new(options.bandwidth),
            options,
            manifest: Manifest::default(),
            blocks: block::Known::default(),
            passes: 0,
            synced: None,
            foresight: Foresight::default(),
        }
    }

    /// Whether both sides can be looked into, and one holds the other: found out before an
    /// application is stopped, also where the first pass comes only after that.
    pub fn check(&self) -> std::io::Result<()> {
        if block::are_devices(&self.source, &self.destination).map_err(Error::other)? {
            return block::check(&self.source, &self.destination).map_err(Error::other);
        }
        for folder in [&self.source, &self.destination] {
            std::fs::read_dir(folder)?;
        }
        let roots = open(&self.source, &self.destination).map_err(Error::other)?;
        let (from, to) = (roots.source(), roots.destination());
        space::check(from, to, &self.options.exclude, Margin::Kept).map_err(Error::other)
    }

    /// Makes the tree at the destination equal to the one at the source, whatever it held before.
    ///
    /// The report is ok only if everything was copied, reached the storage, and was compared as
    /// [`Options::verify`] says. Each thing that could not be kept is an error with its path. When
    /// the copy has errors nothing is compared. `progress` is told entries and bytes about once a
    /// second, of copy and comparison together.
    pub fn pass(&mut self, what: What, progress: Progress<'_>) -> PassReport {
        self.passes += 1;
        let began = Instant::now();
        let ledger = Ledger::new(what, &self.options.lose);
        let done = match block::are_devices(&self.source, &self.destination) {
            Ok(true) => {
                self.devices(what, &ledger, progress);
                Ok(())
            }
            Ok(false) => self.trees(what, &ledger, progress),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = done {
            ledger.fault(b"", &fault);
            // What is not known is compared.
            self.manifest = Manifest::default();
        }
        let threads = u32::try_from(self.options.threads.get()).unwrap_or(1);
        let looking = ledger.looking() / threads;
        let mut report = ledger.close();
        report.pass = self.passes;
        self.foresight.complete(&mut report, what, began, looking);
        report
    }

    fn devices(&mut self, what: What, ledger: &Ledger, progress: Progress<'_>) {
        let how = block::How {
            level: self.options.verify,
            threads: self.options.threads,
            take: &|bytes| self.limiter.take(bytes),
        };
        if !self.options.exclude.is_empty() {
            ledger.note("patterns exclude nothing from a block volume".into());
        }
        let pair = (self.source.as_path(), self.destination.as_path());
        let told = (ledger, &mut Teller::new(progress));
        block::pass(pair, &how, &mut self.blocks, what, told);
    }

    fn trees(&mut self, what: What, ledger: &Ledger, progress: Progress<'_>) -> Result<(), Fault> {
        let roots = open(&self.source, &self.destination)?;
        let (from, to) = (roots.source(), roots.destination());
        let source = FileSystem::of(from).map_err(Fault::source("ask for its type"))?;
        let destination = FileSystem::of(to).map_err(Fault::destination("ask for its type"))?;
        let keep = Keep {
            source,
            destination,
            selinux: self.options.selinux,
            ledger,
        };
        let trust = Trust::new(&source, self.synced, Moment::now());
        if let Some(why) = trust.why_not() {
            ledger.note(format!("unchanged is decided by content: {why}"));
        }
        syncfs(from).map_err(Fault::source("write back what applications wrote"))?;
        if self.passes == 1 {
            // What an earlier mover left is read from its storage, so it has to be there.
            syncfs(to).map_err(Fault::destination("write it back"))?;
            let margin = match what {
                What::Warm => Margin::Kept,
                What::Final => Margin::Given,
            };
            space::check(from, to, &self.options.exclude, margin)?;
        }
        // Opened before the first write: only then it is told of every one that is lost.
        let writes = open(&self.source, &self.destination)?;
        let after = Manifest::default();
        let context = copy::Context {
            what,
            options: &self.options,
            keep,
            trust: &trust,
            on_storage: self.passes == 1,
            limiter: &self.limiter,
            before: &self.manifest,
            after: &after,
        };
        copy::copy(roots, &context, progress);
        syncfs(writes.destination()).map_err(Fault::destination("write back what was copied"))?;
        let keep = context.keep;
        if self.options.verify > Level::None && !ledger.has_errors() {
            // Opened again: btrfs shows a directory as it was when it was opened.
            let roots = open(&self.source, &self.destination)?;
            let context = comparison::Context {
                what,
                level: self.options.verify,
                options: &self.options,
                keep,
                limiter: &self.limiter,
                known: Some(&after),
            };
            comparison::verify(roots, &context, progress);
        }
        if trust.is_void(Moment::now()) {
            ledger.note("the clock was set back during the pass".into());
            after.unsettle();
        }
        self.manifest = after;
        self.synced = Some(trust.began());
        Ok(())
    }
}

/// Compares the two trees and changes neither. Each difference is an error with its path.
pub fn verify(
    source: &Path,
    destination: &Path,
    options: &Options,
    progress: Progress<'_>,
) -> PassReport {
    let ledger = Ledger::new(What::Final, &options.lose);
    let limiter = Limiter::new(options.bandwidth);
    let mut compare = || {
        if block::are_devices(source, destination)? {
            let how = block::How {
                level: options.verify,
                threads: options.threads,
                take: &|bytes| limiter.take(bytes),
            };
            let told = (&ledger, &mut Teller::new(progress));
            block::verify((source, destination), &how, told);
            return Ok(());
        }
        let roots = open(source, destination)?;
        // What is still on its way to the storage cannot be read back from there.
        syncfs(roots.destination()).map_err(Fault::destination("write it back"))?;
        let from = FileSystem::of(roots.source()).map_err(Fault::source("ask for its type"))?;
        let to =
            FileSystem::of(roots.destination()).map_err(Fault::destination("ask for its type"))?;
        let context = comparison::Context {
            what: What::Final,
            level: options.verify.max(Level::Metadata),
            options,
            keep: Keep {
                source: from,
                destination: to,
                selinux: options.selinux,
                ledger: &ledger,
            },
            limiter: &limiter,
            known: None,
        };
        comparison::verify(roots, &context, progress);
        Ok(())
    };
    if let Err(fault) = compare() {
        ledger.fault(b"", &fault);
    }
    ledger.close()
}

fn open(source: &Path, destination: &Path) -> Result<Sides, Fault> {
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
    Ok(Sides::new(from, to))
}
