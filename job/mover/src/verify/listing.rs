//! The names of both sides of a directory.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use pvmigrate_record::order::{Attribute, What};

use super::{Comparison, Directory, Item, Listing, digest};
use crate::boundary::leave_lost_and_found;
use crate::extra::Seal;
use crate::fault::Fault;
use crate::lock::lock;
use crate::meta::Meta;
use crate::names::Names;
use crate::pair::Sides;

impl Comparison<'_> {
    /// Lists both sides. What only one of them has is named here, what both have goes on.
    pub(super) fn list(&self, directory: &Directory) {
        match self.listing(directory) {
            Ok(names) if !names.is_empty() => {
                directory.begin();
                let listing = Listing {
                    names,
                    next: AtomicUsize::new(0),
                };
                self.pool
                    .push(Item::Names(Arc::clone(directory), Arc::new(listing)));
            }
            Ok(_) => {}
            Err(fault) => self.ledger().fault(&directory.path(), &fault),
        }
        self.done(directory);
    }

    fn listing(&self, directory: &Directory) -> Result<Names, Fault> {
        let sides = directory.sides(&self.opened)?;
        let doing = "read its directory";
        let mut source = Names::read(sides.source()).map_err(Fault::source(doing))?;
        let mut names = Names::read(sides.destination()).map_err(Fault::destination(doing))?;
        if directory.parent().is_none() {
            leave_lost_and_found(
                (sides.source(), &mut source),
                (sides.destination(), &mut names),
            );
        }
        let exclude = &self.with.options.exclude;
        if !exclude.is_empty() {
            source.leave_out(|name| exclude.matches(&directory.path_of(name)));
        }
        for name in source.iter().filter(|name| !names.contains(name)) {
            self.missing(directory, &sides, name);
        }
        names.leave_out(|name| {
            let only_here = !source.contains(name);
            if only_here {
                let fault = match self.with.what {
                    What::Warm => Fault::Changed("lost a name"),
                    What::Final => {
                        Fault::Refused("on the destination but not on the source".into())
                    }
                };
                self.fault(directory, name, &fault);
                if self.with.what == What::Final
                    && let Ok(meta) = Meta::at(sides.destination(), name)
                {
                    let digest = self.digest(directory, name, &meta);
                    lock(&self.digests).1.add(&digest);
                }
            }
            only_here
        });
        names.sort_by_inode();
        Ok(names)
    }

    /// In a warm pass an entry may have come after its directory was copied; one that the copy
    /// left out is found by the final pass.
    fn missing(&self, directory: &Directory, sides: &Sides, name: &CStr) {
        let may_miss = Meta::at(sides.source(), name).is_ok_and(|meta| {
            meta.mount_point || (meta.kind.is_special() && self.ledger().loses(Attribute::Specials))
        });
        if may_miss {
            return;
        }
        let fault = match self.with.what {
            What::Warm => Fault::Changed("got a new name"),
            What::Final => Fault::Refused("missing on the destination".into()),
        };
        self.fault(directory, name, &fault);
        if self.with.what == What::Final
            && let Ok(meta) = Meta::at(sides.source(), name)
        {
            lock(&self.digests)
                .0
                .add(&self.digest(directory, name, &meta));
        }
    }

    /// What stands in the digest of its side for an entry that the other has not.
    fn digest(&self, directory: &Directory, name: &CStr, meta: &Meta) -> blake3::Hash {
        let path = &directory.own.path;
        digest::of_entry(path, name, meta, &Seal::default(), &[], self.ledger())
    }
}
