//! Regular files.

use std::ffi::CStr;
use std::sync::Arc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Advice, Mode, OFlags, fadvise, openat};
use rustix::io::Errno;

use super::batch::{Entry, opened};
use super::big::is_big;
use super::{Directory, Pass};
use crate::attributes::{self, storage};
use crate::chunks::Chunk;
use crate::content::{Before, Copier, Job};
use crate::extra::Extra;
use crate::fault::Fault;
use crate::manifest::Known;
use crate::meta::Meta;
use crate::pair::Sides;
use crate::quiet::open_quietly;
use crate::reader::Input;
use crate::xattrs::Place;

/// A file on its way.
pub(super) struct Copying {
    /// The source as it was before it was read.
    pub(super) meta: Meta,
    pub(super) extra: Extra,
    pub(super) from: OwnedFd,
    pub(super) to: OwnedFd,
    /// What the destination had. None if it was just made.
    pub(super) found: Option<Meta>,
    /// What is known of that as an earlier copy.
    pub(super) known: Option<Known>,
}

impl Copying {
    fn before(&self) -> Before<'_> {
        match (&self.found, &self.known) {
            (None, _) => Before::Nothing,
            (Some(found), Some(known)) => Before::Copy(found, &known.chunks),
            (Some(found), None) => Before::Unknown(found),
        }
    }

    pub(super) fn job(&self) -> Job<'_> {
        Job {
            from: Input {
                file: self.from.as_fd(),
                direct: None,
                size: self.meta.size,
            },
            source: &self.meta,
            to: self.to.as_fd(),
            to_direct: None,
            before: self.before(),
        }
    }
}

impl Pass<'_> {
    /// None if it is big: then its parts are on the pool's stack.
    pub(super) fn file(
        &self,
        directory: &Directory,
        sides: &Arc<Sides>,
        name: &CStr,
        mut entry: Entry,
        copier: &mut Copier<'_>,
    ) -> Result<Option<Known>, Fault> {
        let from = opened(sides, name, &mut entry)?;
        let keep = &self.with.keep;
        let extra = keep.of_source(Place::Open(from.as_fd()))?;
        let meta = entry.meta;
        let existing = match &entry.found {
            Some(found) => existing_file(directory, sides, name, found)?,
            None => None,
        };
        let (to, found) = match existing {
            Some(file) if storage::stores_alike(file.as_fd(), &extra, keep)? => (file, entry.found),
            _ => (
                self.new_file(directory, sides, name, (&meta, &extra))?,
                None,
            ),
        };
        if found.is_some() && entry.known.is_none() {
            // It is going to be compared: with what the storage has.
            fadvise(&to, 0, None, Advice::DontNeed)
                .map_err(Fault::destination("drop its cache"))?;
        }
        let mut copying = Copying {
            meta,
            extra,
            from,
            to,
            found,
            known: entry.known,
        };
        if is_big(&meta) {
            self.begin_big(directory, name, copying)?;
            return Ok(None);
        }
        let done = copier.done;
        let mut outcome = copier.whole(&copying.job());
        if copying.found.is_some() && outcome.as_ref().is_err_and(cannot_punch) {
            copying.to = self.new_file(directory, sides, name, (&meta, &copying.extra))?;
            copying.found = None;
            outcome = copier.whole(&copying.job());
        }
        self.tally(copier, done);
        let wrote = copier.done.written > done.written;
        let known = self.finish_file(directory, &copying, outcome?, wrote)?;
        Ok(Some(known))
    }

    /// Adds what a copier did since then.
    pub(super) fn tally(&self, copier: &Copier<'_>, since: crate::content::Done) {
        let (read, written) = (
            copier.done.read - since.read,
            copier.done.written - since.written,
        );
        self.ledger().bytes(read);
        self.ledger().count(|totals| {
            totals.read += read;
            totals.bytes += written;
        });
    }

    /// Gives a file whose content is equal its attributes. If the source changed meanwhile, what
    /// is known of the copy is remembered all the same: the next pass writes only what differs.
    pub(super) fn finish_file(
        &self,
        directory: &Directory,
        copying: &Copying,
        chunks: Vec<Chunk>,
        wrote: bool,
    ) -> Result<Known, Fault> {
        let (meta, keep) = (&copying.meta, &self.with.keep);
        let place = Place::Open(copying.to.as_fd());
        let fresh = copying.found.is_none();
        let made = attributes::apply(place, meta, &copying.extra, fresh, keep)?;
        let now = Meta::of(copying.from.as_fd()).map_err(Fault::source("look at it"))?;
        let changed = now.differs_from(meta);
        let settled = !changed && self.with.trust.settles(meta.ctime.in_nanoseconds());
        let known = Known::new(meta, made.id.2, copying.extra.seal(), chunks, settled);
        match (&copying.found, &copying.known) {
            (Some(_), Some(earlier)) => known.take_proof(earlier),
            // Both were read, the destination from its storage.
            (Some(_), None) if !wrote && self.with.on_storage => known.prove(),
            _ => {}
        }
        if changed {
            directory.own.remember(known);
            return Err(Fault::Changed("changed"));
        }
        Ok(known)
    }

    fn new_file(
        &self,
        directory: &Directory,
        sides: &Sides,
        name: &CStr,
        (meta, extra): (&Meta, &Extra),
    ) -> Result<OwnedFd, Fault> {
        directory.own.ready(sides)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Nobody but the mover looks at what is half made.
        let mode = Mode::from_raw_mode(meta.mode & attributes::PERMISSIONS);
        let make = || openat(sides.destination(), name, flags, mode);
        let file = match make() {
            Err(Errno::EXIST) => {
                directory.own.make_room(sides, name)?;
                make()
            }
            file => file,
        };
        let file = file.map_err(Fault::destination("make it"))?;
        storage::before_content(file.as_fd(), extra, &self.with.keep)?;
        Ok(file)
    }
}

/// Opens what is there, to be made equal in place; none if it has to be written anew.
fn existing_file(
    directory: &Directory,
    sides: &Sides,
    name: &CStr,
    found: &Meta,
) -> Result<Option<OwnedFd>, Fault> {
    let to = sides.destination();
    if found.immutable || found.append_only {
        let file = open_quietly(to, name, OFlags::RDONLY).map_err(Fault::destination("open it"))?;
        attributes::unlock(Place::Open(file.as_fd()), found)?;
    }
    match open_quietly(to, name, OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
            directory.own.make_room(sides, name)?;
            Ok(None)
        }
        opened => opened.map(Some).map_err(Fault::destination("open it")),
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
