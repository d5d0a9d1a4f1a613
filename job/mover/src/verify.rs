//! Compares two trees, entry by entry, and reads the destination back from its storage.
//!
//! Shares with the copy how a directory is listed and an inode looked at, but nothing that decides
//! what is copied: an entry that the copy leaves out is found here.

mod content;
mod difference;
mod digest;
mod entry;
mod listing;
mod look;
mod storage;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use blake3::Hasher;
use pvmigrate_record::order::{Level, Verified, What};

use crate::Options;
use crate::attributes::Keep;
use crate::fault::Fault;
use crate::ledger::{Ledger, Progress};
use crate::limiter::Limiter;
use crate::lock::lock;
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
    let root = Pair::root(roots, |meta, _| Own::new([0; 32], with.known, &meta));
    let root = match root {
        Ok(root) => root,
        Err(fault) => return ledger.fault(b"", &fault),
    };
    let comparison = Comparison {
        with,
        pool: Pool::new(),
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
            Own::new(path, self.with.known, &meta)
        });
        match entered {
            Ok(directory) => self.list(&directory),
            Err(fault) => {
                self.fault(parent, name, &fault);
                self.done(parent);
            }
        }
    }

    fn done(&self, directory: &Directory) {
        directory.done(&self.opened, |_, _| {});
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
    /// The next batch, as indices of names. None if none are left.
    fn take(&self, batch: usize) -> Option<std::ops::Range<usize>> {
        let start = self.next.fetch_add(batch, Ordering::Relaxed);
        (start < self.names.len()).then(|| start..(start + batch).min(self.names.len()))
    }
}
