//! Reads the entries of one side.

use std::collections::HashMap;
use std::ffi::CStr;
use std::ops::Range;

use blake3::{Hash, Hasher};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{Advice, AtFlags, OFlags, Timestamps, fadvise, readlinkat, utimensat};

use super::entry::{Content, Entry};
use crate::content::{is_zero, next_data, read_full};
use crate::fault::Fault;
use crate::meta::{Id, Kind, Meta};
use crate::trail::{Trail, open_quietly};
use crate::xattrs::{self, Place};

/// Content is read and hashed in blocks of this many bytes. Blocks of zeros are not hashed, so
/// that equal content has an equal hash wherever its holes are.
const BLOCK: u64 = 1024 * 1024;
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

pub struct Reader {
    side: Side,
    buffer: Vec<u8>,
    /// By inode: a hash of the first path of those that have several names.
    first: HashMap<Id, Hash>,
    /// Bytes of content that were read.
    pub bytes: u64,
}

impl Reader {
    pub fn new(side: Side) -> Self {
        Reader {
            side,
            buffer: vec![0; 1024 * 1024],
            first: HashMap::new(),
            bytes: 0,
        }
    }

    pub fn read_root(&self, trail: &Trail) -> Result<Entry, Fault> {
        let meta = Meta::of(trail.root()).map_err(self.fault("look at it"))?;
        self.bare(meta, Place::Open(trail.root()))
    }

    /// Reads an entry of the current directory whole. `looked_at` is told the bytes as they are
    /// read. Access times stay as they are, but for a symlink of a source that is not mounted
    /// read-only: nothing is ever written to a source.
    pub fn read(
        &mut self,
        trail: &Trail,
        name: &CStr,
        path: &[u8],
        looked_at: &mut dyn FnMut(u64),
    ) -> Result<Entry, Fault> {
        let directory = trail
            .directory()
            .map_err(self.fault("open its directory"))?;
        let meta = Meta::at(directory, name).map_err(self.fault("look at it"))?;
        if meta.mount_point {
            return Err(Fault::Refused("a mount point, not looked into".into()));
        }
        let open = match meta.kind {
            Kind::Regular | Kind::Directory => {
                Some(open_quietly(directory, name, OFlags::RDONLY).map_err(self.fault("open it"))?)
            }
            _ => None,
        };
        let place = match &open {
            Some(fd) => Place::Open(fd.as_fd()),
            None => Place::Named(directory, name),
        };
        let mut entry = self.bare(meta, place)?;
        if meta.nlink > 1 && meta.kind != Kind::Directory {
            let own = blake3::hash(path);
            let first = *self.first.entry(meta.id).or_insert(own);
            entry.link_to = (first != own).then_some(first);
        }
        if meta.kind == Kind::Symlink {
            entry.target = readlinkat(directory, name, Vec::new())
                .map_err(self.fault("read it"))?
                .into_bytes();
            self.restore_access_time(directory, name, &meta);
        }
        if let Some(fd) = &open
            && meta.kind == Kind::Regular
            && entry.link_to.is_none()
        {
            let content = self.content(fd.as_fd(), meta.size, looked_at)?;
            entry.content = Some(content);
        }
        Ok(entry)
    }

    fn bare(&self, meta: Meta, place: Place<'_>) -> Result<Entry, Fault> {
        let xattrs = xattrs::read(place).map_err(|(doing, errno)| self.fault(&doing)(errno))?;
        Ok(Entry {
            meta,
            xattrs,
            target: Vec::new(),
            link_to: None,
            content: None,
        })
    }

    fn content(
        &mut self,
        file: BorrowedFd<'_>,
        size: u64,
        looked_at: &mut dyn FnMut(u64),
    ) -> Result<Content, Fault> {
        if self.side == Side::Destination {
            // What counts is what the storage gives back, not what the page cache still has.
            fadvise(file, 0, None, Advice::DontNeed).map_err(self.fault("drop its cache"))?;
        }
        // The map before the reading: XFS takes reserved space for data once it is in the cache.
        let (mut data, mut stretches, mut at) = (0, 0, 0);
        let mut to_read: Vec<Range<u64>> = Vec::new();
        while let Some(range) = next_data(file, at, size).map_err(self.fault("find its data"))? {
            data += range.end - range.start;
            stretches += 1;
            at = range.end;
            let blocks = range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK).min(size);
            match to_read.last_mut() {
                Some(last) if last.end >= blocks.start => last.end = blocks.end,
                _ => to_read.push(blocks),
            }
        }
        let mut hasher = Hasher::new();
        for blocks in to_read {
            let mut at = blocks.start;
            while at < blocks.end {
                let length =
                    usize::try_from(BLOCK.min(blocks.end - at)).unwrap_or(self.buffer.len());
                let block = &mut self.buffer[..length];
                let read = read_full(file, block, at).map_err(fault(self.side, "read it"))?;
                let block = &block[..read];
                if !is_zero(block) {
                    hasher.update(&at.to_le_bytes());
                    hasher.update(&(read as u64).to_le_bytes());
                    hasher.update(block);
                }
                self.bytes += read as u64;
                looked_at(read as u64);
                at += BLOCK;
            }
        }
        Ok(Content {
            hash: hasher.finalize(),
            data,
            stretches,
        })
    }

    /// There is no way to read a symlink without touching its access time.
    fn restore_access_time(&self, directory: BorrowedFd<'_>, name: &CStr, before: &Meta) {
        let touched = Meta::at(directory, name).is_ok_and(|now| now.atime != before.atime);
        if touched && self.side == Side::Destination {
            let times = Timestamps {
                last_access: before.atime.into(),
                last_modification: before.mtime.into(),
            };
            // A verification by hand may have no right to write; it then changes no more than
            // any reader does.
            let _ = utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        }
    }

    fn fault(&self, doing: &str) -> impl FnOnce(rustix::io::Errno) -> Fault + use<> {
        fault(self.side, doing)
    }
}

fn fault(side: Side, doing: &str) -> impl FnOnce(rustix::io::Errno) -> Fault + use<> {
    let doing = doing.to_owned();
    move |errno| match side {
        Side::Source => Fault::source(doing)(errno),
        Side::Destination => Fault::destination(doing)(errno),
    }
}
