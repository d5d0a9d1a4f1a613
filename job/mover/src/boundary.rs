//! What lies in a volume's folder and yet is not the application's.

use std::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::OFlags;

use crate::meta::{Kind, Meta};
use crate::names::Names;
use crate::quiet::open_quietly;

/// Made by mkfs at the root of an ext file system, filled by fsck.
pub const LOST_AND_FOUND: &CStr = c"lost+found";

/// Takes `lost+found` out of the names of both roots where it is the file system's own: a
/// directory of root. One that an application made, as another user, is copied like all else.
/// Says whether the source's has contents that stay behind.
pub fn leave_lost_and_found(
    (source, source_names): (BorrowedFd<'_>, &mut Names),
    (destination, destination_names): (BorrowedFd<'_>, &mut Names),
) -> bool {
    let is_the_file_systems = |root| {
        Meta::at(root, LOST_AND_FOUND)
            .is_ok_and(|meta| meta.kind == Kind::Directory && meta.uid == 0)
    };
    if !source_names.contains(LOST_AND_FOUND) {
        if is_the_file_systems(destination) {
            destination_names.remove(LOST_AND_FOUND);
        }
        return false;
    }
    if !is_the_file_systems(source) {
        return false;
    }
    source_names.remove(LOST_AND_FOUND);
    destination_names.remove(LOST_AND_FOUND);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open_quietly(source, LOST_AND_FOUND, flags)
        .and_then(|lost| Names::read(lost.as_fd()))
        // One that cannot be read may well have contents.
        .map_or(true, |names| !names.is_empty())
}
