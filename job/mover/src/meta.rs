//! What an inode says of itself.

use std::ffi::CStr;

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, Statx, StatxAttributes, StatxFlags, Timespec, statx};
use rustix::io::Errno;

/// An inode, told from all others that are alive.
pub type Id = (u32, u32, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Regular,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

impl Kind {
    pub fn file_type(self) -> FileType {
        match self {
            Kind::Regular => FileType::RegularFile,
            Kind::Directory => FileType::Directory,
            Kind::Symlink => FileType::Symlink,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket => FileType::Socket,
            Kind::CharacterDevice => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
        }
    }

    /// What has no content: a FIFO, a socket, a device.
    pub fn is_special(self) -> bool {
        !matches!(self, Kind::Regular | Kind::Directory | Kind::Symlink)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Regular => "a file",
            Kind::Directory => "a directory",
            Kind::Symlink => "a symlink",
            Kind::Fifo => "a FIFO",
            Kind::Socket => "a socket",
            Kind::CharacterDevice => "a character device",
            Kind::BlockDevice => "a block device",
        }
    }
}

/// Seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Time {
    /// As one number, which tells any two times apart that are not some 584 years apart.
    pub fn in_nanoseconds(self) -> i64 {
        self.seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(self.nanoseconds.into())
    }
}

impl From<Time> for Timespec {
    fn from(time: Time) -> Self {
        Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky; without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes that the file system has set aside for it.
    pub allocated: u64,
    pub nlink: u32,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
    pub id: Id,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
    /// `chattr +i`, `chattr +a`.
    pub immutable: bool,
    pub append_only: bool,
    /// Something is mounted here: it belongs to another tree.
    pub mount_point: bool,
}

impl Meta {
    /// Of an entry itself, never of what a symlink points to.
    pub fn at(directory: BorrowedFd<'_>, name: &CStr) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Self::from_statx(&statx(directory, name, flags, StatxFlags::BASIC_STATS)?)
    }

    pub fn of(file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
        Self::from_statx(&statx(file, c"", flags, StatxFlags::BASIC_STATS)?)
    }

    /// None if there is no such entry.
    pub fn find(directory: BorrowedFd<'_>, name: &CStr) -> Result<Option<Self>, Errno> {
        match Self::at(directory, name) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Whether content or metadata may have changed between the two looks at one inode.
    pub fn differs_from(&self, earlier: &Meta) -> bool {
        (self.id, self.size, self.mtime, self.ctime)
            != (earlier.id, earlier.size, earlier.mtime, earlier.ctime)
    }

    fn from_statx(found: &Statx) -> Result<Self, Errno> {
        let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::RegularFile => Kind::Regular,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Unknown => return Err(Errno::OPNOTSUPP),
        };
        let time = |t: rustix::fs::StatxTimestamp| Time {
            seconds: t.tv_sec,
            nanoseconds: t.tv_nsec,
        };
        let has = |attribute| found.stx_attributes.contains(attribute);
        Ok(Meta {
            kind,
            mode: u32::from(found.stx_mode) & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            size: found.stx_size,
            allocated: found.stx_blocks * 512,
            nlink: found.stx_nlink,
            rdev: (found.stx_rdev_major, found.stx_rdev_minor),
            id: (found.stx_dev_major, found.stx_dev_minor, found.stx_ino),
            atime: time(found.stx_atime),
            mtime: time(found.stx_mtime),
            ctime: time(found.stx_ctime),
            immutable: has(StatxAttributes::IMMUTABLE),
            append_only: has(StatxAttributes::APPEND),
            mount_point: has(StatxAttributes::MOUNT_ROOT),
        })
    }
}
