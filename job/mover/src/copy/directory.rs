//! Directories: their names at first, their attributes at last.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Directory, Item, Listing, Pass};
use crate::attributes;
use crate::boundary::leave_lost_and_found;
use crate::fault::Fault;
use crate::lock::lock;
use crate::manifest::{Entries, Known, Manifest, ROOT};
use crate::meta::Meta;
use crate::names::Names;
use crate::pair::Sides;
use crate::remove::remove;
use crate::xattrs::{Place, remove_default_acl};

/// What a pass keeps with a directory.
pub(super) struct Own {
    /// The source as it was before it was listed.
    meta: Meta,
    /// The destination as it was before anything was changed in it.
    found: Meta,
    /// It was made in this pass.
    fresh: bool,
    /// Whether something was made or removed in it.
    touched: AtomicBool,
    /// Held while it is made ready for that.
    readying: Mutex<()>,
    pub(super) known: Entries,
    seen: Mutex<Vec<Known>>,
}

impl Pass<'_> {
    /// Goes into a directory that both sides have.
    pub(super) fn enter(&self, parent: &Directory, name: &CStr, fresh: bool) {
        let entered = parent.enter(name, &self.opened, |meta, found| {
            Own::new(meta, found, fresh, self.with.before)
        });
        match entered {
            Ok(directory) => self.list(&directory),
            Err(fault) => {
                self.fault(parent, name, &fault);
                self.done(parent);
            }
        }
    }

    /// Lists a directory and removes from the destination what the source has not. That happens
    /// only when the whole list was read: what is missing from a part of it proves nothing.
    pub(super) fn list(&self, directory: &Directory) {
        match self.listing(directory) {
            Ok(listing) if !listing.source.is_empty() => {
                directory.begin();
                let listing = Item::Names(Arc::clone(directory), Arc::new(listing));
                self.pool.push(listing);
            }
            Ok(_) => {}
            Err(fault) => self.ledger().fault(&directory.path(), &fault),
        }
        self.done(directory);
    }

    fn listing(&self, directory: &Directory) -> Result<Listing, Fault> {
        let sides = self.sides(directory)?;
        let doing = "read its directory";
        let mut source = Names::read(sides.source()).map_err(Fault::source(doing))?;
        let mut existing = if directory.own.fresh {
            Names::default()
        } else {
            Names::read(sides.destination()).map_err(Fault::destination(doing))?
        };
        let is_root = directory.parent().is_none();
        let from = (sides.source(), &mut source);
        if is_root && leave_lost_and_found(from, (sides.destination(), &mut existing)) {
            self.ledger()
                .note("lost+found has contents, which are not copied".into());
        }
        let options = self.with.options;
        if !options.exclude.is_empty() {
            let excluded =
                source.leave_out(|name| options.exclude.matches(&directory.path_of(name)));
            self.ledger().count(|totals| totals.excluded += excluded);
        }
        for name in existing.iter().filter(|name| !source.contains(name)) {
            directory.own.ready(&sides)?;
            match remove(sides.destination(), name) {
                Ok(removed) => self.ledger().count(|totals| totals.deleted += removed),
                Err(fault) => self.fault(directory, name, &fault),
            }
        }
        if !options.overlook.is_empty() {
            source.leave_out(|name| options.overlook.matches(&directory.path_of(name)));
        }
        source.sort_by_inode();
        Ok(Listing {
            source,
            existing,
            next: AtomicUsize::new(0),
        })
    }

    /// One thing in a directory is done. The last one finishes it, and may finish those above.
    pub(super) fn done(&self, directory: &Directory) {
        directory.done(&self.opened, |directory, sides| {
            let finished = sides.map_or(Err(Fault::Changed("was moved")), |sides| {
                self.finish(directory, sides)
            });
            if let Err(fault) = finished {
                self.ledger().fault(&directory.path(), &fault);
            }
            let seen = std::mem::take(&mut *lock(&directory.own.seen));
            self.with.after.put(directory.own.meta.id.2, seen);
        });
    }

    /// Gives a directory its own attributes, after everything in it is done.
    fn finish(&self, directory: &Directory, sides: &Sides) -> Result<(), Fault> {
        let own = &directory.own;
        let copy = directory.destination_id().2;
        let of_root;
        let known = if let Some(parent) = directory.parent() {
            &parent.own.known
        } else {
            of_root = self.with.before.entries(ROOT);
            &of_root
        };
        let known = known.find(own.meta.id.2, copy);
        let touched = own.fresh || own.touched.load(Ordering::Acquire);
        self.ledger().count(|totals| totals.directories += 1);
        let unchanged = known.filter(|known| !touched && self.is_unchanged(known, &own.meta));
        if let Some(known) = unchanged {
            let place = Place::Open(sides.destination());
            let known = self.same_access(known, &own.meta, place)?;
            self.remember_directory(directory, known);
            return Ok(());
        }
        let place = Place::Open(sides.source());
        let extra = self.with.keep.of_source(place)?;
        let now = Meta::of(sides.source()).map_err(Fault::source("look at it"))?;
        let place = Place::Open(sides.destination());
        attributes::apply(place, &own.meta, &extra, own.fresh, &self.with.keep)?;
        self.ledger().count(|totals| totals.changed += 1);
        if now.differs_from(&own.meta) {
            return Err(Fault::Changed("changed"));
        }
        let settled = self.with.trust.settles(now.ctime.in_nanoseconds());
        let known = Known::new(&own.meta, copy, extra.seal(), Vec::new(), settled);
        self.remember_directory(directory, known);
        Ok(())
    }

    fn remember_directory(&self, directory: &Directory, known: Known) {
        match directory.parent() {
            Some(parent) => parent.own.remember(known),
            None => self.with.after.put(ROOT, vec![known]),
        }
    }

    /// Whether an entry cannot have changed since it was copied.
    pub(super) fn is_unchanged(&self, known: &Known, source: &Meta) -> bool {
        self.with.trust.looks_suffice() && known.is_settled() && known.looks_like(source)
    }
}

impl Own {
    pub(super) fn new(meta: Meta, found: Meta, fresh: bool, before: &Manifest) -> Self {
        Own {
            meta,
            found,
            fresh,
            touched: AtomicBool::new(false),
            readying: Mutex::default(),
            known: before.take(meta.id.2),
            seen: Mutex::default(),
        }
    }

    /// Remembers an entry for the next pass.
    pub(super) fn remember(&self, known: Known) {
        lock(&self.seen).push(known);
    }

    /// Before the first change of its names: an earlier pass may have left it immutable, or with
    /// an ACL for what is made in it.
    pub(super) fn ready(&self, sides: &Sides) -> Result<(), Fault> {
        if self.touched.load(Ordering::Acquire) {
            return Ok(());
        }
        let _readying = lock(&self.readying);
        if !self.fresh && !self.touched.load(Ordering::Acquire) {
            attributes::unlock(Place::Open(sides.destination()), &self.found)?;
            remove_default_acl(sides.destination())?;
        }
        self.touched.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes an entry off the destination so that another can be made under its name.
    pub(super) fn make_room(&self, sides: &Sides, name: &CStr) -> Result<(), Fault> {
        self.ready(sides)?;
        remove(sides.destination(), name).map(|_| ())
    }
}
