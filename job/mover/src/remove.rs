//! Taking out of the destination what the source has not.

use std::ffi::{CStr, CString};

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, OFlags, unlinkat};
use rustix::io::Errno;

use crate::attributes::unlock;
use crate::fault::Fault;
use crate::meta::{Kind, Meta};
use crate::names::Names;
use crate::quiet::open_quietly;
use crate::trail::Trail;
use crate::xattrs::Place;

/// Removes an entry with all that is in it, and says how many entries that were.
///
/// Never goes into what is mounted there: that is refused, with part of the tree already gone.
pub fn remove(directory: BorrowedFd<'_>, name: &CStr) -> Result<u64, Fault> {
    let Some(meta) = Meta::find(directory, name).map_err(Fault::destination("look at it"))? else {
        return Ok(0);
    };
    if meta.kind != Kind::Directory {
        return remove_one(directory, name, &meta);
    }
    let root = open_quietly(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(Fault::destination("open its directory"))?;
    let mut trail = Trail::new(root);
    let mut removed = 0;
    let mut listed = vec![enter(&mut trail, name)?];
    while let Some((names, next, own)) = listed.last_mut() {
        let Some(entry) = names.get(*next) else {
            let own = own.clone();
            listed.pop();
            trail.leave();
            let parent = trail
                .directory()
                .map_err(Fault::destination("open its directory"))?;
            unlinkat(parent, &own, AtFlags::REMOVEDIR).map_err(Fault::destination("remove it"))?;
            removed += 1;
            continue;
        };
        *next += 1;
        let here = trail
            .directory()
            .map_err(Fault::destination("open its directory"))?;
        let meta = Meta::at(here, entry).map_err(Fault::destination("look at it"))?;
        if meta.kind == Kind::Directory {
            let entry = entry.to_owned();
            listed.push(enter(&mut trail, &entry)?);
        } else {
            removed += remove_one(here, entry, &meta)?;
        }
    }
    Ok(removed)
}

fn remove_one(directory: BorrowedFd<'_>, name: &CStr, meta: &Meta) -> Result<u64, Fault> {
    if meta.kind == Kind::Regular && (meta.immutable || meta.append_only) {
        let file =
            open_quietly(directory, name, OFlags::RDONLY).map_err(Fault::destination("open it"))?;
        unlock(Place::Open(file.as_fd()), meta)?;
    }
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(1),
        Err(errno) => Err(Fault::destination("remove it")(errno)),
    }
}

/// Goes into a directory that is to be removed: its names, the index of the next, its own name.
fn enter(trail: &mut Trail, name: &CStr) -> Result<(Names, usize, CString), Fault> {
    let meta = trail
        .enter(name)
        .map_err(Fault::destination("open its directory"))?;
    if meta.mount_point {
        return Err(Fault::Refused(
            "a mount point on the destination is in the way".into(),
        ));
    }
    let here = trail
        .directory()
        .map_err(Fault::destination("open its directory"))?;
    unlock(Place::Open(here), &meta)?;
    let names = Names::read(here).map_err(Fault::destination("read its directory"))?;
    Ok((names, 0, name.to_owned()))
}
