//! Owner, xattrs, mode, flags, times: everything that an inode has besides its content, in the
//! one order that keeps all of it.

pub mod storage;

use pvmigrate_record::order::Attribute;
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, Timestamps, Uid, chmodat, chownat, fchmod, fchown, futimens,
    ioctl_getflags, ioctl_setflags, utimensat,
};

use crate::extra::Extra;
use crate::fault::Fault;
use crate::filesystem::{FileSystem, STRICT};
use crate::ledger::Ledger;
use crate::meta::{Kind, Meta, Time};
use crate::xattrs::{self, Place};

/// What is kept of an inode on its way between two file systems.
pub struct Keep<'a> {
    pub source: FileSystem,
    pub destination: FileSystem,
    pub selinux: bool,
    pub ledger: &'a Ledger,
}

impl Keep<'_> {
    /// What an inode of the source has besides content.
    pub fn of_source(&self, place: Place<'_>) -> Result<Extra, Fault> {
        Extra::read(place, &self.source, self.selinux)
            .map_err(|(doing, errno)| Fault::source(doing)(errno))
    }
}

/// Set-user-ID and set-group-ID, which a change of the owner clears.
const SET_ID: u32 = 0o6000;
/// What of a mode a file can be made with.
pub const PERMISSIONS: u32 = 0o777;

/// Gives an inode of the destination the attributes of its source, and returns what it looks like
/// then. Its content must be complete: every write would clear setuid, capabilities and the time
/// of modification. `fresh` says that nothing could have given it extended attributes.
///
/// Guarantees that the destination shows owner, mode, times, immutable and append-only as asked
/// when it is Ok; a file system that rounds times or drops a bit is an error.
pub fn apply(
    place: Place<'_>,
    wanted: &Meta,
    extra: &Extra,
    fresh: bool,
    keep: &Keep<'_>,
) -> Result<Meta, Fault> {
    // A file that was just made looks as it was made, nearly always: the look at the end tells.
    let guessed = fresh && wanted.kind == Kind::Regular && extra.xattrs.is_empty();
    let found = if guessed {
        as_made(wanted)
    } else {
        look(place)?
    };
    let mut set_mode = set_owner(place, &found, wanted, keep)?;
    // After the owner, whose change clears a capability; before the mode, whose group bits an
    // ACL's mask stands for. A new inode may also have inherited an ACL that must go.
    let has = fresh.then(xattrs::Xattrs::new);
    if !(fresh && extra.xattrs.is_empty()) {
        set_mode |= xattrs::write(place, &extra.xattrs, has, keep)?;
    }
    set_mode_if(set_mode, place, wanted, keep)?;
    let late = match place {
        Place::Open(fd) => storage::flags_and_project(fd, extra, keep)?,
        Place::Named(..) => None,
    };
    set_times(place, &found, wanted, keep)?;
    if let (Some(flags), Place::Open(fd)) = (late, place) {
        let set = storage::set_flags(fd, flags);
        keep.ledger.unless_lost(Attribute::Flags, set)?;
    }
    let mut now = look(place)?;
    if guessed && differences(&now, wanted).next().is_some() {
        let set_mode = set_owner(place, &now, wanted, keep)?;
        set_mode_if(set_mode, place, wanted, keep)?;
        set_times(place, &now, wanted, keep)?;
        now = look(place)?;
    }
    for (attribute, what) in differences(&now, wanted) {
        let fault = Fault::Refused(format!("the destination does not keep its {what}"));
        keep.ledger.unless_lost(attribute, Err(fault))?;
    }
    Ok(now)
}

/// What a file looks like that root has made for this one. Its times are not known.
fn as_made(wanted: &Meta) -> Meta {
    let never = Time {
        seconds: i64::MIN,
        nanoseconds: 0,
    };
    Meta {
        uid: 0,
        gid: 0,
        mode: wanted.mode & PERMISSIONS,
        atime: never,
        mtime: never,
        ..*wanted
    }
}

/// Whether the mode has to be set afterwards.
fn set_owner(
    place: Place<'_>,
    found: &Meta,
    wanted: &Meta,
    keep: &Keep<'_>,
) -> Result<bool, Fault> {
    let mut set_mode = found.mode != wanted.mode;
    if (found.uid, found.gid) != (wanted.uid, wanted.gid) {
        set_mode |= wanted.mode & SET_ID != 0;
        let set = change_owner(place, wanted);
        keep.ledger.tolerate(Attribute::Owner, set)?;
    }
    Ok(set_mode)
}

fn set_mode_if(
    needed: bool,
    place: Place<'_>,
    wanted: &Meta,
    keep: &Keep<'_>,
) -> Result<(), Fault> {
    if needed && wanted.kind != Kind::Symlink {
        let set = change_mode(place, wanted);
        keep.ledger.tolerate(Attribute::Mode, set)?;
    }
    Ok(())
}

fn set_times(place: Place<'_>, found: &Meta, wanted: &Meta, keep: &Keep<'_>) -> Result<(), Fault> {
    if (found.atime, found.mtime) != (wanted.atime, wanted.mtime) {
        let set = change_times(place, wanted);
        keep.ledger.tolerate(Attribute::Times, set)?;
    }
    Ok(())
}

/// Makes a file or directory writable that an earlier pass left immutable or append-only.
pub fn unlock(place: Place<'_>, found: &Meta) -> Result<(), Fault> {
    if let (true, Place::Open(fd)) = (found.immutable || found.append_only, place) {
        let doing = "take its flags immutable and append-only";
        let flags = ioctl_getflags(fd).map_err(Fault::destination(doing))?;
        ioctl_setflags(fd, flags - STRICT).map_err(Fault::destination(doing))?;
    }
    Ok(())
}

/// The way back from [`unlock`].
pub fn lock(file: BorrowedFd<'_>, wanted: &Meta) -> Result<(), Fault> {
    let mut flags = ioctl_getflags(file).map_err(Fault::destination("read its flags"))? - STRICT;
    flags.set(IFlags::IMMUTABLE, wanted.immutable);
    flags.set(IFlags::APPEND, wanted.append_only);
    storage::set_flags(file, flags)
}

fn look(place: Place<'_>) -> Result<Meta, Fault> {
    match place {
        Place::Open(fd) => Meta::of(fd),
        Place::Named(directory, name) => Meta::at(directory, name),
    }
    .map_err(Fault::destination("look at it"))
}

fn differences(
    found: &Meta,
    wanted: &Meta,
) -> impl Iterator<Item = (Attribute, &'static str)> + use<> {
    let mode = found.mode != wanted.mode && wanted.kind != Kind::Symlink;
    let strict = (found.immutable, found.append_only) != (wanted.immutable, wanted.append_only);
    [
        (
            (found.uid, found.gid) != (wanted.uid, wanted.gid),
            Attribute::Owner,
            "owner",
        ),
        (mode, Attribute::Mode, "mode"),
        (
            (found.mtime, found.atime) != (wanted.mtime, wanted.atime),
            Attribute::Times,
            if found.mtime == wanted.mtime {
                "time of access"
            } else {
                "time of modification"
            },
        ),
        (strict, Attribute::Flags, "flags immutable and append-only"),
    ]
    .into_iter()
    .filter_map(|(differs, attribute, what)| differs.then_some((attribute, what)))
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

pub fn change_times(place: Place<'_>, wanted: &Meta) -> Result<(), Fault> {
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
