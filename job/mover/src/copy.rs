//! One pass: makes the destination's tree equal to the source's, with several threads.
//!
//! ```text
//! for each directory, depth first:
//!   list both sides               names that the source has not are removed
//!   for each batch of names:      what is known to be unchanged is left; of the rest, files are
//!                                 opened and read ahead, and then made equal one by one
//!   when all in it are done       its own attributes, now that nothing touches them
//! ```
//!
//! An entry that fails is an error in the report and the walk goes on; it stops only where every
//! further write would fail.

mod batch;
mod big;
mod directory;
mod entry;
mod file;
mod links;

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::nice;

use pvmigrate_record::order::What;

use crate::Options;
use crate::attributes::Keep;
use crate::content::Copier;
use crate::fault::Fault;
use crate::ledger::{Ledger, Progress};
use crate::limiter::Limiter;
use crate::links::Links;
use crate::manifest::Manifest;
use crate::names::Names;
use crate::pair::{Opened, Pair, Sides};
use crate::pool::Pool;
use crate::trust::Trust;
use batch::Entry;
use big::Big;
use directory::Own;

/// How much a warm pass steps back behind the application. The kernel derives the I/O priority
/// from it where none was set: 6 of 0 to 7, where 4 is usual (ioprio_set(2)).
const NICENESS: i32 = 10;

/// What a pass works with.
pub struct Context<'a> {
    pub what: What,
    pub options: &'a Options,
    pub keep: Keep<'a>,
    pub trust: &'a Trust,
    /// Whether all that the destination holds was written back before the pass.
    pub on_storage: bool,
    pub limiter: &'a Limiter,
    /// What the pass before left.
    pub before: &'a Manifest,
    /// What this pass leaves.
    pub after: &'a Manifest,
}

struct Pass<'a> {
    with: &'a Context<'a>,
    pool: Pool<Item>,
    opened: Opened<Own>,
    links: Links<Name>,
}

type Directory = Arc<Pair<Own>>;

/// An entry, where it is.
#[derive(Clone)]
struct Name {
    directory: Directory,
    name: CString,
}

/// What is to be done.
enum Item {
    /// Go into a directory that both sides have.
    Enter {
        parent: Directory,
        name: CString,
        fresh: bool,
    },
    /// Copy the next names of a directory.
    Names(Directory, Arc<Listing>),
    /// Copy entries that were looked at.
    Entries(Directory, Arc<Listing>, Vec<Entry>),
    /// Copy the next part of a big file.
    Part(Arc<Big>),
}

/// The names of a directory.
struct Listing {
    /// In the order of their inodes.
    source: Names,
    /// In the order of their bytes.
    existing: Names,
    next: AtomicUsize,
}

/// Makes the tree of `roots` equal; the outcome is in the ledger.
pub fn copy(roots: Sides, with: &Context<'_>, progress: Progress<'_>) {
    let ledger = with.keep.ledger;
    let root = Pair::root(roots, |meta, found| {
        Own::new(meta, found, false, with.before)
    });
    let root = match root {
        Ok(root) => root,
        Err(fault) => return ledger.fault(b"", &fault),
    };
    let pass = Pass {
        with,
        pool: Pool::new(),
        opened: Opened::new(with.options.threads.get()),
        links: Links::new(),
    };
    pass.list(&root);
    let begin = || {
        if with.what == What::Warm {
            // Who may not step back works as it is.
            let _ = nice(NICENESS);
        }
        Copier::new(with.limiter)
    };
    pass.pool.run(
        with.options.threads.get(),
        begin,
        |copier, item| pass.work(copier, item),
        &mut || ledger.tell(progress),
    );
}

impl Pass<'_> {
    fn work(&self, copier: &mut Copier<'_>, item: Item) {
        match item {
            Item::Enter {
                parent,
                name,
                fresh,
            } => self.enter(&parent, &name, fresh),
            Item::Names(directory, listing) => self.batch(&directory, &listing, copier),
            Item::Entries(directory, listing, rest) => {
                self.rest(&directory, &listing, rest, copier);
            }
            Item::Part(big) => self.part(&big, copier),
        }
        if self.ledger().must_stop() {
            self.pool.stop();
        }
    }

    fn ledger(&self) -> &Ledger {
        self.with.keep.ledger
    }

    fn sides(&self, directory: &Directory) -> Result<Arc<Sides>, Fault> {
        directory.sides(&self.opened)
    }

    fn fault(&self, directory: &Directory, name: &CStr, fault: &Fault) {
        self.ledger().fault(&directory.path_of(name), fault);
    }
}

impl Listing {
    /// The next batch, as indices of names. None if none are left.
    fn take(&self, batch: usize) -> Option<std::ops::Range<usize>> {
        let start = self.next.fetch_add(batch, Ordering::Relaxed);
        (start < self.source.len()).then(|| start..(start + batch).min(self.source.len()))
    }
}
