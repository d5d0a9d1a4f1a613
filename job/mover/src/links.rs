//! Which names are one inode, while several threads come upon them.
//!
//! The first name that a thread comes upon is copied; names that come while that lasts are kept,
//! and linked by the thread that copied.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::lock::lock;
use crate::manifest::Known;
use crate::meta::{Id, Meta};

/// The inodes of a pass that have more than one name. `N` is a name, and where it is.
pub struct Links<N> {
    inner: Mutex<Inner<N>>,
}

struct Inner<N> {
    /// By the source's inode.
    inodes: HashMap<Id, Inode<N>>,
    /// By the destination's inode: the source's inode that it is the copy of.
    owners: HashMap<Id, Id>,
}

enum Inode<N> {
    /// Its first name is being copied; these are to be linked to it.
    Begun(Vec<N>),
    Copied(First<N>),
    /// The first name failed, and the error is in the report.
    Failed,
}

#[derive(Clone)]
pub struct First<N> {
    pub name: N,
    /// The destination's inode.
    pub copy: Id,
    pub known: Known,
    /// How many more names are to come.
    to_come: u32,
}

pub enum Claim<N> {
    /// This is the first name: copy it, then say so.
    First,
    /// It is the name of this inode: link it.
    Link(First<N>),
    /// It is kept until the first name is copied.
    Waits,
    /// Its inode could not be copied under another name.
    Failed,
}

impl<N: Clone> Links<N> {
    pub fn new() -> Self {
        Links {
            inner: Mutex::new(Inner {
                inodes: HashMap::new(),
                owners: HashMap::new(),
            }),
        }
    }

    /// Comes upon a name of an inode that has several.
    pub fn claim(&self, source: &Meta, name: &N) -> Claim<N> {
        let mut inner = self.lock();
        match inner.inodes.get_mut(&source.id) {
            None => {
                inner.inodes.insert(source.id, Inode::Begun(Vec::new()));
                Claim::First
            }
            Some(Inode::Begun(waiting)) => {
                waiting.push(name.clone());
                Claim::Waits
            }
            Some(Inode::Copied(first)) => {
                let first = first.clone();
                inner.linked(source.id);
                Claim::Link(first)
            }
            Some(Inode::Failed) => Claim::Failed,
        }
    }

    /// The first name was copied to an inode of the destination. Returns the names that waited.
    pub fn copied(&self, source: &Meta, copy: Id, name: N, known: Known) -> (First<N>, Vec<N>) {
        let first = First {
            name,
            copy,
            known,
            to_come: source.nlink.saturating_sub(1),
        };
        let mut inner = self.lock();
        let before = inner.inodes.insert(source.id, Inode::Copied(first.clone()));
        let waiting = match before {
            Some(Inode::Begun(waiting)) => waiting,
            _ => Vec::new(),
        };
        for _ in &waiting {
            inner.linked(source.id);
        }
        (first, waiting)
    }

    /// The first name could not be copied. Returns the names that waited.
    pub fn failed(&self, source: &Meta) -> Vec<N> {
        match self.lock().inodes.insert(source.id, Inode::Failed) {
            Some(Inode::Begun(waiting)) => waiting,
            _ => Vec::new(),
        }
    }

    /// Makes an inode of the destination the copy of a source inode. False if it already is that
    /// of another.
    pub fn own(&self, copy: Id, source: Id) -> bool {
        *self.lock().owners.entry(copy).or_insert(source) == source
    }

    fn lock(&self) -> MutexGuard<'_, Inner<N>> {
        lock(&self.inner)
    }
}

impl<N> Inner<N> {
    /// One more of its names is accounted for. The last one frees its memory.
    fn linked(&mut self, source: Id) {
        if let Some(Inode::Copied(first)) = self.inodes.get_mut(&source) {
            first.to_come = first.to_come.saturating_sub(1);
            if first.to_come == 0 {
                self.inodes.remove(&source);
            }
        }
    }
}
