//! The names in one directory.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fd::BorrowedFd;
use rustix::fs::RawDir;
use rustix::io::Errno;

/// All names of one directory, in the order of their bytes. They are held whole, because an order
/// that both sides share is what lets two trees be compared entry by entry; one arena holds them,
/// because a mail spool may have millions.
#[derive(Default)]
pub struct Names {
    /// The names, each with its terminating NUL.
    arena: Vec<u8>,
    /// Where each name begins in the arena.
    starts: Vec<usize>,
}

impl Names {
    /// Reads what is left to read of `directory`: all of it, if it was just opened.
    pub fn read(directory: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut names = Self::default();
        let mut buffer = vec![MaybeUninit::uninit(); 64 * 1024];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.starts.push(names.arena.len());
                names.arena.extend_from_slice(name.to_bytes_with_nul());
            }
        }
        let arena = &names.arena;
        names.starts.sort_unstable_by_key(|&start| at(arena, start));
        // A directory that changes while it is read may show a name twice.
        names.starts.dedup_by(|a, b| at(arena, *a) == at(arena, *b));
        Ok(names)
    }

    pub fn get(&self, index: usize) -> Option<&CStr> {
        self.starts.get(index).map(|&start| at(&self.arena, start))
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.starts.iter().map(|&start| at(&self.arena, start))
    }

    pub fn contains(&self, name: &CStr) -> bool {
        self.find(name).is_ok()
    }

    pub fn remove(&mut self, name: &CStr) {
        if let Ok(index) = self.find(name) {
            self.starts.remove(index);
        }
    }

    fn find(&self, name: &CStr) -> Result<usize, usize> {
        self.starts
            .binary_search_by(|&start| at(&self.arena, start).cmp(name))
    }
}

fn at(arena: &[u8], start: usize) -> &CStr {
    CStr::from_bytes_until_nul(&arena[start..]).unwrap_or_default()
}
