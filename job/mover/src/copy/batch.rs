//! The entries of a directory, a batch at a time: what may have changed is found out first, and
//! its files are read ahead.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::Instant;

use rustix::fd::OwnedFd;
use rustix::fs::{Advice, OFlags, fadvise};

use super::big::is_big;
use super::{Directory, Item, Listing, Pass};
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
        while let Some(batch) = listing.take() {
            let shared = batch.end < listing.source.len() && self.pool.should_share();
            if shared {
                directory.begin();
                let rest = Item::Names(Arc::clone(directory), Arc::clone(listing));
                self.pool.push(rest);
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
                    self.share(directory, listing, &mut changed);
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

    /// Leaves as many entries as one thread copies in a while, and puts the others on the stack.
    fn share(&self, directory: &Directory, listing: &Arc<Listing>, changed: &mut Vec<Entry>) {
        let mut bytes = 0;
        let own = changed.iter().position(|entry| {
            bytes += entry.meta.size;
            bytes > SHARE
        });
        let rest = own.map_or_else(Vec::new, |own| changed.split_off(own + 1));
        if !rest.is_empty() {
            directory.begin();
            let rest = Item::Entries(Arc::clone(directory), Arc::clone(listing), rest);
            self.pool.push(rest);
        }
    }

    /// Copies what is left of a batch.
    pub(super) fn rest(
        &self,
        directory: &Directory,
        listing: &Arc<Listing>,
        mut rest: Vec<Entry>,
        copier: &mut Copier<'_>,
    ) {
        self.share(directory, listing, &mut rest);
        self.entries(directory, listing, rest, copier);
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
            if meta.size > 0 && !is_big(&meta) {
                // Advice that is not taken costs time only.
                let _ = fadvise(&opened, 0, None, Advice::WillNeed);
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

/// The file of an entry. Whether it still is the one that was looked at is asked when it was read.
pub(super) fn opened(sides: &Sides, name: &CStr, entry: &mut Entry) -> Result<OwnedFd, Fault> {
    match entry.file.take() {
        Some(file) => Ok(file),
        None => {
            open_quietly(sides.source(), name, OFlags::RDONLY).map_err(Fault::source("open it"))
        }
    }
}
