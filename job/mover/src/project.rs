//! XFS's and ext4's project ids, and XFS's extent size hints.

#![allow(unsafe_code)] // The one ioctl that nobody wraps.

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};

/// What is kept of an inode. Zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Project {
    pub id: u32,
    /// Bytes.
    pub extent_size: u32,
    pub copy_on_write_extent_size: u32,
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Fsxattr {
    xflags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_on_write_extent_size: u32,
    padding: [u8; 8],
}

const GET: Opcode = opcode::read::<Fsxattr>(b'X', 31);
const SET: Opcode = opcode::write::<Fsxattr>(b'X', 32);
const EXTENT_SIZE: u32 = 0x800;
const EXTENT_SIZE_INHERIT: u32 = 0x1000;
const COPY_ON_WRITE_EXTENT_SIZE: u32 = 0x10000;

/// Of a file or directory; none where its file system knows no such thing.
pub fn read(fd: BorrowedFd<'_>) -> Result<Project, Errno> {
    match get(fd) {
        Ok(found) => Ok(Project {
            id: found.project,
            extent_size: if found.xflags & (EXTENT_SIZE | EXTENT_SIZE_INHERIT) == 0 {
                0
            } else {
                found.extent_size
            },
            copy_on_write_extent_size: if found.xflags & COPY_ON_WRITE_EXTENT_SIZE == 0 {
                0
            } else {
                found.copy_on_write_extent_size
            },
        }),
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => Ok(Project::default()),
        Err(errno) => Err(errno),
    }
}

/// An extent size can only be given to a file that has no extents yet.
pub fn write(fd: BorrowedFd<'_>, wanted: Project, is_directory: bool) -> Result<(), Errno> {
    let mut found = get(fd)?;
    let hint = if is_directory {
        EXTENT_SIZE_INHERIT
    } else {
        EXTENT_SIZE
    };
    found.project = wanted.id;
    found.xflags &= !(EXTENT_SIZE | EXTENT_SIZE_INHERIT | COPY_ON_WRITE_EXTENT_SIZE);
    if wanted.extent_size != 0 {
        found.xflags |= hint;
    }
    if wanted.copy_on_write_extent_size != 0 {
        found.xflags |= COPY_ON_WRITE_EXTENT_SIZE;
    }
    found.extent_size = wanted.extent_size;
    found.copy_on_write_extent_size = wanted.copy_on_write_extent_size;
    // SAFETY: FS_IOC_FSSETXATTR reads one `struct fsxattr`.
    unsafe { ioctl(fd, Setter::<SET, Fsxattr>::new(found)) }
}

fn get(fd: BorrowedFd<'_>) -> Result<Fsxattr, Errno> {
    // SAFETY: FS_IOC_FSGETXATTR fills one `struct fsxattr`, in which every bit pattern is valid.
    unsafe { ioctl(fd, Getter::<GET, Fsxattr>::new()) }
}
