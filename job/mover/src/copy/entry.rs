//! Entries, a batch at a time.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::Instant;

use pvmigrate_record::order::Attribute;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Advice, Mode, OFlags, fadvise, makedev, mkdirat, mknodat, readlinkat, symlinkat};

use super::big::is_big;
use super::{Directory, Item, Listing, Name, Pass};
use crate::attributes;
use crate::content::Copier;
use crate::extra::Extra;
use crate::fault::Fault;
use crate::ledger::shown;
use crate::links::Claim;
use crate::manifest::Known;
use crate::meta::{Id, Kind, Meta};
use crate::pair::Sides;
use crate::quiet::open_quietly;
use crate::xattrs::Place;

/// Nobody but the mover looks at what is half made.
const WHILE_MAKING: Mode = Mode::RWXU;

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
        if let Some(batch) = listing.take() {
            if batch.end < listing.source.len() {
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

    fn entry(
        &self,
        directory: &Directory,
        sides: &Arc<Sides>,
        name: &CStr,
        mut entry: Entry,
        copier: &mut Copier<'_>,
    ) -> Result<(), Fault> {
        let has_links = entry.meta.nlink > 1 && entry.meta.kind != Kind::Directory;
        if has_links && !self.claim(directory, sides, name, &entry.meta)? {
            return Ok(());
        }
        if let Some(found) = entry.found
            && (found.kind != entry.meta.kind
                || (found.nlink > 1
                    && found.kind != Kind::Directory
                    && !self.links.own(found.id, entry.meta.id)))
        {
            if let Err(fault) = directory.own.make_room(sides, name) {
                if has_links {
                    self.fail_links(&entry.meta);
                }
                return Err(fault);
            }
            entry.found = None;
            entry.known = None;
        }
        let meta = entry.meta;
        if has_links
            && let Some(known) = &entry.known
            && let Some(found) = entry.found
            && self.is_unchanged(known, &meta)
        {
            let place = Place::Named(sides.destination(), name);
            let known = self.same_access(known, &meta, place)?;
            self.count(meta.kind);
            self.link_waiting(directory, name, &meta, found.id, &known);
            directory.own.remember(known);
            return Ok(());
        }
        let made = match meta.kind {
            Kind::Directory => return self.directory(directory, sides, name, &entry),
            Kind::Regular => self.file(directory, sides, name, entry, copier),
            Kind::Symlink => self.symlink(directory, sides, name, &entry).map(Some),
            _ => self.special(directory, sides, name, &entry),
        };
        match made {
            // The last part of a big file does the rest.
            Ok(None) => Ok(()),
            Ok(Some(known)) => {
                self.made(directory, name, &meta, known);
                Ok(())
            }
            Err(fault) => {
                if has_links {
                    self.fail_links(&meta);
                }
                Err(fault)
            }
        }
    }

    /// An entry was copied: it is remembered, and its other names are linked to it.
    pub(super) fn made(&self, directory: &Directory, name: &CStr, meta: &Meta, known: Known) {
        self.count(meta.kind);
        self.ledger().count(|totals| totals.changed += 1);
        if meta.nlink > 1 {
            let (major, minor, _) = directory.destination_id();
            let copy: Id = (major, minor, known.copy);
            self.links.own(copy, meta.id);
            self.link_waiting(directory, name, meta, copy, &known);
        }
        directory.own.remember(known);
    }

    /// Whether this is the name under which an inode with several is copied. All others are
    /// linked, now or by whoever copies it.
    fn claim(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        meta: &Meta,
    ) -> Result<bool, Fault> {
        let this = Name {
            directory: Arc::clone(directory),
            name: name.to_owned(),
        };
        directory.begin();
        match self.links.claim(meta, &this) {
            Claim::Waits => return Ok(false),
            Claim::First => {
                directory.end();
                return Ok(true);
            }
            Claim::Link(first) => {
                directory.end();
                self.link(directory, sides, name, meta, &first)?;
            }
            Claim::Failed => {
                directory.end();
                return Err(Fault::OtherName);
            }
        }
        Ok(false)
    }

    fn directory(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        entry: &Entry,
    ) -> Result<(), Fault> {
        let fresh = entry.found.is_none();
        if fresh {
            directory.own.ready(sides)?;
            mkdirat(sides.destination(), name, WHILE_MAKING)
                .map_err(Fault::destination("make it"))?;
        }
        directory.begin();
        self.pool.push(Item::Enter {
            parent: Arc::clone(directory),
            name: name.to_owned(),
            fresh,
        });
        Ok(())
    }

    fn symlink(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        entry: &Entry,
    ) -> Result<Known, Fault> {
        let to = sides.destination();
        let target =
            readlinkat(sides.source(), name, Vec::new()).map_err(Fault::source("read it"))?;
        let equal = entry.found.is_some()
            && readlinkat(to, name, Vec::new()).map_err(Fault::destination("read it"))? == target;
        if !equal {
            directory.own.make_room(sides, name)?;
            symlinkat(&target, to, name).map_err(Fault::destination("make it"))?;
        }
        self.by_name(sides, name, entry, !equal, target.into_bytes())
    }

    /// None if it is let go.
    fn special(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        entry: &Entry,
    ) -> Result<Option<Known>, Fault> {
        let meta = &entry.meta;
        let fresh = entry.found.is_none_or(|found| found.rdev != meta.rdev);
        if fresh {
            directory.own.make_room(sides, name)?;
            let device = makedev(meta.rdev.0, meta.rdev.1);
            let permissions = Mode::RUSR | Mode::WUSR;
            let made = mknodat(
                sides.destination(),
                name,
                meta.kind.file_type(),
                permissions,
                device,
            )
            .map_err(Fault::destination("make it"));
            if made.is_err() {
                self.ledger().unless_lost(Attribute::Specials, made)?;
                return Ok(None);
            }
        }
        self.by_name(sides, name, entry, fresh, Vec::new())
            .map(Some)
    }

    fn by_name(
        &self,
        sides: &Sides,
        name: &CStr,
        entry: &Entry,
        fresh: bool,
        target: Vec<u8>,
    ) -> Result<Known, Fault> {
        let (meta, keep) = (&entry.meta, &self.with.keep);
        let place = Place::Named(sides.source(), name);
        let mut extra = Extra::read(place, &keep.source, keep.selinux)
            .map_err(|(doing, errno)| Fault::source(doing)(errno))?;
        let place = Place::Named(sides.destination(), name);
        let made = attributes::apply(place, meta, &extra, fresh, keep)?;
        extra.target = target;
        let settled = self.with.trust.settles(meta.ctime.in_nanoseconds());
        Ok(Known::new(
            meta,
            made.id.2,
            extra.seal(),
            Vec::new(),
            settled,
        ))
    }

    /// Gives the copy of an entry that is otherwise unchanged the source's time of access, which
    /// reading moves and nothing else tells of.
    pub(super) fn same_access(
        &self,
        known: &Known,
        source: &Meta,
        copy: Place<'_>,
    ) -> Result<Known, Fault> {
        let mut known = known.clone();
        if known.atime != source.atime.in_nanoseconds() {
            let set = attributes::change_times(copy, source);
            self.ledger().unless_lost(Attribute::Times, set)?;
            known.atime = source.atime.in_nanoseconds();
        }
        Ok(known)
    }

    pub(super) fn count(&self, kind: Kind) {
        self.ledger().count(|totals| match kind {
            Kind::Regular => totals.files += 1,
            // Counted when it is finished.
            Kind::Directory => {}
            Kind::Symlink => totals.symlinks += 1,
            _ => totals.specials += 1,
        });
    }
}

/// The file of an entry, and whether it still is the one that was looked at.
pub(super) fn opened(sides: &Sides, name: &CStr, entry: &mut Entry) -> Result<OwnedFd, Fault> {
    let file = match entry.file.take() {
        Some(file) => file,
        None => {
            open_quietly(sides.source(), name, OFlags::RDONLY).map_err(Fault::source("open it"))?
        }
    };
    let meta = Meta::of(file.as_fd()).map_err(Fault::source("look at it"))?;
    if meta.id != entry.meta.id || meta.kind != Kind::Regular {
        return Err(Fault::Changed("was replaced"));
    }
    entry.meta = meta;
    Ok(file)
}
