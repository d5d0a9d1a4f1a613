//! One entry that both sides have.

use std::ffi::CStr;
use std::sync::Arc;

use pvmigrate_record::order::{Level, What};

use super::storage::Reader;
use super::{Comparison, Directory, Item, Listing};
use crate::extra::{Extra, Seal};
use crate::fault::Fault;
use crate::lock::lock;
use crate::manifest::{Known, ROOT, Unproven};
use crate::meta::{Kind, Meta};
use crate::pair::Sides;
use crate::verify::difference;

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

    /// Whether an inode with several names has one copy, with just those names.
    fn is_its_copy(&self, source: &Meta, destination: &Meta) -> bool {
        if source.kind == Kind::Directory || (source.nlink == 1 && destination.nlink == 1) {
            return true;
        }
        let mut pairs = lock(&self.pairs);
        let (copies, sources) = &mut *pairs;
        let copy = *copies.entry(source.id).or_insert(destination.id);
        let of = *sources.entry(destination.id).or_insert(source.id);
        (copy, of) == (destination.id, source.id)
    }
}
