//! Whether the destination can hold the source, asked before the first byte is written.
//!
//! Of a destination that is smaller than the source, a twentieth has to stay free: its application
//! was given more, and goes on writing.

use std::fmt::Write;

use rustix::fd::BorrowedFd;
use rustix::fs::{OFlags, StatVfs, fstatvfs};
use rustix::io::Errno;

use crate::boundary::leave_lost_and_found;
use crate::exclude::Exclusions;
use crate::fault::Fault;
use crate::meta::{Kind, Meta};
use crate::names::Names;
use crate::quiet::open_quietly;
use crate::trail::Trail;

#[derive(Clone, Copy, Debug, Default)]
struct Need {
    bytes: u64,
    inodes: u64,
}

/// The part of a smaller destination that has to stay free, and by how much it is smaller: two file
/// systems make a little less or more of the same device.
const MARGIN: u64 = 20;

/// Whether a smaller destination needs room beyond what the source takes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Margin {
    Kept,
    /// Nothing writes any more, and what there is fits or does not.
    Given,
}

/// Refuses a destination whose free space, with what the tree on it gives back, is less than what
/// the source's tree has allocated. Walks the trees only where the file systems' own figures
/// leave it open.
pub fn check(
    source: BorrowedFd<'_>,
    destination: BorrowedFd<'_>,
    exclude: &Exclusions,
    margin: Margin,
) -> Result<(), Fault> {
    let doing = "ask for its space";
    let from = fstatvfs(source).map_err(Fault::source(doing))?;
    let to = fstatvfs(destination).map_err(Fault::destination(doing))?;
    // What is kept for root is ours to use.
    let free = Need {
        bytes: to.f_bfree.saturating_mul(to.f_frsize),
        // Some file systems make inodes as they go, and count none.
        inodes: if to.f_files == 0 {
            u64::MAX
        } else {
            to.f_ffree
        },
    };
    let at_most = Need {
        bytes: from
            .f_blocks
            .saturating_sub(from.f_bfree)
            .saturating_mul(from.f_frsize),
        inodes: from.f_files.saturating_sub(from.f_ffree),
    };
    let spare = match margin {
        Margin::Kept => spare(&from, &to),
        Margin::Given => Need::default(),
    };
    if from.f_files > 0 && at_most.with(spare).fits(free) {
        return Ok(());
    }
    let need = measure(source, exclude).map_err(Fault::source("measure it"))?;
    if need.with(spare).fits(free) {
        return Ok(());
    }
    let held =
        measure(destination, &Exclusions::default()).map_err(Fault::destination("measure it"))?;
    let have = Need {
        bytes: free.bytes.saturating_add(held.bytes),
        inodes: free.inodes.saturating_add(held.inodes),
    };
    for (what, needed, there_is, spare) in [
        ("bytes", need.bytes, have.bytes, spare.bytes),
        ("inodes", need.inodes, have.inodes, spare.inodes),
    ] {
        if needed.saturating_add(spare) <= there_is {
            continue;
        }
        let mut why = format!(
            "the destination is too small: the source takes {needed} {what}, and it has room for {there_is}"
        );
        if spare > 0 {
            let _ = write!(
                why,
                ", of which {spare} (5 %) have to stay free because it is smaller than the source"
            );
        }
        return Err(Fault::TooSmall(why));
    }
    Ok(())
}

/// What has to stay free of a destination that is smaller than the source.
fn spare(from: &StatVfs, to: &StatVfs) -> Need {
    let size = |of: &StatVfs| of.f_blocks.saturating_mul(of.f_frsize);
    let is_smaller = size(to) < size(from) / MARGIN * (MARGIN - 1);
    if !is_smaller {
        return Need::default();
    }
    Need {
        bytes: size(to) / MARGIN,
        inodes: to.f_files / MARGIN,
    }
}

impl Need {
    fn with(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            inodes: self.inodes.saturating_add(more.inodes),
        }
    }

    fn fits(self, room: Self) -> bool {
        self.bytes <= room.bytes && self.inodes <= room.inodes
    }
}

/// What a tree has allocated below its root. A file with several names counts with its share under
/// each of them. What vanishes meanwhile takes nothing.
fn measure(root: BorrowedFd<'_>, exclude: &Exclusions) -> Result<Need, Errno> {
    let root = open_quietly(root, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut need = Need::default();
    let mut trail = Trail::new(root);
    let mut names = Names::read(trail.directory()?)?;
    leave_lost_and_found(
        (trail.directory()?, &mut names),
        (trail.directory()?, &mut Names::default()),
    );
    let mut stack = vec![(names, 0)];
    let mut shared = (0_u64, 0_u64);
    while let Some((names, next)) = stack.last_mut() {
        let Some(name) = names.get(*next) else {
            stack.pop();
            trail.leave();
            continue;
        };
        *next += 1;
        let Ok(meta) = trail
            .directory()
            .and_then(|directory| Meta::at(directory, name))
        else {
            continue;
        };
        if meta.mount_point || (!exclude.is_empty() && exclude.matches(&trail.path_of(name))) {
            continue;
        }
        if meta.kind == Kind::Directory {
            let name = name.to_owned();
            need.inodes += 1;
            need.bytes += meta.allocated;
            if trail.enter(&name).is_ok() {
                let names = trail.directory().and_then(Names::read).unwrap_or_default();
                stack.push((names, 0));
            }
        } else if meta.nlink > 1 {
            // In units of a 65536th inode, so that all names of one add up to it.
            let names = u64::from(meta.nlink);
            shared.0 += meta.allocated / names;
            shared.1 += (1 << 16) / names;
        } else {
            need.inodes += 1;
            need.bytes += meta.allocated;
        }
    }
    need.bytes += shared.0;
    need.inodes += shared.1 >> 16;
    Ok(need)
}
