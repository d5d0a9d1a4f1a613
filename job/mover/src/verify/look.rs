//! What an inode has besides content, looked up without a trace.

use std::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, OFlags, Timestamps, readlinkat, utimensat};

use super::Comparison;
use crate::extra::Extra;
use crate::fault::Fault;
use crate::filesystem::FileSystem;
use crate::meta::{Kind, Meta};
use crate::quiet::open_quietly;
use crate::xattrs::Place;

impl Comparison<'_> {
    /// Reads what an inode has besides content. An empty name stands for the directory itself.
    pub(super) fn extra(
        &self,
        side: BorrowedFd<'_>,
        name: &CStr,
        meta: &Meta,
        is_source: bool,
    ) -> Result<Extra, Fault> {
        let fault = |doing: String| {
            move |errno| {
                if is_source {
                    Fault::source(doing)(errno)
                } else {
                    Fault::destination(doing)(errno)
                }
            }
        };
        let keep = &self.with.keep;
        let on: &FileSystem = if is_source {
            &keep.source
        } else {
            &keep.destination
        };
        let file: Option<OwnedFd> = match meta.kind {
            _ if name.is_empty() => None,
            Kind::Regular | Kind::Directory => {
                Some(open_quietly(side, name, OFlags::RDONLY).map_err(fault("open it".into()))?)
            }
            _ => None,
        };
        let place = match &file {
            Some(file) => Place::Open(file.as_fd()),
            None if name.is_empty() => Place::Open(side),
            None => Place::Named(side, name),
        };
        let mut extra =
            Extra::read(place, on, keep.selinux).map_err(|(doing, errno)| fault(doing)(errno))?;
        if meta.kind == Kind::Symlink {
            extra.target = readlinkat(side, name, Vec::new())
                .map_err(fault("read it".into()))?
                .into_bytes();
            if !is_source {
                restore_access_time(side, name, meta);
            }
        }
        Ok(extra)
    }
}

/// There is no way to read a symlink without touching its access time.
fn restore_access_time(directory: BorrowedFd<'_>, name: &CStr, before: &Meta) {
    if Meta::at(directory, name).is_ok_and(|now| now.atime != before.atime) {
        let times = Timestamps {
            last_access: before.atime.into(),
            last_modification: before.mtime.into(),
        };
        // A comparison by hand may have no right to write; it then changes no more than any
        // reader does.
        let _ = utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}
