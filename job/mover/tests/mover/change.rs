//! Changes of a tree, picked at random.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
    fallocate, lsetxattr, mknodat, renameat_with, utimensat,
};

/// The name of the tree's own directory, which stays.
pub const ROOT: &str = "tree";

/// One change of a tree. What the system refuses is none.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    what: Do,
    /// Picks an entry, modulo how many there are.
    one: usize,
    /// Picks another entry, or a new name.
    other: usize,
    amount: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Do {
    MakeFile,
    MakeDirectory,
    MakeSymlink,
    MakeFifo,
    Write,
    WriteAndSetTimeBack,
    ReplaceByTheSameSizeAndTime,
    Append,
    Truncate,
    PunchHole,
    Rename,
    RenameOver,
    Exchange,
    BecomeDirectory,
    BecomeFile,
    Link,
    Remove,
    ChangeMode,
    ChangeOwner,
    SetXattr,
    SetTimes,
}

pub const EVERYTHING: [Do; 21] = [
    Do::MakeFile,
    Do::MakeDirectory,
    Do::MakeSymlink,
    Do::MakeFifo,
    Do::Write,
    Do::WriteAndSetTimeBack,
    Do::ReplaceByTheSameSizeAndTime,
    Do::Append,
    Do::Truncate,
    Do::PunchHole,
    Do::Rename,
    Do::RenameOver,
    Do::Exchange,
    Do::BecomeDirectory,
    Do::BecomeFile,
    Do::Link,
    Do::Remove,
    Do::ChangeMode,
    Do::ChangeOwner,
    Do::SetXattr,
    Do::SetTimes,
];
pub const MAKE: [Do; 5] = [
    Do::MakeFile,
    Do::MakeFile,
    Do::MakeDirectory,
    Do::MakeSymlink,
    Do::Link,
];

pub fn changes(of: &'static [Do], at_most: usize) -> impl Strategy<Value = Vec<Change>> {
    let change = (select(of), any::<u16>(), any::<u16>(), any::<u32>());
    let change = change.prop_map(|(what, one, other, amount)| Change {
        what,
        one: one.into(),
        other: other.into(),
        amount,
    });
    prop::collection::vec(change, 0..at_most)
}

impl Change {
    #[expect(clippy::too_many_lines, reason = "an arm for each change")]
    pub fn apply(self, root: &Path) -> io::Result<()> {
        let entries = entries(root)?;
        let picked = &entries[self.one % entries.len()];
        let other = &entries[self.other % entries.len()];
        let new = self.new_name(picked);
        let amount = u64::from(self.amount % 300_000);
        match self.what {
            Do::MakeFile => {
                let file = File::create_new(new)?;
                // Most of them small, some with a hole at the front.
                let length = amount
                    % if self.other.is_multiple_of(4) {
                        300_000
                    } else {
                        5000
                    };
                let hole = if self.other.is_multiple_of(3) {
                    100_000
                } else {
                    0
                };
                file.write_all_at(&self.bytes(length), hole)
            }
            Do::MakeDirectory => fs::create_dir(new),
            Do::MakeSymlink => symlink(other, new),
            Do::MakeFifo => Ok(mknodat(CWD, new, FileType::Fifo, Mode::RUSR, 0)?),
            Do::Write => {
                let file = open(picked)?;
                let at = amount % file.metadata()?.len().max(1);
                file.write_all_at(&self.bytes(1 + amount % 9000), at)
            }
            Do::WriteAndSetTimeBack => {
                let file = open(picked)?;
                let before = file.metadata()?;
                let at = amount % before.len().max(1);
                file.write_all_at(&self.bytes(before.len().min(1)), at)?;
                set_times(picked, &before)
            }
            Do::ReplaceByTheSameSizeAndTime => {
                let before = open(picked)?.metadata()?;
                let beside = picked.with_file_name("beside");
                fs::write(&beside, self.bytes(before.len()))?;
                set_times(&beside, &before)?;
                fs::rename(beside, picked)
            }
            Do::Append => OpenOptions::new()
                .append(true)
                .open(file(picked)?)?
                .write_all(&self.bytes(amount / 10)),
            Do::Truncate => {
                let file = open(picked)?;
                let length = file.metadata()?.len();
                file.set_len(amount % (2 * length + 1))
            }
            Do::PunchHole => {
                let file = open(picked)?;
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let at = amount % file.metadata()?.len().max(1);
                Ok(fallocate(&file, flags, at, 1 + amount)?)
            }
            Do::Rename if new.symlink_metadata().is_err() => {
                fs::rename(picked, self.new_name(other))
            }
            Do::Rename | Do::RenameOver => fs::rename(picked, other),
            Do::Exchange => Ok(renameat_with(
                CWD,
                picked,
                CWD,
                other,
                RenameFlags::EXCHANGE,
            )?),
            Do::BecomeDirectory => {
                remove(picked)?;
                fs::create_dir(picked)?;
                fs::write(picked.join("in"), self.bytes(amount % 100))
            }
            Do::BecomeFile => {
                remove(picked)?;
                fs::write(picked, self.bytes(amount % 9000))
            }
            Do::Link => fs::hard_link(picked, self.new_name(other)),
            Do::Remove => remove(picked),
            Do::ChangeMode => {
                file_or_folder(picked)?;
                fs::set_permissions(picked, fs::Permissions::from_mode(self.amount & 0o7777))
            }
            Do::ChangeOwner => lchown(picked, Some(self.amount % 7), Some(self.amount % 5)),
            Do::SetXattr => {
                file_or_folder(picked)?;
                let name = format!("user.{}", self.other % 3);
                let value = self.bytes(amount % 1000);
                Ok(lsetxattr(
                    picked,
                    name.as_str(),
                    &value,
                    XattrFlags::empty(),
                )?)
            }
            Do::SetTimes => {
                let time = Timespec {
                    tv_sec: i64::from(self.amount),
                    tv_nsec: i64::from(self.amount % 1_000_000_000),
                };
                stamp(picked, time, time)
            }
        }
    }

    /// In a directory, or beside what is none. Names are few, so that they meet.
    fn new_name(self, near: &Path) -> PathBuf {
        let name = match self.other % 12 {
            10 => OsString::from_vec(b"\xff\xfe".into()),
            11 => OsString::from("new\nline"),
            number => OsString::from(format!("n{number}")),
        };
        if near.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            near.join(name)
        } else {
            near.with_file_name(name)
        }
    }

    fn bytes(self, length: u64) -> Vec<u8> {
        let bytes = self.amount.to_le_bytes();
        (0..length)
            .map(|index| bytes[(index % 4) as usize] ^ (index / 4).to_le_bytes()[0])
            .collect()
    }
}

/// The root and all below it, always in the same order.
fn entries(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.symlink_metadata()?.is_dir() {
            let mut inside: Vec<_> = fs::read_dir(path)?
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<_>>()?;
            inside.sort();
            found.extend(inside);
        }
    }
    Ok(found)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(file(path)?)
}

fn file(path: &Path) -> io::Result<&Path> {
    let is = path.symlink_metadata()?.is_file();
    is.then_some(path).ok_or(io::ErrorKind::InvalidInput.into())
}

fn file_or_folder(path: &Path) -> io::Result<()> {
    let found = path.symlink_metadata()?;
    let is = found.is_file() || found.is_dir();
    is.then_some(()).ok_or(io::ErrorKind::InvalidInput.into())
}

/// Not the root of the tree, whose name all others are picked from.
fn remove(path: &Path) -> io::Result<()> {
    if path.file_name() == Some(OsStr::new(ROOT)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if path.symlink_metadata()?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

fn set_times(path: &Path, like: &fs::Metadata) -> io::Result<()> {
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let (a, m) = (
        time(like.atime(), like.atime_nsec()),
        time(like.mtime(), like.mtime_nsec()),
    );
    stamp(path, a, m)
}

fn stamp(path: &Path, last_access: Timespec, last_modification: Timespec) -> io::Result<()> {
    let times = Timestamps {
        last_access,
        last_modification,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
