//! More names of an inode that was copied already.

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, OFlags, linkat};

use super::{Directory, Name, Pass};
use crate::attributes;
use crate::fault::Fault;
use crate::links::First;
use crate::manifest::Known;
use crate::meta::{Id, Meta};
use crate::pair::Sides;
use crate::quiet::open_quietly;
use crate::remove::remove;
use crate::xattrs::Place;

impl Pass<'_> {
    /// Makes `name` one more name of the inode that `first` is a name of.
    pub(super) fn link(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        meta: &Meta,
        first: &First<Name>,
    ) -> Result<(), Fault> {
        let to = sides.destination();
        let found = Meta::find(to, name).map_err(Fault::destination("look at it"))?;
        if found.is_none_or(|found| found.id != first.copy) {
            directory.own.ready(sides)?;
            remove(to, name)?;
            let other = self.sides(&first.name.directory)?;
            let (parent, first_name) = (other.destination(), first.name.name.as_c_str());
            let link = || {
                linkat(parent, first_name, to, name, AtFlags::empty())
                    .map_err(Fault::destination("link it"))
            };
            if meta.immutable || meta.append_only {
                // Such an inode gets no more names: for the moment it is neither.
                let file = open_quietly(parent, first_name, OFlags::RDONLY)
                    .map_err(Fault::destination("open its first name"))?;
                attributes::unlock(Place::Open(file.as_fd()), meta)?;
                link()?;
                attributes::lock(file.as_fd(), meta)?;
            } else {
                link()?;
            }
        }
        self.ledger().count(|totals| totals.hard_links += 1);
        directory.own.remember(first.known.clone());
        Ok(())
    }

    /// The first name was copied: links the names that came meanwhile.
    pub(super) fn link_waiting(
        &self,
        directory: &Directory,
        name: &CStr,
        meta: &Meta,
        copy: Id,
        known: &Known,
    ) {
        let name = Name {
            directory: Arc::clone(directory),
            name: name.to_owned(),
        };
        let (first, waiting) = self.links.copied(meta, copy, name, known.clone());
        for other in waiting {
            let linked = self
                .sides(&other.directory)
                .and_then(|sides| self.link(&other.directory, &sides, &other.name, meta, &first));
            if let Err(fault) = linked {
                self.fault(&other.directory, &other.name, &fault);
            }
            self.done(&other.directory);
        }
    }

    /// The first name could not be copied, and with it none of the others.
    pub(super) fn fail_links(&self, meta: &Meta) {
        for other in self.links.failed(meta) {
            self.fault(&other.directory, &other.name, &Fault::OtherName);
            self.done(&other.directory);
        }
    }
}
