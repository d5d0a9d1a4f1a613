//! One entry that both sides have.

use std::ffi::CStr;
use std::sync::Arc;

use pvmigrate_record::order::{Level, What};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, OFlags, Timestamps, readlinkat, utimensat};

use super::storage::Reader;
use super::{Comparison, Directory, Item, Listing};
use crate::extra::{Extra, Seal};
use crate::fault::Fault;
use crate::filesystem::FileSystem;
use crate::manifest::{Known, ROOT, Unproven};
use crate::meta::{Kind, Meta};
use crate::pair::Sides;
use crate::quiet::open_quietly;
use crate::verify::difference;
use crate::xattrs::Place;

/// An entry as both sides show it.
pub(super) struct Both {
    pub(super) source: Meta,
    pub(super) destination: Meta,
    /// What both sides have besides content, as hashes.
    pub(super) seals: (Seal, Seal),
    /// What the copy knows of it.
    pub(super) known: Option<Known>,
}

impl Both {
    fn equal(source: Meta, known: &Known) -> Self {
        Both {
            source,
            destination: source,
            seals: (known.seal, known.seal),
            known: None,
        }
    }
}

impl Comparison<'_> {
    pub(super) fn batch(
        &self,
        directory: &Directory,
        listing: &Arc<Listing>,
        reader: &mut Reader<'_>,
    ) {
        while let Some(batch) = listing.take(self.opened.batch()) {
            let shared = batch.end < listing.names.len() && self.pool.should_share();
            if shared {
                directory.begin();
                let rest = Item::Names(Arc::clone(directory), Arc::clone(listing));
                self.pool.push(rest);
            }
            match directory.sides(&self.opened) {
                Ok(sides) => {
                    for index in batch {
                        self.ledger().entry();
                        let name = listing.names.name(index);
                        let copy = listing.names.inode(index).unwrap_or_default();
                        if let Err(fault) = self.entry(directory, &sides, (name, copy), reader) {
                            self.fault(directory, name, &fault);
                        }
                    }
                    self.read_ahead(reader);
                }
                Err(fault) => self.ledger().fault(&directory.path(), &fault),
            }
            if shared {
                break;
            }
        }
        self.done(directory);
    }

    /// The roots have no names.
    pub(super) fn root(&self, directory: &Directory) -> Result<(), Fault> {
        let sides = directory.sides(&self.opened)?;
        let known = self
            .with
            .known
            .map(|known| known.entries(ROOT))
            .unwrap_or_default();
        let source = Meta::of(sides.source()).map_err(Fault::source("look at it"))?;
        let destination =
            Meta::of(sides.destination()).map_err(Fault::destination("look at it"))?;
        let known = known.find(source.id.2, destination.id.2);
        self.still_as_copied(&source, known)?;
        let mut both = Both {
            source,
            destination,
            seals: Default::default(),
            known: known.cloned(),
        };
        self.metadata(directory, c"", &mut both, &sides)?;
        self.conclude(directory, c"", &both, (&[], &[]));
        Ok(())
    }

    fn entry(
        &self,
        directory: &Directory,
        sides: &Sides,
        (name, copy): (&CStr, u64),
        reader: &mut Reader<'_>,
    ) -> Result<(), Fault> {
        let source = Meta::at(sides.source(), name).map_err(Fault::source("look at it"))?;
        if source.mount_point {
            return Ok(());
        }
        let known = directory.own.known.find(source.id.2, copy);
        if let Some(known) = known
            && self.is_proven(known)
            && known.looks_like(&source)
        {
            if source.kind == Kind::Directory {
                self.go_into(directory, name);
            }
            let both = Both::equal(source, known);
            self.conclude(directory, name, &both, (&known.chunks, &known.chunks));
            return Ok(());
        }
        let destination =
            Meta::at(sides.destination(), name).map_err(Fault::destination("look at it"))?;
        if destination.mount_point {
            return Err(Fault::Refused("a mount point, not looked into".into()));
        }
        self.still_as_copied(&source, known)?;
        let mut both = Both {
            source,
            destination,
            seals: Default::default(),
            known: known.cloned(),
        };
        if source.kind != destination.kind {
            let kinds = (source.kind.name(), destination.kind.name());
            return Err(Fault::Refused(format!(
                "{} on the source, {} on the destination",
                kinds.0, kinds.1
            )));
        }
        if source.kind == Kind::Directory {
            self.go_into(directory, name);
        }
        let equal = self.metadata(directory, name, &mut both, sides)?;
        match known {
            Some(known) if equal => known.set_compared(),
            Some(known) => known.refute(),
            None => {}
        }
        if source.kind == Kind::Regular && self.with.level >= Level::Written {
            self.content(directory, sides, name, both, reader)
        } else {
            self.conclude(directory, name, &both, (&[], &[]));
            Ok(())
        }
    }

    fn go_into(&self, directory: &Directory, name: &CStr) {
        directory.begin();
        let enter = Item::Enter(Arc::clone(directory), name.to_owned());
        self.pool.push(enter);
    }

    /// Whether an earlier pass of this mover found the copy equal. Nobody else writes to it.
    fn is_proven(&self, known: &Known) -> bool {
        let content = self.with.level < Level::Written || known.unproven() == Unproven::Nothing;
        self.with.level < Level::Full && known.is_compared() && content
    }

    /// What changed since it was copied cannot be compared: in a warm pass the next one does it.
    fn still_as_copied(&self, source: &Meta, known: Option<&Known>) -> Result<(), Fault> {
        let is_expected = self.with.known.is_some();
        match (known, self.with.what) {
            (Some(known), _) if !known.looks_like(source) => Err(Fault::Changed("changed")),
            (None, What::Warm) if is_expected => Err(Fault::Changed("changed")),
            _ => Ok(()),
        }
    }

    /// Compares everything but content. Differences are errors of their own; true if there are
    /// none.
    fn metadata(
        &self,
        directory: &Directory,
        name: &CStr,
        both: &mut Both,
        sides: &Sides,
    ) -> Result<bool, Fault> {
        let (source, destination) = (both.source, both.destination);
        let mut found = difference::of_metas(&source, &destination, self.ledger());
        if !self.is_its_copy(&source, &destination) {
            found.push("its hard links are others".into());
        }
        let to = self.extra(sides.destination(), name, &destination, false)?;
        let from = match &both.known {
            Some(known) if known.seal == to.seal() => None,
            _ => Some(self.extra(sides.source(), name, &source, true)?),
        };
        let expected = from.as_ref().map_or_else(|| to.seal(), Extra::seal);
        if let Some(from) = &from {
            found.extend(difference::of_extras(from, &to, self.ledger()));
        }
        both.seals = if found.is_empty() {
            // Nothing that must be kept differs.
            (expected, expected)
        } else {
            (expected, to.seal())
        };
        let equal = found.is_empty();
        for difference in found {
            self.ledger().error(&directory.path_of(name), difference);
        }
        Ok(equal)
    }

    /// Reads what an inode has besides content. An empty name stands for the directory itself.
    fn extra(
        &self,
        side: BorrowedFd<'_>,
        name: &CStr,
        meta: &Meta,
        is_source: bool,
    ) -> Result<Extra, Fault> {
        let fault = |doing: String| {
            move |errno| {
                if is_source {
                    Fault::source(doing)(errno)
                } else {
                    Fault::destination(doing)(errno)
                }
            }
        };
        let keep = &self.with.keep;
        let on: &FileSystem = if is_source {
            &keep.source
        } else {
            &keep.destination
        };
        let file: Option<OwnedFd> = match meta.kind {
            _ if name.is_empty() => None,
            Kind::Regular | Kind::Directory => {
                Some(open_quietly(side, name, OFlags::RDONLY).map_err(fault("open it".into()))?)
            }
            _ => None,
        };
        let place = match &file {
            Some(file) => Place::Open(file.as_fd()),
            None if name.is_empty() => Place::Open(side),
            None => Place::Named(side, name),
        };
        let mut extra =
            Extra::read(place, on, keep.selinux).map_err(|(doing, errno)| fault(doing)(errno))?;
        if meta.kind == Kind::Symlink {
            extra.target = readlinkat(side, name, Vec::new())
                .map_err(fault("read it".into()))?
                .into_bytes();
            if !is_source {
                restore_access_time(side, name, meta);
            }
        }
        Ok(extra)
    }

    /// Whether an inode with several names has one copy, with just those names.
    fn is_its_copy(&self, source: &Meta, destination: &Meta) -> bool {
        if source.kind == Kind::Directory || (source.nlink == 1 && destination.nlink == 1) {
            return true;
        }
        let mut pairs = super::lock(&self.pairs);
        let (copies, sources) = &mut *pairs;
        let copy = *copies.entry(source.id).or_insert(destination.id);
        let of = *sources.entry(destination.id).or_insert(source.id);
        (copy, of) == (destination.id, source.id)
    }
}

/// There is no way to read a symlink without touching its access time.
fn restore_access_time(directory: BorrowedFd<'_>, name: &CStr, before: &Meta) {
    if Meta::at(directory, name).is_ok_and(|now| now.atime != before.atime) {
        let times = Timestamps {
            last_access: before.atime.into(),
            last_modification: before.mtime.into(),
        };
        // A comparison by hand may have no right to write; it then changes no more than any
        // reader does.
        let _ = utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}
