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

/// An entry that may have changed.
pub(super) struct Entry<'a> {
    pub(super) name: &'a CStr,
    pub(super) meta: Meta,
    /// What the destination has under its name.
    pub(super) found: Option<Meta>,
    /// What is known of that as its copy.
    pub(super) known: Option<&'a Known>,
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
                    for name in batch.filter_map(|index| listing.source.get(index)) {
                        self.ledger().entry();
                        match self.look(directory, &sides, listing, name) {
                            Ok(entry) => changed.extend(entry),
                            Err(fault) => self.fault(directory, name, &fault),
                        }
                    }
                    self.ledger().looked(began.elapsed());
                    for entry in changed {
                        if self.ledger().must_stop() {
                            break;
                        }
                        let name = entry.name;
                        if let Err(fault) = self.entry(directory, &sides, entry, copier) {
                            self.fault(directory, name, &fault);
                        }
                    }
                }
                Err(fault) => self.ledger().fault(&directory.path(), &fault),
            }
        }
        self.done(directory);
    }

    /// Looks at an entry. None if nothing is to be done now: it is unchanged, or not ours.
    fn look<'n>(
        &self,
        directory: &'n Directory,
        sides: &Sides,
        listing: &'n Listing,
        name: &'n CStr,
    ) -> Result<Option<Entry<'n>>, Fault> {
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
            directory.own.remember(known.clone());
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
            name,
            meta,
            found,
            known,
            file,
        }))
    }

    fn entry(
        &self,
        directory: &Directory,
        sides: &Arc<Sides>,
        mut entry: Entry<'_>,
        copier: &mut Copier<'_>,
    ) -> Result<(), Fault> {
        let has_links = entry.meta.nlink > 1 && entry.meta.kind != Kind::Directory;
        if has_links && !self.claim(directory, sides, &entry)? {
            return Ok(());
        }
        if let Some(found) = entry.found
            && (found.kind != entry.meta.kind
                || (found.nlink > 1
                    && found.kind != Kind::Directory
                    && !self.links.own(found.id, entry.meta.id)))
        {
            if let Err(fault) = directory.own.make_room(sides, entry.name) {
                if has_links {
                    self.fail_links(&entry.meta);
                }
                return Err(fault);
            }
            entry.found = None;
            entry.known = None;
        }
        let (name, meta) = (entry.name, entry.meta);
        if has_links
            && let Some(known) = entry.known.filter(|known| self.is_unchanged(known, &meta))
            && let Some(found) = entry.found
        {
            self.count(meta.kind);
            directory.own.remember(known.clone());
            self.link_waiting(directory, name, &meta, found.id, known);
            return Ok(());
        }
        let made = match meta.kind {
            Kind::Directory => return self.directory(directory, sides, &entry),
            Kind::Regular => self.file(directory, sides, entry, copier),
            Kind::Symlink => self.symlink(directory, sides, &entry).map(Some),
            _ => self.special(directory, sides, &entry),
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
        entry: &Entry<'_>,
    ) -> Result<bool, Fault> {
        let name = Name {
            directory: Arc::clone(directory),
            name: entry.name.to_owned(),
        };
        directory.begin();
        match self.links.claim(&entry.meta, &name) {
            Claim::Waits => return Ok(false),
            Claim::First => {
                directory.end();
                return Ok(true);
            }
            Claim::Link(first) => {
                directory.end();
                self.link(directory, sides, entry.name, &entry.meta, &first)?;
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
        entry: &Entry<'_>,
    ) -> Result<(), Fault> {
        let fresh = entry.found.is_none();
        if fresh {
            directory.own.ready(sides)?;
            mkdirat(sides.destination(), entry.name, WHILE_MAKING)
                .map_err(Fault::destination("make it"))?;
        }
        directory.begin();
        self.pool.push(Item::Enter {
            parent: Arc::clone(directory),
            name: entry.name.to_owned(),
            fresh,
        });
        Ok(())
    }

    fn symlink(
        &self,
        directory: &Directory,
        sides: &Sides,
        entry: &Entry<'_>,
    ) -> Result<Known, Fault> {
        let (name, to) = (entry.name, sides.destination());
        let target =
            readlinkat(sides.source(), name, Vec::new()).map_err(Fault::source("read it"))?;
        let equal = entry.found.is_some()
            && readlinkat(to, name, Vec::new()).map_err(Fault::destination("read it"))? == target;
        if !equal {
            directory.own.make_room(sides, name)?;
            symlinkat(&target, to, name).map_err(Fault::destination("make it"))?;
        }
        self.by_name(sides, entry, !equal, target.into_bytes())
    }

    /// None if it is let go.
    fn special(
        &self,
        directory: &Directory,
        sides: &Sides,
        entry: &Entry<'_>,
    ) -> Result<Option<Known>, Fault> {
        let (name, meta) = (entry.name, &entry.meta);
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
        self.by_name(sides, entry, fresh, Vec::new()).map(Some)
    }

    fn by_name(
        &self,
        sides: &Sides,
        entry: &Entry<'_>,
        fresh: bool,
        target: Vec<u8>,
    ) -> Result<Known, Fault> {
        let (name, meta, keep) = (entry.name, &entry.meta, &self.with.keep);
        let place = Place::Named(sides.source(), name);
        let mut extra = Extra::read(place, &keep.source, keep.common)
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
pub(super) fn opened(sides: &Sides, entry: &mut Entry<'_>) -> Result<OwnedFd, Fault> {
    let file = match entry.file.take() {
        Some(file) => file,
        None => open_quietly(sides.source(), entry.name, OFlags::RDONLY)
            .map_err(Fault::source("open it"))?,
    };
    let meta = Meta::of(file.as_fd()).map_err(Fault::source("look at it"))?;
    if meta.id != entry.meta.id || meta.kind != Kind::Regular {
        return Err(Fault::Changed("was replaced"));
    }
    entry.meta = meta;
    Ok(file)
}
