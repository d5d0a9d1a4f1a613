//! Compares two trees, entry by entry, and reads the destination back from its storage.
//!
//! Shares with the copy how a directory is listed and an inode looked at, but nothing that decides
//! what is copied: an entry that the copy leaves out is found here.

mod content;
mod difference;
mod digest;
mod entry;
mod storage;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use blake3::Hasher;
use pvmigrate_record::order::{Attribute, Level, Verified, What};

use crate::Options;
use crate::attributes::Keep;
use crate::boundary::leave_lost_and_found;
use crate::extra::Seal;
use crate::fault::Fault;
use crate::ledger::{Ledger, Progress};
use crate::limiter::Limiter;
use crate::manifest::{Entries, Manifest};
use crate::meta::{Id, Meta};
use crate::names::Names;
use crate::pair::{Opened, Pair, Sides};
use crate::pool::Pool;
use content::Reading;
use digest::Digest;
use storage::Reader;

/// What a comparison works with.
pub struct Context<'a> {
    pub what: What,
    pub level: Level,
    pub options: &'a Options,
    pub keep: Keep<'a>,
    pub limiter: &'a Limiter,
    /// What the copy knows of what it did. None: both sides are read.
    pub known: Option<&'a Manifest>,
}

struct Comparison<'a> {
    with: &'a Context<'a>,
    pool: Pool<Item>,
    opened: Opened<Own>,
    entries: AtomicU64,
    /// Bytes read from the destination.
    read: AtomicU64,
    /// Which inodes are each other's copies, by the source's and by the destination's.
    pairs: Mutex<(HashMap<Id, Id>, HashMap<Id, Id>)>,
    /// Of the source and of the destination.
    digests: Mutex<(Digest, Digest)>,
}

type Directory = Arc<Pair<Own>>;

struct Own {
    /// A hash of its path.
    path: [u8; 32],
    known: Entries,
}

enum Item {
    Enter(Directory, CString),
    Names(Directory, Arc<Listing>),
    Part(Arc<Reading>),
}

/// The names that both sides have, in the order of the destination's inodes.
struct Listing {
    names: Names,
    next: AtomicUsize,
}

/// Compares the trees; each difference becomes an error of its path in the ledger.
///
/// What the destination holds must have been synced: only then do its pages leave the cache when
/// they are told to.
pub fn verify(roots: Sides, with: &Context<'_>, progress: Progress<'_>) {
    let ledger = with.keep.ledger;
    let own = |meta: &Meta| Own::new([0; 32], with.known, meta);
    let root = Meta::of(roots.source())
        .map_err(Fault::source("look at it"))
        .and_then(|meta| Pair::root(roots, own(&meta)));
    let root = match root {
        Ok(root) => root,
        Err(fault) => return ledger.fault(b"", &fault),
    };
    root.begin();
    let comparison = Comparison {
        with,
        pool: Pool::new(Item::Names(Arc::clone(&root), Arc::new(Listing::empty()))),
        opened: Opened::new(with.options.threads.get()),
        entries: AtomicU64::new(0),
        read: AtomicU64::new(0),
        pairs: Mutex::default(),
        digests: Mutex::default(),
    };
    if let Err(fault) = comparison.root(&root) {
        ledger.fault(b"", &fault);
    }
    comparison.list(&root);
    comparison.pool.run(
        with.options.threads.get(),
        || Reader::new(with.limiter),
        |reader, item| comparison.work(reader, item),
        &mut || ledger.tell(progress),
    );
    let (source, destination) = *lock(&comparison.digests);
    ledger.verified(Verified {
        level: with.level,
        entries: comparison.entries.load(Ordering::Relaxed),
        bytes: comparison.read.load(Ordering::Relaxed),
        source_digest: source.shown(),
        destination_digest: destination.shown(),
    });
}

impl Comparison<'_> {
    fn work(&self, reader: &mut Reader<'_>, item: Item) {
        match item {
            Item::Enter(parent, name) => self.enter(&parent, &name),
            Item::Names(directory, listing) => self.batch(&directory, &listing, reader),
            Item::Part(reading) => self.part(&reading, reader),
        }
    }

    fn enter(&self, parent: &Directory, name: &CStr) {
        let entered = parent.enter(name, &self.opened, |meta, _| {
            let mut path = Hasher::new();
            path.update(&parent.own.path).update(name.to_bytes());
            let path = *path.finalize().as_bytes();
            Ok(Own::new(path, self.with.known, meta))
        });
        match entered {
            Ok(directory) => self.list(&directory),
            Err(fault) => {
                self.fault(parent, name, &fault);
                self.done(parent);
            }
        }
    }

    /// Lists both sides. What only one of them has is named here, what both have goes on.
    fn list(&self, directory: &Directory) {
        match self.listing(directory) {
            Ok(names) if !names.is_empty() => {
                directory.begin();
                let listing = Listing {
                    names,
                    next: AtomicUsize::new(0),
                };
                self.pool
                    .push(Item::Names(Arc::clone(directory), Arc::new(listing)));
            }
            Ok(_) => {}
            Err(fault) => self.ledger().fault(&directory.path(), &fault),
        }
        self.done(directory);
    }

    fn listing(&self, directory: &Directory) -> Result<Names, Fault> {
        let sides = directory.sides(&self.opened)?;
        let doing = "read its directory";
        let mut source = Names::read(sides.source()).map_err(Fault::source(doing))?;
        let mut names = Names::read(sides.destination()).map_err(Fault::destination(doing))?;
        if directory.parent().is_none() {
            leave_lost_and_found(
                (sides.source(), &mut source),
                (sides.destination(), &mut names),
            );
        }
        let exclude = &self.with.options.exclude;
        if !exclude.is_empty() {
            source.leave_out(|name| exclude.matches(&directory.path_of(name)));
        }
        for name in source.iter().filter(|name| !names.contains(name)) {
            self.missing(directory, &sides, name);
        }
        names.leave_out(|name| {
            let only_here = !source.contains(name);
            if only_here {
                let fault = match self.with.what {
                    What::Warm => Fault::Changed("lost a name"),
                    What::Final => {
                        Fault::Refused("on the destination but not on the source".into())
                    }
                };
                self.fault(directory, name, &fault);
                if self.with.what == What::Final
                    && let Ok(meta) = Meta::at(sides.destination(), name)
                {
                    let digest = self.digest(directory, name, &meta);
                    lock(&self.digests).1.add(&digest);
                }
            }
            only_here
        });
        names.sort_by_inode();
        Ok(names)
    }

    /// In a warm pass an entry may have come after its directory was copied; one that the copy
    /// left out is found by the final pass.
    fn missing(&self, directory: &Directory, sides: &Sides, name: &CStr) {
        let may_miss = Meta::at(sides.source(), name).is_ok_and(|meta| {
            meta.mount_point || (meta.kind.is_special() && self.ledger().loses(Attribute::Specials))
        });
        if may_miss {
            return;
        }
        let fault = match self.with.what {
            What::Warm => Fault::Changed("got a new name"),
            What::Final => Fault::Refused("missing on the destination".into()),
        };
        self.fault(directory, name, &fault);
        if self.with.what == What::Final
            && let Ok(meta) = Meta::at(sides.source(), name)
        {
            lock(&self.digests)
                .0
                .add(&self.digest(directory, name, &meta));
        }
    }

    /// What stands in the digest of its side for an entry that the other has not.
    fn digest(&self, directory: &Directory, name: &CStr, meta: &Meta) -> blake3::Hash {
        let path = &directory.own.path;
        digest::of_entry(path, name, meta, &Seal::default(), &[], self.ledger())
    }

    fn done(&self, directory: &Directory) {
        let mut directory = Arc::clone(directory);
        while directory.end() {
            let Some(parent) = directory.parent().cloned() else {
                return;
            };
            if let Ok(sides) = directory.sides(&self.opened) {
                parent.reopen_from(&sides, &self.opened);
            }
            directory = parent;
        }
    }

    fn ledger(&self) -> &Ledger {
        self.with.keep.ledger
    }

    fn fault(&self, directory: &Directory, name: &CStr, fault: &Fault) {
        self.ledger().fault(&directory.path_of(name), fault);
    }
}

impl Own {
    fn new(path: [u8; 32], known: Option<&Manifest>, source: &Meta) -> Self {
        Own {
            path,
            known: known
                .map(|known| known.entries(source.id.2))
                .unwrap_or_default(),
        }
    }
}

impl Listing {
    fn empty() -> Self {
        Listing {
            names: Names::default(),
            next: AtomicUsize::new(0),
        }
    }

    /// The next batch, as indices of names. None if none are left.
    fn take(&self, batch: usize) -> Option<std::ops::Range<usize>> {
        let start = self.next.fetch_add(batch, Ordering::Relaxed);
        (start < self.names.len()).then(|| start..(start + batch).min(self.names.len()))
    }
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
