//! The names in one directory.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fd::BorrowedFd;
use rustix::fs::RawDir;
use rustix::io::Errno;

/// All names of one directory, each with its inode, in the order of their bytes. They are held
/// whole: an order that both sides share is what lets two trees be compared; and one arena holds
/// them, because a mail spool may have millions.
#[derive(Default)]
pub struct Names {
    /// The names, each with its terminating NUL.
    arena: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    inode: u64,
    /// Where the name begins in the arena, and its length without the NUL.
    start: u32,
    length: u32,
}

impl Names {
    /// Reads what is left to read of `directory`: all of it, if it was just opened.
    pub fn read(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); 128 * 1024];
        let mut found = RawDir::new(directory, &mut buffer);
        while let Some(entry) = found.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let bytes = name.to_bytes_with_nul();
            // Four gigabytes of names in one directory are beyond what file systems index.
            let start = u32::try_from(names.arena.len()).map_err(|_| Errno::OVERFLOW)?;
            let length = u32::try_from(bytes.len() - 1).map_err(|_| Errno::OVERFLOW)?;
            names.entries.push(Entry {
                inode: entry.ino(),
                start,
                length,
            });
            names.arena.extend_from_slice(bytes);
        }
        let arena = &names.arena;
        names
            .entries
            .sort_unstable_by(|a, b| bytes(arena, a).cmp(bytes(arena, b)));
        // A directory that changes while it is read may show a name twice.
        names
            .entries
            .dedup_by(|a, b| bytes(arena, a) == bytes(arena, b));
        Ok(names)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&CStr> {
        self.entries
            .get(index)
            .map(|entry| name(&self.arena, entry))
    }

    pub fn inode(&self, index: usize) -> Option<u64> {
        self.entries.get(index).map(|entry| entry.inode)
    }

    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.entries.iter().map(|entry| name(&self.arena, entry))
    }

    pub fn contains(&self, name: &CStr) -> bool {
        self.find(name).is_some()
    }

    /// The inode that a name stands for.
    pub fn inode_of(&self, name: &CStr) -> Option<u64> {
        self.find(name).and_then(|index| self.inode(index))
    }

    pub fn remove(&mut self, name: &CStr) {
        if let Some(index) = self.find(name) {
            self.entries.remove(index);
        }
    }

    /// Takes out what `leave` says, and how many that were.
    pub fn leave_out(&mut self, mut leave: impl FnMut(&CStr) -> bool) -> u64 {
        let before = self.entries.len();
        let arena = &self.arena;
        self.entries.retain(|entry| !leave(name(arena, entry)));
        (before - self.entries.len()) as u64
    }

    /// The order in which file systems lay inodes out: what is read in it is read in one sweep.
    pub fn sort_by_inode(&mut self) {
        self.entries.sort_unstable_by_key(|entry| entry.inode);
    }

    fn find(&self, name: &CStr) -> Option<usize> {
        self.entries
            .binary_search_by(|entry| bytes(&self.arena, entry).cmp(name.to_bytes()))
            .ok()
    }
}

fn bytes<'a>(arena: &'a [u8], entry: &Entry) -> &'a [u8] {
    let start = entry.start as usize;
    &arena[start..start + entry.length as usize]
}

fn name<'a>(arena: &'a [u8], entry: &Entry) -> &'a CStr {
    let start = entry.start as usize;
    CStr::from_bytes_with_nul(&arena[start..=start + entry.length as usize]).unwrap_or_default()
}
