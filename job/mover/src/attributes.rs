//! Owner, xattrs, mode, flags, times: everything that an inode has besides its content, in the
//! one order that keeps all of it.

use pvmigrate_record::order::Attribute;
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, Gid, IFlags, Mode, Timestamps, Uid, chmodat, chownat, fchmod, fchown, futimens,
    ioctl_getflags, ioctl_setflags, utimensat,
};
use rustix::io::Errno;

use crate::extra::{Common, Extra};
use crate::fault::Fault;
use crate::filesystem::{FileSystem, STRICT};
use crate::ledger::Ledger;
use crate::meta::{Kind, Meta};
use crate::project::{self, Project};
use crate::xattrs::{self, Place};

/// What is kept of an inode on its way between two file systems.
pub struct Keep<'a> {
    pub source: FileSystem,
    pub destination: FileSystem,
    pub common: Common,
    pub ledger: &'a Ledger,
}

/// Set-user-ID and set-group-ID, which a change of the owner clears.
const SET_ID: u32 = 0o6000;

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
    let found = look(place)?;
    let mut set_mode = found.mode != wanted.mode;
    if (found.uid, found.gid) != (wanted.uid, wanted.gid) {
        set_mode |= wanted.mode & SET_ID != 0;
        keep.ledger
            .tolerate(Attribute::Owner, change_owner(place, wanted))?;
    }
    // After the owner, whose change clears a capability; before the mode, whose group bits an
    // ACL's mask stands for. A new inode may also have inherited an ACL that must go.
    let has = fresh.then(xattrs::Xattrs::new);
    if !(fresh && extra.xattrs.is_empty()) {
        set_mode |= xattrs::write(place, &extra.xattrs, has, keep)?;
    }
    if set_mode && wanted.kind != Kind::Symlink {
        keep.ledger
            .tolerate(Attribute::Mode, change_mode(place, wanted))?;
    }
    let late = match place {
        Place::Open(fd) => flags_and_project(fd, extra, keep)?,
        Place::Named(..) => None,
    };
    if (found.atime, found.mtime) != (wanted.atime, wanted.mtime) {
        keep.ledger
            .tolerate(Attribute::Times, change_times(place, wanted))?;
    }
    if let (Some(flags), Place::Open(fd)) = (late, place) {
        let set = set_flags(fd, flags);
        keep.ledger.unless_lost(Attribute::Flags, set)?;
    }
    let now = look(place)?;
    for (attribute, what) in differences(&now, wanted) {
        let fault = Fault::Refused(format!("the destination does not keep its {what}"));
        keep.ledger.unless_lost(attribute, Err(fault))?;
    }
    Ok(now)
}

/// What can only be set on a file without content: how its content is stored.
pub fn before_content(file: BorrowedFd<'_>, extra: &Extra, keep: &Keep<'_>) -> Result<(), Fault> {
    if extra.flags.contains(IFlags::NOCOW) {
        let set = ioctl_getflags(file)
            .and_then(|flags| ioctl_setflags(file, flags | IFlags::NOCOW))
            .map_err(Fault::destination("set its flag C (no copy on write)"));
        keep.ledger.unless_lost(Attribute::Flags, set)?;
    }
    if extra.extents != Project::default() {
        set_project(file, extra, false, keep)?;
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
    set_flags(file, flags)
}

/// Sets project and flags, but immutable and append-only: those forbid all that follows. Returns
/// the flags that are to be set when everything else is done; none if there is nothing to do.
fn flags_and_project(
    file: BorrowedFd<'_>,
    extra: &Extra,
    keep: &Keep<'_>,
) -> Result<Option<IFlags>, Fault> {
    if keep.common.projects {
        set_project(file, extra, true, keep)?;
    }
    if keep.destination.flags.is_empty() {
        if !extra.flags.is_empty() {
            let fault = Fault::destination("set its flags")(Errno::OPNOTSUPP);
            keep.ledger.unless_lost(Attribute::Flags, Err(fault))?;
        }
        return Ok(None);
    }
    let found = ioctl_getflags(file).map_err(Fault::destination("read its flags"))?;
    let wanted = (found - keep.common.flags) | extra.flags;
    if found == wanted {
        return Ok(None);
    }
    let first = wanted - STRICT;
    if first != found {
        keep.ledger
            .unless_lost(Attribute::Flags, set_flags(file, first))?;
    }
    Ok((wanted != first).then_some(wanted))
}

/// Its project, if that is not the volume's own, and the extent sizes.
fn set_project(
    file: BorrowedFd<'_>,
    extra: &Extra,
    has_content: bool,
    keep: &Keep<'_>,
) -> Result<(), Fault> {
    let doing = "set its project and extent size";
    let set = || {
        let found = project::read(file)?;
        let wanted = Project {
            id: extra
                .project
                .or(keep.destination.project)
                .unwrap_or(found.id),
            ..extra.extents
        };
        if found == wanted {
            return Ok(());
        }
        let is_directory = Meta::of(file)?.kind == Kind::Directory;
        if has_content && !is_directory {
            // Extent sizes had their chance when the file was made.
            let wanted = Project {
                id: wanted.id,
                ..found
            };
            return if found == wanted {
                Ok(())
            } else {
                project::write(file, wanted, is_directory)
            };
        }
        project::write(file, wanted, is_directory)
    };
    let set = set().map_err(Fault::destination(doing));
    keep.ledger.unless_lost(Attribute::Project, set)
}

fn set_flags(file: BorrowedFd<'_>, flags: IFlags) -> Result<(), Fault> {
    ioctl_setflags(file, flags).map_err(Fault::destination(format!(
        "set its flags immutable, append-only and others ({:#x})",
        flags.bits()
    )))
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
            found.mtime != wanted.mtime,
            Attribute::Times,
            "time of modification",
        ),
        (
            found.atime != wanted.atime,
            Attribute::Times,
            "time of access",
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
