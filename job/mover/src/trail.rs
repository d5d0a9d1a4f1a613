//! The way from a tree's root down to the directory that a walk stands in.

use std::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::meta::{Id, Meta};
use crate::quiet::open_quietly;

/// How many directories of one trail stay open. A deeper walk closes those far above and opens
/// them again, name by name from the root, when it comes back to them: so neither `PATH_MAX` nor
/// the limit of open files limits how deep a tree may be.
const WINDOW: usize = 64;

pub struct Trail {
    root: OwnedFd,
    levels: Vec<Level>,
    /// Relative to the root, joined by `/`.
    path: Vec<u8>,
}

struct Level {
    /// Where this level's name ends in the path.
    end: usize,
    id: Id,
    fd: Option<OwnedFd>,
}

impl Trail {
    pub fn new(root: OwnedFd) -> Self {
        Trail {
            root,
            levels: Vec::new(),
            path: Vec::new(),
        }
    }

    /// The path of an entry of the current directory.
    pub fn path_of(&self, name: &CStr) -> Vec<u8> {
        let mut path = self.path.clone();
        push(&mut path, name);
        path
    }

    /// The current directory. `STALE` if it is no longer where it was.
    pub fn directory(&self) -> Result<BorrowedFd<'_>, Errno> {
        match self.levels.last() {
            None => Ok(self.root.as_fd()),
            Some(level) => level.fd.as_ref().map(AsFd::as_fd).ok_or(Errno::STALE),
        }
    }

    /// Makes a directory in the current one the current one, and says what it is.
    pub fn enter(&mut self, name: &CStr) -> Result<Meta, Errno> {
        let fd = open_directory(self.directory()?, name)?;
        let meta = Meta::of(fd.as_fd())?;
        push(&mut self.path, name);
        self.levels.push(Level {
            end: self.path.len(),
            id: meta.id,
            fd: Some(fd),
        });
        if let Some(far) = self.levels.len().checked_sub(WINDOW + 1) {
            self.levels[far].fd = None;
        }
        Ok(meta)
    }

    /// Goes back to the parent.
    pub fn leave(&mut self) {
        self.levels.pop();
        self.path.truncate(self.end());
        if self.levels.last().is_some_and(|level| level.fd.is_none()) {
            // A failure leaves the level closed, and `directory` tells whoever asks for it.
            let _ = self.open_again();
        }
    }

    fn end(&self) -> usize {
        self.levels.last().map_or(0, |level| level.end)
    }

    /// Opens the last levels of the trail again, and only what still is what it was.
    fn open_again(&mut self) -> Result<(), Errno> {
        let keep_from = self.levels.len().saturating_sub(WINDOW);
        let mut above: Option<OwnedFd> = None;
        let mut start = 0;
        for index in 0..self.levels.len() {
            let end = self.levels[index].end;
            let name = &self.path[start..end];
            start = end + 1;
            let parent = match (&above, index.checked_sub(1)) {
                (Some(fd), _) => fd.as_fd(),
                (None, None) => self.root.as_fd(),
                (None, Some(up)) => self.levels[up].fd.as_ref().ok_or(Errno::STALE)?.as_fd(),
            };
            let fd = open_directory(parent, name)?;
            if Meta::of(fd.as_fd())?.id != self.levels[index].id {
                return Err(Errno::STALE);
            }
            if index < keep_from {
                above = Some(fd);
            } else {
                above = None;
                self.levels[index].fd = Some(fd);
            }
        }
        Ok(())
    }
}

fn push(path: &mut Vec<u8>, name: &CStr) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.to_bytes());
}

fn open_directory<N: rustix::path::Arg + Copy>(
    parent: BorrowedFd<'_>,
    name: N,
) -> Result<OwnedFd, Errno> {
    open_quietly(parent, name, OFlags::RDONLY | OFlags::DIRECTORY)
}
