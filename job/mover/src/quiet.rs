//! Opening without a trace.

use std::path::Path;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Opens without following a symlink, without waiting for a FIFO's other end, and without
/// touching the access time where that is permitted.
pub fn open_quietly<N: rustix::path::Arg + Copy>(
    parent: BorrowedFd<'_>,
    name: N,
    flags: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(parent, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// Opens the root of a tree. Only here may symlinks lead the way.
pub fn open_root(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(CWD, path, flags, Mode::empty()),
        opened => opened,
    }
}
