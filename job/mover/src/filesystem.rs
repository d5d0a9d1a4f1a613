//! What is known of a file system by its type.

use rustix::fd::BorrowedFd;
use rustix::fs::{IFlags, fstatfs, ioctl_getflags};
use rustix::io::Errno;

use crate::project;

// From linux/magic.h.
const EXT: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
const F2FS: u64 = 0xf2f5_2010;
const TMPFS: u64 = 0x0102_1994;

/// Flags that every file system is asked for: what they forbid must be forbidden again.
pub const STRICT: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// All flags that are looked at: what people set with `chattr`.
pub const KEPT: IFlags = STRICT
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::DIRSYNC)
    .union(IFlags::JOURNALING)
    .union(IFlags::NOTAIL)
    .union(IFlags::TOPDIR)
    .union(IFlags::SECURE_REMOVAL)
    .union(IFlags::UNRM)
    .union(IFlags::COMPRESSED)
    .union(IFlags::NOCOW);

#[derive(Clone, Copy, Debug)]
pub struct FileSystem {
    kind: u64,
    /// The flags of `chattr` that it keeps.
    pub flags: IFlags,
    /// The project of its root: the volume's own, by which whoever made it limits its size.
    pub project: Option<u32>,
}

impl FileSystem {
    pub fn of(root: BorrowedFd<'_>) -> Result<Self, Errno> {
        let kind = u64::try_from(fstatfs(root)?.f_type).unwrap_or_default();
        let common = STRICT | IFlags::NODUMP | IFlags::NOATIME | IFlags::SYNC;
        let flags = match kind {
            EXT => KEPT - IFlags::COMPRESSED - IFlags::NOCOW,
            XFS => common,
            BTRFS => common | IFlags::DIRSYNC | IFlags::COMPRESSED | IFlags::NOCOW,
            F2FS => common | IFlags::DIRSYNC | IFlags::COMPRESSED,
            TMPFS => STRICT | IFlags::NODUMP,
            _ => IFlags::empty(),
        };
        // Older kernels know of none on some of these.
        let flags = match ioctl_getflags(root) {
            Ok(_) => flags,
            Err(_) => IFlags::empty(),
        };
        let project = match kind {
            EXT | XFS | F2FS => Some(project::read(root)?.id),
            _ => None,
        };
        Ok(FileSystem {
            kind,
            flags,
            project,
        })
    }

    pub fn name(&self) -> String {
        match self.kind {
            EXT => "ext4".into(),
            XFS => "xfs".into(),
            BTRFS => "btrfs".into(),
            F2FS => "f2fs".into(),
            TMPFS => "tmpfs".into(),
            0x6969 => "nfs".into(),
            0xff53_4d42 | 0xfe53_4d42 | 0x517b => "smb".into(),
            0x6573_5546 => "fuse".into(),
            0x00c3_6400 => "ceph".into(),
            0x0102_1997 => "9p".into(),
            0x794c_7630 => "overlayfs".into(),
            other => format!("file system 0x{other:x}"),
        }
    }

    /// Whether a file whose ctime is what it was cannot have changed.
    ///
    /// Elsewhere a clock of another machine makes it (NFS, SMB, Ceph, cluster file systems), or
    /// whoever implements it decides (FUSE), or a write through a mapped page does not move it
    /// (tmpfs, where pages are never written back and stay writable).
    pub fn has_reliable_ctime(&self) -> bool {
        matches!(self.kind, EXT | XFS | BTRFS | F2FS)
    }
}
