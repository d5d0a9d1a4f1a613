//! One pass: makes the destination's tree equal to the source's.
//!
//! ```text
//! syncfs(source)                  a dirty page in a hole of a mapped file looks like a hole
//! for each directory, depth first:
//!   list both sides               names that the source has not are removed
//!   for each name, in order:      copy::entry: make it, or make what is there equal
//!   when all are done             the directory's own attributes, now that nothing touches them
//! syncfs(destination)             the one place where a lost write shows
//! ```
//!
//! The walk keeps its own stack, so that depth costs memory only. An entry that fails is an error
//! in the report and the walk goes on; it stops only where every further write would fail.

mod entry;

use std::ffi::CString;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::syncfs;

use crate::attributes;
use crate::boundary::leave_lost_and_found;
use crate::content::Copier;
use crate::fault::Fault;
use crate::ledger::Ledger;
use crate::links::Links;
use crate::meta::Meta;
use crate::names::Names;
use crate::remove::remove;
use crate::trail::Trail;
use crate::xattrs::{self, Place};

struct Pass<'p, 'a> {
    source: Trail,
    destination: Trail,
    links: Links,
    copier: Copier,
    ledger: &'p mut Ledger<'a>,
}

/// A directory whose entries are being copied.
struct Frame {
    names: Names,
    next: usize,
    /// The source directory as it was before it was listed.
    meta: Meta,
}

/// What is left to do for an entry.
enum Step {
    Done,
    Descend,
}

/// Makes `destination` equal to `source`; the outcome is in the ledger.
///
/// `destination` must have been opened before anything was written to its file system in this
/// pass: `syncfs` tells a file descriptor only of errors since it was opened.
pub fn copy(source: OwnedFd, destination: OwnedFd, ledger: &mut Ledger<'_>) {
    if let Err(errno) = syncfs(&source) {
        ledger.fault(
            b"",
            &Fault::source("write back what applications wrote")(errno),
        );
        return;
    }
    let mut pass = Pass {
        source: Trail::new(source),
        destination: Trail::new(destination),
        links: Links::default(),
        copier: Copier::new(),
        ledger,
    };
    pass.walk();
    if let Err(errno) = syncfs(pass.destination.root()) {
        let fault = Fault::destination("write back what was copied")(errno);
        pass.ledger.fault(b"", &fault);
    }
}

impl Pass<'_, '_> {
    fn walk(&mut self) {
        let mut stack = Vec::new();
        match self.open() {
            Ok(frame) => stack.push(frame),
            Err(fault) => self.fault_here(&fault),
        }
        while let Some(frame) = stack.last_mut() {
            if self.ledger.must_stop() {
                return;
            }
            let Some(name) = frame.names.get(frame.next) else {
                if let Err(fault) = self.finish(&frame.meta) {
                    self.fault_here(&fault);
                }
                stack.pop();
                self.source.leave();
                self.destination.leave();
                continue;
            };
            frame.next += 1;
            self.ledger.entry();
            match self.entry(name) {
                Ok(Step::Done) => {}
                Ok(Step::Descend) => {
                    let name = name.to_owned();
                    stack.extend(self.descend(&name));
                }
                Err(fault) => self.ledger.fault(&self.source.path_of(name), &fault),
            }
        }
    }

    /// Goes into a directory on both sides. None if that fails: then neither side was entered.
    fn descend(&mut self, name: &CString) -> Option<Frame> {
        if let Err(errno) = self.source.enter(name) {
            let fault = Fault::source("open its directory")(errno);
            self.ledger.fault(&self.source.path_of(name), &fault);
            return None;
        }
        if let Err(errno) = self.destination.enter(name) {
            let fault = Fault::destination("open its directory")(errno);
            self.fault_here(&fault);
            self.source.leave();
            return None;
        }
        match self.open() {
            Ok(frame) => Some(frame),
            Err(fault) => {
                self.fault_here(&fault);
                self.source.leave();
                self.destination.leave();
                None
            }
        }
    }

    /// Lists the current directory and removes from the destination what the source has not. That
    /// happens only when the whole list was read: what is missing from a part of it proves nothing.
    fn open(&mut self) -> Result<Frame, Fault> {
        let (source, destination) = (&self.source, &self.destination);
        let from = directory_of_source(source)?;
        let meta = Meta::of(from).map_err(Fault::source("look at it"))?;
        let mut names = Names::read(from).map_err(Fault::source("read its directory"))?;
        let doing = "read its directory";
        let to = directory_of_destination(destination)?;
        let found = Meta::of(to).map_err(Fault::destination(doing))?;
        attributes::unlock(Place::Open(to), &found)?;
        let mut existing = Names::read(to).map_err(Fault::destination(doing))?;
        if self.source.is_at_root() && leave_lost_and_found((from, &mut names), (to, &mut existing))
        {
            self.ledger
                .note("lost+found has contents, which are not copied".into());
        }
        for name in existing.iter().filter(|name| !names.contains(name)) {
            match remove(to, name) {
                Ok(removed) => self.ledger.totals().deleted += removed,
                Err(fault) => self.ledger.fault(&self.source.path_of(name), &fault),
            }
        }
        Ok(Frame {
            names,
            next: 0,
            meta,
        })
    }

    /// Gives the current directory its own attributes, after everything in it is done.
    fn finish(&mut self, meta: &Meta) -> Result<(), Fault> {
        let from = self.from()?;
        let xattrs = xattrs::read(Place::Open(from))
            .map_err(|(doing, errno)| Fault::source(doing)(errno))?;
        let now = Meta::of(from).map_err(Fault::source("look at it"))?;
        let to = self.to()?;
        attributes::apply(Place::Open(to), meta, &xattrs)?;
        self.ledger.totals().directories += 1;
        if now.differs_from(meta) {
            return Err(Fault::Changed("changed"));
        }
        Ok(())
    }

    fn from(&self) -> Result<BorrowedFd<'_>, Fault> {
        directory_of_source(&self.source)
    }

    fn to(&self) -> Result<BorrowedFd<'_>, Fault> {
        directory_of_destination(&self.destination)
    }

    fn fault_here(&mut self, fault: &Fault) {
        self.ledger.fault(self.source.path(), fault);
    }
}

fn directory_of_source(trail: &Trail) -> Result<BorrowedFd<'_>, Fault> {
    trail
        .directory()
        .map_err(Fault::source("open its directory"))
}

fn directory_of_destination(trail: &Trail) -> Result<BorrowedFd<'_>, Fault> {
    trail
        .directory()
        .map_err(Fault::destination("open its directory"))
}
