//! The entries of a directory, a batch at a time: what may have changed is found out first, and
//! its files are read ahead.

use std::ffi::CStr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::fs::{Advice, OFlags, fadvise};

use super::big::is_big;
use super::{Directory, Item, Listing, Pass};
use crate::AHEAD;
use crate::content::Copier;
use crate::fault::Fault;
use crate::ledger::shown;
use crate::manifest::Known;
use crate::meta::{Kind, Meta};
use crate::pair::Sides;
use crate::quiet::open_quietly;
use crate::xattrs::Place;

/// How many bytes of files one thread copies before it shares what is left of its batch.
const SHARE: u64 = 1024 * 1024;

/// An entry that may have changed.
pub(super) struct Entry {
    /// Which name of its listing it is.
    index: usize,
    pub(super) meta: Meta,
    /// What the destination has under its name.
    pub(super) found: Option<Meta>,
    /// What is known of that as its copy.
    pub(super) known: Option<Known>,
    /// A file, open and being read ahead.
    pub(super) file: Option<OwnedFd>,
}

impl Pass<'_> {
    pub(super) fn batch(
        &self,
        directory: &Directory,
        listing: &Arc<Listing>,
        copier: &mut Copier<'_>,
    ) {
        while let Some(batch) = listing.take(self.opened.batch()) {
            let more = batch.end < listing.source.len();
            let mut shared = more && self.pool.should_share();
            if shared {
                self.push_names(directory, listing);
            }
            match self.sides(directory) {
                Ok(sides) => {
                    let began = Instant::now();
                    let mut changed = Vec::with_capacity(batch.len());
                    for index in batch {
                        self.ledger().entry();
                        match self.look(directory, &sides, listing, index) {
                            Ok(entry) => changed.extend(entry),
                            Err(fault) => {
                                self.fault(directory, listing.source.name(index), &fault);
                            }
                        }
                    }
                    self.ledger().looked(began.elapsed());
                    let rest = share(&mut changed);
                    if !rest.is_empty() {
                        // Below the rest: its files are open, so it has to be done first.
                        if more && !shared {
                            self.push_names(directory, listing);
                        }
                        shared = true;
                        self.push_entries(directory, listing, rest);
                    }
                    self.entries(directory, listing, changed, copier);
                }
                Err(fault) => self.ledger().fault(&directory.path(), &fault),
            }
            if shared || self.ledger().must_stop() {
                break;
            }
        }
        self.done(directory);
    }

    fn push_names(&self, directory: &Directory, listing: &Arc<Listing>) {
        directory.begin();
        let names = Item::Names(Arc::clone(directory), Arc::clone(listing));
        self.pool.push(names);
    }

    fn push_entries(&self, directory: &Directory, listing: &Arc<Listing>, entries: Vec<Entry>) {
        directory.begin();
        let entries = Item::Entries(Arc::clone(directory), Arc::clone(listing), entries);
        self.pool.push(entries);
    }

    /// Copies what is left of a batch.
    pub(super) fn rest(
        &self,
        directory: &Directory,
        listing: &Arc<Listing>,
        mut entries: Vec<Entry>,
        copier: &mut Copier<'_>,
    ) {
        let rest = share(&mut entries);
        if !rest.is_empty() {
            self.push_entries(directory, listing, rest);
        }
        self.entries(directory, listing, entries, copier);
        self.done(directory);
    }

    fn entries(
        &self,
        directory: &Directory,
        listing: &Listing,
        entries: Vec<Entry>,
        copier: &mut Copier<'_>,
    ) {
        match self.sides(directory) {
            Ok(sides) => {
                for entry in entries {
                    if self.ledger().must_stop() {
                        return;
                    }
                    let name = listing.source.name(entry.index);
                    if let Err(fault) = self.entry(directory, &sides, name, entry, copier) {
                        self.fault(directory, name, &fault);
                    }
                }
            }
            Err(fault) => self.ledger().fault(&directory.path(), &fault),
        }
    }

    /// Looks at an entry. None if nothing is to be done now: it is unchanged, or not ours.
    fn look(
        &self,
        directory: &Directory,
        sides: &Sides,
        listing: &Listing,
        index: usize,
    ) -> Result<Option<Entry>, Fault> {
        let name = listing.source.name(index);
        let meta = Meta::at(sides.source(), name).map_err(Fault::source("look at it"))?;
        if meta.mount_point {
            let path = shown(&directory.path_of(name));
            self.ledger()
                .note(format!("{path} is a mount point and is not copied"));
            return Ok(None);
        }
        let inode = listing.existing.inode_of(name);
        let known = inode.and_then(|inode| directory.own.known.find(meta.id.2, inode));
        // Names of one inode have to be told of each other, unchanged or not.
        if let Some(known) = known
            && meta.kind != Kind::Directory
            && meta.nlink == 1
            && self.is_unchanged(known, &meta)
        {
            self.count(meta.kind);
            let known = self.same_access(known, &meta, Place::Named(sides.destination(), name))?;
            directory.own.remember(known);
            return Ok(None);
        }
        let found = match inode {
            Some(_) => {
                Meta::find(sides.destination(), name).map_err(Fault::destination("look at it"))?
            }
            None => None,
        };
        if found.is_some_and(|found| found.mount_point) {
            return Err(Fault::Refused(
                "a mount point on the destination is in the way".into(),
            ));
        }
        let mut file = None;
        if meta.kind == Kind::Regular && meta.nlink == 1 {
            let opened = open_quietly(sides.source(), name, OFlags::RDONLY)
                .map_err(Fault::source("open it"))?;
            if !is_big(&meta)
                && let Some(ahead) = NonZeroU64::new(meta.size.min(AHEAD))
            {
                // Advice that is not taken costs time only.
                let _ = fadvise(&opened, 0, Some(ahead), Advice::WillNeed);
            }
            file = Some(opened);
        }
        Ok(Some(Entry {
            index,
            meta,
            found,
            known: known.cloned(),
            file,
        }))
    }
}

/// Leaves as many entries as one thread copies in a while, and returns the others.
fn share(entries: &mut Vec<Entry>) -> Vec<Entry> {
    let mut bytes = 0;
    let own = entries.iter().position(|entry| {
        bytes += entry.meta.size;
        bytes > SHARE
    });
    own.map_or_else(Vec::new, |own| entries.split_off(own + 1))
}

/// The file of an entry. Whether it still is the one that was looked at is asked when it was read.
pub(super) fn opened(sides: &Sides, name: &CStr, entry: &mut Entry) -> Result<OwnedFd, Fault> {
    match entry.file.take() {
        Some(file) => Ok(file),
        None => {
            open_quietly(sides.source(), name, OFlags::RDONLY).map_err(Fault::source("open it"))
        }
    }
}
