//! A directory on both sides, for as long as something in it is to be done.
//!
//! Whatever the depth of a tree, only so many pairs have their directories open. One that was
//! closed is opened again from a child by `..`, or name by name from the nearest one above it
//! that is open, and is believed only if it still is the same inode: neither `PATH_MAX` nor the
//! limit of open files limits how deep a tree may be.

mod opened;

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::fault::Fault;
use crate::lock::lock;
use crate::meta::{Id, Meta};
use crate::quiet::open_quietly;
pub use opened::Opened;

pub struct Pair<T> {
    parent: Option<Arc<Pair<T>>>,
    name: CString,
    ids: (Id, Id),
    open: Mutex<Option<Arc<Sides>>>,
    /// What is still to be done in it, and then it is finished.
    pending: AtomicUsize,
    /// What its walk keeps here.
    pub own: T,
}

/// The two directories, open.
pub struct Sides {
    source: OwnedFd,
    destination: OwnedFd,
}

impl Sides {
    pub fn new(source: OwnedFd, destination: OwnedFd) -> Self {
        Sides {
            source,
            destination,
        }
    }

    pub fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    pub fn destination(&self) -> BorrowedFd<'_> {
        self.destination.as_fd()
    }
}

impl<T> Pair<T> {
    /// The roots of two trees. `own` is told what they look like.
    pub fn root(sides: Sides, own: impl FnOnce(Meta, Meta) -> T) -> Result<Arc<Self>, Fault> {
        Self::new(None, CString::default(), sides, own)
    }

    /// One thing is to be done in it: what its caller does.
    fn new(
        parent: Option<Arc<Self>>,
        name: CString,
        sides: Sides,
        own: impl FnOnce(Meta, Meta) -> T,
    ) -> Result<Arc<Self>, Fault> {
        let source = Meta::of(sides.source()).map_err(Fault::source("look at it"))?;
        let destination =
            Meta::of(sides.destination()).map_err(Fault::destination("look at it"))?;
        Ok(Arc::new(Pair {
            parent,
            name,
            ids: (source.id, destination.id),
            open: Mutex::new(Some(Arc::new(sides))),
            pending: AtomicUsize::new(1),
            own: own(source, destination),
        }))
    }

    /// A directory in this one. The pair that is returned has one thing to be done: what its
    /// caller does.
    pub fn enter(
        self: &Arc<Self>,
        name: &CStr,
        opened: &Opened<T>,
        own: impl FnOnce(Meta, Meta) -> T,
    ) -> Result<Arc<Self>, Fault> {
        let sides = self.sides(opened)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let doing = "open its directory";
        let source = open_quietly(sides.source(), name, flags).map_err(Fault::source(doing))?;
        let destination =
            open_quietly(sides.destination(), name, flags).map_err(Fault::destination(doing))?;
        let sides = Sides::new(source, destination);
        let pair = Self::new(Some(Arc::clone(self)), name.to_owned(), sides, own)?;
        opened.add(&pair);
        Ok(pair)
    }

    pub fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// The inode of its destination.
    pub fn destination_id(&self) -> Id {
        self.ids.1
    }

    /// One more thing is to be done in it.
    pub fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// One thing less. True if it was the last, as it never is while its caller does another.
    pub fn end(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// One thing in it is done. If it was the last, `finish` is called for it, and for each of
    /// those above whose last thing this was. It gets no sides where they cannot be opened.
    pub fn done(self: &Arc<Self>, opened: &Opened<T>, finish: impl Fn(&Arc<Self>, Option<&Sides>)) {
        let mut pair = Arc::clone(self);
        while pair.end() {
            let sides = pair.sides(opened).ok();
            finish(&pair, sides.as_deref());
            let Some(parent) = pair.parent.clone() else {
                return;
            };
            if let Some(sides) = sides {
                parent.reopen_from(&sides, opened);
            }
            pair = parent;
        }
    }

    /// Relative to the root, names joined by `/`; empty for the root.
    pub fn path(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut pair = self;
        while let Some(parent) = &pair.parent {
            names.push(pair.name.to_bytes());
            pair = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The path of an entry of it.
    pub fn path_of(&self, name: &CStr) -> Vec<u8> {
        let mut path = self.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        path
    }

    /// Its two directories.
    pub fn sides(self: &Arc<Self>, opened: &Opened<T>) -> Result<Arc<Sides>, Fault> {
        if let Some(sides) = lock(&self.open).clone() {
            return Ok(sides);
        }
        let mut closed = vec![self];
        let mut sides = None;
        while sides.is_none()
            && let Some(parent) = closed.last().and_then(|pair| pair.parent.as_ref())
        {
            sides.clone_from(&lock(&parent.open));
            if sides.is_none() {
                closed.push(parent);
            }
        }
        let mut sides = sides.ok_or_else(|| gone(Errno::STALE))?;
        for pair in closed.into_iter().rev() {
            sides = pair.opened_from(&sides, &pair.name)?;
        }
        self.keep_open(&sides, opened);
        Ok(sides)
    }

    /// Opens it again from a directory in it, which costs the same at any depth.
    pub fn reopen_from(self: &Arc<Self>, child: &Sides, opened: &Opened<T>) {
        if lock(&self.open).is_none()
            && let Ok(sides) = self.opened_from(child, c"..")
        {
            self.keep_open(&sides, opened);
        }
    }

    fn keep_open(self: &Arc<Self>, sides: &Arc<Sides>, opened: &Opened<T>) {
        *lock(&self.open) = Some(Arc::clone(sides));
        opened.add(self);
    }

    fn opened_from(&self, other: &Sides, name: &CStr) -> Result<Arc<Sides>, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = |directory, id: Id| {
            let found = open_quietly(directory, name, flags)?;
            if Meta::of(found.as_fd())?.id == id {
                Ok(found)
            } else {
                Err(Errno::STALE)
            }
        };
        let source = open(other.source(), self.ids.0).map_err(gone)?;
        let destination = open(other.destination(), self.ids.1)
            .map_err(Fault::destination("open its directory"))?;
        Ok(Arc::new(Sides::new(source, destination)))
    }
}

fn gone(errno: Errno) -> Fault {
    Fault::source("open its directory")(errno)
}
