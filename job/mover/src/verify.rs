//! Compares two trees, entry by entry, and reads the destination back from its storage.
//!
//! Shares with the copy how a directory is listed and an inode looked at, but nothing that decides
//! what is copied: an entry that the copy leaves out is found here.

mod entry;
mod reader;

use std::cmp::Ordering;
use std::ffi::CString;

use blake3::Hasher;
use pvmigrate_record::order::{Level, Verified};
use rustix::fd::OwnedFd;

use crate::boundary::leave_lost_and_found;
use crate::fault::Fault;
use crate::ledger::Ledger;
use crate::meta::{Kind, Meta};
use crate::names::Names;
use crate::trail::Trail;
use entry::Entry;
use reader::{Reader, Side};

struct Verification<'p, 'a> {
    source: Tree,
    destination: Tree,
    entries: u64,
    ledger: &'p mut Ledger<'a>,
}

struct Tree {
    trail: Trail,
    reader: Reader,
    digest: Hasher,
}

/// A directory whose entries are being compared: the names of both sides.
struct Frame {
    source: (Names, usize),
    destination: (Names, usize),
}

/// Compares the trees; each difference becomes an error of its path in the ledger.
///
/// What the destination holds must have been synced: only then do its pages leave the cache when
/// they are told to.
pub fn verify(source: OwnedFd, destination: OwnedFd, ledger: &mut Ledger<'_>) -> Verified {
    let mut verification = Verification {
        source: Tree::new(source, Side::Source),
        destination: Tree::new(destination, Side::Destination),
        entries: 0,
        ledger,
    };
    verification.walk();
    Verified {
        level: Level::Full,
        entries: verification.entries,
        bytes: verification.destination.reader.bytes,
        source_digest: verification.source.digest.finalize().to_hex().to_string(),
        destination_digest: verification
            .destination
            .digest
            .finalize()
            .to_hex()
            .to_string(),
    }
}

impl Tree {
    fn new(root: OwnedFd, side: Side) -> Self {
        Tree {
            trail: Trail::new(root),
            reader: Reader::new(side),
            digest: Hasher::new(),
        }
    }

    /// Reads one entry and adds it to the digest of its side.
    fn entry(&mut self, name: &CString, ledger: &mut Ledger<'_>) -> Result<Entry, Fault> {
        let path = self.trail.path_of(name);
        let entry = self
            .reader
            .read(&self.trail, name, &path, &mut |bytes| ledger.bytes(bytes))?;
        entry.add_to(&mut self.digest, &path);
        Ok(entry)
    }
}

impl Verification<'_, '_> {
    fn walk(&mut self) {
        let mut stack = Vec::new();
        match self.roots() {
            Ok(frame) => stack.push(frame),
            Err(fault) => self.ledger.fault(b"", &fault),
        }
        while let Some(frame) = stack.last_mut() {
            let (source, destination) = (frame.source(), frame.destination());
            let (name, order) = match (source, destination) {
                (None, None) => {
                    stack.pop();
                    self.source.trail.leave();
                    self.destination.trail.leave();
                    continue;
                }
                (Some(name), None) => (name, Ordering::Less),
                (None, Some(name)) => (name, Ordering::Greater),
                (Some(source), Some(destination)) => match source.cmp(destination) {
                    Ordering::Greater => (destination, Ordering::Greater),
                    order => (source, order),
                },
            };
            let name = name.to_owned();
            frame.source.1 += usize::from(order.is_le());
            frame.destination.1 += usize::from(order.is_ge());
            self.ledger.entry();
            let result = match order {
                Ordering::Less => self.only_on_the_source(&name).map(|()| None),
                Ordering::Greater => self.only_on_the_destination(&name).map(|()| None),
                Ordering::Equal => self.both(&name),
            };
            match result {
                Ok(deeper) => stack.extend(deeper),
                Err(fault) => self.fault(&name, &fault),
            }
        }
    }

    fn roots(&mut self) -> Result<Frame, Fault> {
        let source = self.source.reader.read_root(&self.source.trail)?;
        let destination = self.destination.reader.read_root(&self.destination.trail)?;
        source.add_to(&mut self.source.digest, b"");
        destination.add_to(&mut self.destination.digest, b"");
        self.entries += 1;
        for difference in source.differences(&destination) {
            self.ledger.error(b"", difference);
        }
        let mut frame = self.list()?;
        let roots = (self.source.trail.root(), self.destination.trail.root());
        leave_lost_and_found(
            (roots.0, &mut frame.source.0),
            (roots.1, &mut frame.destination.0),
        );
        Ok(frame)
    }

    /// Compares an entry that both sides have. A frame if it is a directory on both.
    fn both(&mut self, name: &CString) -> Result<Option<Frame>, Fault> {
        if self.is_mount_point_of_the_source(name)? {
            return Ok(None);
        }
        let source = self.source.entry(name, self.ledger)?;
        let destination = self.destination.entry(name, self.ledger)?;
        self.entries += 1;
        for difference in source.differences(&destination) {
            self.ledger
                .error(&self.source.trail.path_of(name), difference);
        }
        if (source.kind(), destination.kind()) != (Kind::Directory, Kind::Directory) {
            return Ok(None);
        }
        self.source
            .trail
            .enter(name)
            .map_err(Fault::source("open its directory"))?;
        if let Err(errno) = self.destination.trail.enter(name) {
            self.source.trail.leave();
            return Err(Fault::destination("open its directory")(errno));
        }
        match self.list() {
            Ok(frame) => Ok(Some(frame)),
            Err(fault) => {
                self.source.trail.leave();
                self.destination.trail.leave();
                Err(fault)
            }
        }
    }

    fn only_on_the_source(&mut self, name: &CString) -> Result<(), Fault> {
        if !self.is_mount_point_of_the_source(name)? {
            self.source.entry(name, self.ledger)?;
            self.fault(name, &Fault::Refused("missing on the destination".into()));
        }
        Ok(())
    }

    fn only_on_the_destination(&mut self, name: &CString) -> Result<(), Fault> {
        self.destination.entry(name, self.ledger)?;
        self.fault(
            name,
            &Fault::Refused("on the destination but not on the source".into()),
        );
        Ok(())
    }

    /// What is mounted in the source is another tree and was not copied.
    fn is_mount_point_of_the_source(&self, name: &CString) -> Result<bool, Fault> {
        self.source
            .trail
            .directory()
            .and_then(|directory| Meta::at(directory, name))
            .map(|meta| meta.mount_point)
            .map_err(Fault::source("look at it"))
    }

    fn list(&self) -> Result<Frame, Fault> {
        let list = |trail: &Trail| trail.directory().and_then(Names::read);
        let doing = "read its directory";
        Ok(Frame {
            source: (list(&self.source.trail).map_err(Fault::source(doing))?, 0),
            destination: (
                list(&self.destination.trail).map_err(Fault::destination(doing))?,
                0,
            ),
        })
    }

    fn fault(&mut self, name: &CString, fault: &Fault) {
        self.ledger.fault(&self.source.trail.path_of(name), fault);
    }
}

impl Frame {
    fn source(&self) -> Option<&std::ffi::CStr> {
        self.source.0.get(self.source.1)
    }

    fn destination(&self) -> Option<&std::ffi::CStr> {
        self.destination.0.get(self.destination.1)
    }
}
