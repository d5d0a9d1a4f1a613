//! Flags of `chattr`, projects and extent sizes: how an inode is stored.

use pvmigrate_record::order::Attribute;
use rustix::fd::BorrowedFd;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use super::Keep;
use crate::extra::Extra;
use crate::fault::Fault;
use crate::filesystem::{KEPT, STRICT};
use crate::meta::{Kind, Meta};
use crate::project::{self, Project};

/// What can only be set on a file without content: how its content is stored.
pub fn before_content(file: BorrowedFd<'_>, extra: &Extra, keep: &Keep<'_>) -> Result<(), Fault> {
    if extra.flags.contains(IFlags::NOCOW) {
        let set = ioctl_getflags(file)
            .and_then(|flags| ioctl_setflags(file, flags | IFlags::NOCOW))
            .map_err(Fault::destination("set its flag C (no copy on write)"));
        keep.ledger.unless_lost(Attribute::Flags, set)?;
    }
    if extra.extents != Project::default() {
        // Looked at again when the content is there.
        let _ = set_project(file, extra, false, keep);
    }
    Ok(())
}

/// Whether a file's content is stored as it has to be, which cannot be changed once it has some.
pub fn stores_alike(file: BorrowedFd<'_>, extra: &Extra, keep: &Keep<'_>) -> Result<bool, Fault> {
    let on = &keep.destination;
    if extra.flags.contains(IFlags::NOCOW) && on.flags.contains(IFlags::NOCOW) {
        let flags = ioctl_getflags(file).map_err(Fault::destination("read its flags"))?;
        if !flags.contains(IFlags::NOCOW) {
            return Ok(false);
        }
    }
    if extra.extents != Project::default() && on.project.is_some() {
        let found = project::read(file).map_err(Fault::destination("read its extent size"))?;
        return Ok(Project { id: 0, ..found } == extra.extents);
    }
    Ok(true)
}

/// Sets project and flags, but immutable and append-only: those forbid all that follows. Returns
/// the flags that are to be set when everything else is done; none if there is nothing to do.
pub fn flags_and_project(
    file: BorrowedFd<'_>,
    extra: &Extra,
    keep: &Keep<'_>,
) -> Result<Option<IFlags>, Fault> {
    set_project(file, extra, true, keep)?;
    let on = &keep.destination;
    let inherit = IFlags::PROJECT_INHERIT;
    let can = on.flags | on.project.map_or(IFlags::empty(), |_| inherit);
    if !can.contains(extra.flags) {
        let fault = Fault::Refused(format!(
            "destination: {} has not all of its flags ({:#x})",
            on.name(),
            extra.flags.bits()
        ));
        keep.ledger.unless_lost(Attribute::Flags, Err(fault))?;
    }
    if can.is_empty() {
        return Ok(None);
    }
    let found = ioctl_getflags(file).map_err(Fault::destination("read its flags"))?;
    // Where the project is the volume's own, so is who inherits it.
    let ours = if extra.project.is_some() {
        KEPT | inherit
    } else {
        KEPT
    };
    let wanted = (found - ours) | (extra.flags & can);
    if found == wanted {
        return Ok(None);
    }
    let first = wanted - STRICT;
    if first != found {
        let set = set_flags(file, first);
        keep.ledger.unless_lost(Attribute::Flags, set)?;
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
    let Some(own) = keep.destination.project else {
        if extra.project.is_none() && extra.extents == Project::default() {
            return Ok(());
        }
        let what = extra.project.map_or("extent size", |_| "project");
        let name = keep.destination.name();
        let fault = Fault::Refused(format!("destination: {name} has no place for its {what}"));
        return if has_content {
            keep.ledger.unless_lost(Attribute::Project, Err(fault))
        } else {
            Err(fault)
        };
    };
    let wanted = Project {
        id: extra.project.unwrap_or(own),
        ..extra.extents
    };
    let set = || {
        let found = project::read(file)?;
        if found == wanted {
            return Ok(true);
        }
        let is_directory = Meta::of(file)?.kind == Kind::Directory;
        let possible = if has_content && !is_directory {
            // Extent sizes had their chance when the file was made.
            Project {
                id: wanted.id,
                ..found
            }
        } else {
            wanted
        };
        if found != possible {
            project::write(file, possible, is_directory)?;
        }
        Ok(project::read(file)? == wanted)
    };
    let set = match set() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Fault::Refused(format!(
            "destination: {} does not keep its project or extent size",
            keep.destination.name()
        ))),
        Err(errno) => Err(Fault::destination("set its project or extent size")(errno)),
    };
    if has_content {
        return keep.ledger.unless_lost(Attribute::Project, set);
    }
    set
}

pub fn set_flags(file: BorrowedFd<'_>, flags: IFlags) -> Result<(), Fault> {
    ioctl_setflags(file, flags).map_err(Fault::destination(format!(
        "set its flags immutable, append-only and others ({:#x})",
        flags.bits()
    )))
}
