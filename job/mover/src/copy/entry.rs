//! One entry of a pass, whatever its kind.

use std::ffi::CStr;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, Mode, OFlags, linkat, makedev, mkdirat, mknodat, openat, readlinkat, symlinkat,
};
use rustix::io::Errno;

use super::{Pass, Step};
use crate::attributes;
use crate::fault::Fault;
use crate::links::First;
use crate::meta::{Id, Kind, Meta};
use crate::remove::remove;
use crate::trail::{open_parent, open_quietly};
use crate::xattrs::{self, Place};

/// Nobody but the mover looks at what is half made.
const WHILE_MAKING: Mode = Mode::RWXU;

impl Pass<'_, '_> {
    pub(super) fn entry(&mut self, name: &CStr) -> Result<Step, Fault> {
        let from = self.from()?;
        let to = self.to()?;
        let meta = Meta::at(from, name).map_err(Fault::source("look at it"))?;
        let mut found = Meta::find(to, name).map_err(Fault::destination("look at it"))?;
        if meta.mount_point {
            let path = crate::ledger::shown(&self.source.path_of(name));
            self.ledger
                .note(format!("{path} is a mount point and is not copied"));
            return Ok(Step::Done);
        }
        if found.is_some_and(|found| found.mount_point) {
            return Err(Fault::Refused(
                "a mount point on the destination is in the way".into(),
            ));
        }
        if meta.nlink > 1
            && meta.kind != Kind::Directory
            && let Some(first) = self.links.first(&meta)
        {
            self.link(name, &meta, found.as_ref(), &first)?;
            return Ok(Step::Done);
        }
        if found.is_some_and(|found| {
            found.kind != meta.kind || self.links.belongs_to_another(&found, &meta)
        }) {
            remove(to, name)?;
            found = None;
        }
        let made = match meta.kind {
            Kind::Directory => {
                if found.is_none() {
                    mkdirat(to, name, WHILE_MAKING).map_err(Fault::destination("make it"))?;
                }
                return Ok(Step::Descend);
            }
            Kind::Regular => self.file(name, &meta, found.as_ref())?,
            Kind::Symlink => self.symlink(name, &meta, found.is_some())?,
            _ => self.special(name, &meta, found.as_ref())?,
        };
        let names = found.map_or(1, |found| found.nlink);
        self.links
            .copied(&meta, made, names, self.source.path_of(name));
        Ok(Step::Done)
    }

    /// Gives an inode that was copied already one more name.
    fn link(
        &mut self,
        name: &CStr,
        meta: &Meta,
        found: Option<&Meta>,
        first: &First,
    ) -> Result<(), Fault> {
        if found.is_none_or(|found| found.id != first.destination) {
            let to = self.to()?;
            remove(to, name)?;
            let (parent, first_name) = open_parent(self.destination.root(), &first.path)
                .map_err(Fault::destination("find its first name"))?;
            let link = || linkat(&parent, first_name, to, name, AtFlags::empty());
            if meta.immutable || meta.append_only {
                // Such an inode gets no more names: for the moment it is neither.
                let file = open_quietly(parent.as_fd(), first_name, OFlags::RDONLY)
                    .map_err(Fault::destination("open its first name"))?;
                attributes::unlock(Place::Open(file.as_fd()), meta)?;
                link().map_err(Fault::destination("link it"))?;
                attributes::lock(Place::Open(file.as_fd()), meta)?;
            } else {
                link().map_err(Fault::destination("link it"))?;
            }
        }
        self.links.linked(meta);
        self.ledger.totals().hard_links += 1;
        Ok(())
    }

    fn file(&mut self, name: &CStr, seen: &Meta, found: Option<&Meta>) -> Result<Id, Fault> {
        let from = self.from()?;
        let from = open_quietly(from, name, OFlags::RDONLY).map_err(Fault::source("open it"))?;
        let meta = Meta::of(from.as_fd()).map_err(Fault::source("look at it"))?;
        if meta.id != seen.id || meta.kind != Kind::Regular {
            return Err(Fault::Changed("was replaced"));
        }
        let existing = match found {
            Some(found) => self.existing_file(name, found)?,
            None => None,
        };
        let (mut to, mut existing) = match existing {
            Some(file) => (file, found),
            None => (self.new_file(name)?, None),
        };
        let ledger = &mut *self.ledger;
        let mut copied = self.copier.copy(
            (from.as_fd(), &meta),
            (to.as_fd(), existing),
            &mut |bytes| ledger.bytes(bytes),
        );
        if existing.is_some() && copied.as_ref().is_err_and(cannot_punch) {
            to = self.new_file(name)?;
            existing = None;
            let ledger = &mut *self.ledger;
            copied = self.copier.copy(
                (from.as_fd(), &meta),
                (to.as_fd(), existing),
                &mut |bytes| ledger.bytes(bytes),
            );
        }
        self.ledger.totals().bytes += copied?;
        let xattrs = xattrs::read(Place::Open(from.as_fd()))
            .map_err(|(doing, errno)| Fault::source(doing)(errno))?;
        attributes::apply(Place::Open(to.as_fd()), &meta, &xattrs)?;
        let now = Meta::of(from.as_fd()).map_err(Fault::source("look at it"))?;
        if now.differs_from(&meta) {
            return Err(Fault::Changed("changed"));
        }
        self.ledger.totals().files += 1;
        let made = Meta::of(to.as_fd()).map_err(Fault::destination("look at it"))?;
        Ok(made.id)
    }

    /// Opens what is there, to be made equal in place; none if it has to be written anew.
    fn existing_file(&self, name: &CStr, found: &Meta) -> Result<Option<OwnedFd>, Fault> {
        let to = self.to()?;
        if found.immutable || found.append_only {
            let file =
                open_quietly(to, name, OFlags::RDONLY).map_err(Fault::destination("open it"))?;
            attributes::unlock(Place::Open(file.as_fd()), found)?;
        }
        match open_quietly(to, name, OFlags::RDWR) {
            Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => Ok(None),
            opened => opened.map(Some).map_err(Fault::destination("open it")),
        }
    }

    fn new_file(&self, name: &CStr) -> Result<OwnedFd, Fault> {
        let to = self.to()?;
        remove(to, name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(Fault::destination("make it"))
    }

    fn symlink(&mut self, name: &CStr, meta: &Meta, exists: bool) -> Result<Id, Fault> {
        let from = self.from()?;
        let target = readlinkat(from, name, Vec::new()).map_err(Fault::source("read it"))?;
        let to = self.to()?;
        let equal = exists
            && readlinkat(to, name, Vec::new()).map_err(Fault::destination("read it"))? == target;
        if !equal {
            remove(to, name)?;
            symlinkat(&target, to, name).map_err(Fault::destination("make it"))?;
        }
        let made = self.attributes_by_name(name, meta)?;
        self.ledger.totals().symlinks += 1;
        Ok(made)
    }

    fn special(&mut self, name: &CStr, meta: &Meta, found: Option<&Meta>) -> Result<Id, Fault> {
        let to = self.to()?;
        if found.is_none_or(|found| found.rdev != meta.rdev) {
            remove(to, name)?;
            let device = makedev(meta.rdev.0, meta.rdev.1);
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(to, name, meta.kind.file_type(), mode, device)
                .map_err(Fault::destination("make it"))?;
        }
        let made = self.attributes_by_name(name, meta)?;
        self.ledger.totals().specials += 1;
        Ok(made)
    }

    fn attributes_by_name(&self, name: &CStr, meta: &Meta) -> Result<Id, Fault> {
        let from = self.from()?;
        let to = self.to()?;
        let xattrs = xattrs::read(Place::Named(from, name))
            .map_err(|(doing, errno)| Fault::source(doing)(errno))?;
        attributes::apply(Place::Named(to, name), meta, &xattrs)?;
        let made = Meta::at(to, name).map_err(Fault::destination("look at it"))?;
        Ok(made.id)
    }
}

fn cannot_punch(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Destination {
            errno: Errno::OPNOTSUPP,
            ..
        }
    )
}
