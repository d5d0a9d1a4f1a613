//! Whether the destination can hold the source, asked before the first byte is written.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{OFlags, fstatvfs};
use rustix::io::Errno;

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

/// Refuses a destination whose free space, with what the tree on it gives back, is less than what
/// the source's tree has allocated. Walks the trees only where the file systems' own figures
/// leave it open.
pub fn check(
    source: BorrowedFd<'_>,
    destination: BorrowedFd<'_>,
    exclude: &Exclusions,
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
    if from.f_files > 0 && at_most.bytes <= free.bytes && at_most.inodes <= free.inodes {
        return Ok(());
    }
    let need = measure(source, exclude).map_err(Fault::source("measure it"))?;
    if need.bytes <= free.bytes && need.inodes <= free.inodes {
        return Ok(());
    }
    let held =
        measure(destination, &Exclusions::default()).map_err(Fault::destination("measure it"))?;
    let have = Need {
        bytes: free.bytes.saturating_add(held.bytes),
        inodes: free.inodes.saturating_add(held.inodes),
    };
    for (what, needed, there_is) in [
        ("bytes", need.bytes, have.bytes),
        ("inodes", need.inodes, have.inodes),
    ] {
        if needed > there_is {
            return Err(Fault::TooSmall(format!(
                "the destination is too small: the source takes {needed} {what}, and it has room for {there_is}"
            )));
        }
    }
    Ok(())
}

/// What a tree has allocated, each inode once for every name but the bytes of files with several
/// names shared among them. What vanishes meanwhile takes nothing.
fn measure(root: BorrowedFd<'_>, exclude: &Exclusions) -> Result<Need, Errno> {
    let root = open_quietly(root, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let own = Meta::of(root.as_fd())?;
    let mut need = Need {
        bytes: own.allocated,
        inodes: 1,
    };
    let mut trail = Trail::new(root);
    let mut stack = vec![(Names::read(trail.directory()?)?, 0)];
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
