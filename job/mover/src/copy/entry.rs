//! Entries, a batch at a time.

use std::ffi::CStr;
use std::sync::Arc;

use pvmigrate_record::order::Attribute;
use rustix::fs::{Mode, makedev, mkdirat, mknodat, readlinkat, symlinkat};

use super::batch::Entry;
use super::{Directory, Item, Name, Pass};
use crate::attributes;
use crate::content::Copier;
use crate::fault::Fault;
use crate::links::Claim;
use crate::manifest::Known;
use crate::meta::{Id, Kind, Meta};
use crate::pair::Sides;
use crate::xattrs::Place;

/// Nobody but the mover looks at what is half made.
const WHILE_MAKING: Mode = Mode::RWXU;

impl Pass<'_> {
    pub(super) fn entry(
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
        let mut extra = keep.of_source(place)?;
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
