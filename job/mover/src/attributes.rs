//! Owner, xattrs, mode, times: everything that an inode has besides its content, in the one order
//! that keeps all of it.

use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, Timestamps, Uid, chmodat, chownat, fchmod, fchown, futimens,
    ioctl_getflags, ioctl_setflags, utimensat,
};

use crate::fault::Fault;
use crate::meta::{Kind, Meta};
use crate::xattrs::{self, Place, Xattrs};

/// Gives an inode of the destination the attributes of its source. Its content must be complete:
/// every write would clear setuid, capabilities and the time of modification.
///
/// Guarantees that the destination shows owner, mode and times as asked when it is Ok; a file
/// system that rounds times or drops a bit is an error.
pub fn apply(place: Place<'_>, wanted: &Meta, xattrs: &Xattrs) -> Result<(), Fault> {
    let found = look(place)?;
    if (found.uid, found.gid) != (wanted.uid, wanted.gid) {
        change_owner(place, wanted)?;
    }
    // After the owner, whose change clears a capability; before the mode, whose group bits an
    // ACL's mask stands for. A new inode may also have inherited an ACL that must go.
    xattrs::write(place, xattrs)?;
    let found = look(place)?;
    if found.mode != wanted.mode && wanted.kind != Kind::Symlink {
        change_mode(place, wanted)?;
    }
    if (found.atime, found.mtime) != (wanted.atime, wanted.mtime) {
        change_times(place, wanted)?;
    }
    if (found.immutable, found.append_only) != (wanted.immutable, wanted.append_only) {
        change_flags(place, wanted.immutable, wanted.append_only)?;
    }
    match difference(&look(place)?, wanted) {
        None => Ok(()),
        Some(what) => Err(Fault::Refused(format!(
            "the destination does not keep its {what}"
        ))),
    }
}

/// Makes a file or directory writable that an earlier pass left immutable or append-only.
pub fn unlock(place: Place<'_>, found: &Meta) -> Result<(), Fault> {
    if found.immutable || found.append_only {
        change_flags(place, false, false)?;
    }
    Ok(())
}

/// The way back from [`unlock`].
pub fn lock(place: Place<'_>, wanted: &Meta) -> Result<(), Fault> {
    change_flags(place, wanted.immutable, wanted.append_only)
}

fn look(place: Place<'_>) -> Result<Meta, Fault> {
    match place {
        Place::Open(fd) => Meta::of(fd),
        Place::Named(directory, name) => Meta::at(directory, name),
    }
    .map_err(Fault::destination("look at it"))
}

fn difference(found: &Meta, wanted: &Meta) -> Option<&'static str> {
    if (found.uid, found.gid) != (wanted.uid, wanted.gid) {
        Some("owner")
    } else if found.mode != wanted.mode && wanted.kind != Kind::Symlink {
        Some("mode")
    } else if found.mtime != wanted.mtime {
        Some("time of modification")
    } else if found.atime != wanted.atime {
        Some("time of access")
    } else if (found.immutable, found.append_only) != (wanted.immutable, wanted.append_only) {
        Some("flags immutable and append-only")
    } else {
        None
    }
}

fn change_owner(place: Place<'_>, wanted: &Meta) -> Result<(), Fault> {
    let uid = Some(Uid::from_raw(wanted.uid));
    let gid = Some(Gid::from_raw(wanted.gid));
    match place {
        Place::Open(fd) => fchown(fd, uid, gid),
        Place::Named(directory, name) => {
            chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        }
    }
    .map_err(Fault::destination("set its owner"))
}

fn change_mode(place: Place<'_>, wanted: &Meta) -> Result<(), Fault> {
    let mode = Mode::from_raw_mode(wanted.mode);
    match place {
        Place::Open(fd) => fchmod(fd, mode),
        // Never a symlink: those have no mode of their own.
        Place::Named(directory, name) => chmodat(directory, name, mode, AtFlags::empty()),
    }
    .map_err(Fault::destination("set its mode"))
}

fn change_times(place: Place<'_>, wanted: &Meta) -> Result<(), Fault> {
    let times = Timestamps {
        last_access: wanted.atime.into(),
        last_modification: wanted.mtime.into(),
    };
    match place {
        Place::Open(fd) => futimens(fd, &times),
        Place::Named(directory, name) => {
            utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        }
    }
    .map_err(Fault::destination("set its times"))
}

fn change_flags(place: Place<'_>, immutable: bool, append_only: bool) -> Result<(), Fault> {
    // Only files and directories have flags, and those are reached open.
    let Place::Open(fd) = place else {
        return Ok(());
    };
    let doing = "set its flags immutable and append-only";
    let mut flags = ioctl_getflags(fd).map_err(Fault::destination(doing))?;
    flags.set(IFlags::IMMUTABLE, immutable);
    flags.set(IFlags::APPEND, append_only);
    ioctl_setflags(fd, flags).map_err(Fault::destination(doing))
}
