//! What is known of each entry from one pass to the next.
//!
//! Known entries belong to the directory, by its inode, that they were seen in. An entry is looked
//! up by its inode, and counts only if the destination has the inode under that name which was
//! its copy: so a renamed directory, or two that changed places, are seen without a path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chunks::Chunk;
use crate::extra::Seal;
use crate::lock::lock;
use crate::meta::Meta;

/// The root's own entry is in no directory.
pub const ROOT: u64 = 0;

#[derive(Default)]
pub struct Manifest {
    directories: Mutex<HashMap<u64, Entries>>,
}

/// An entry as it was when its copy was made, or found to be equal.
pub struct Known {
    pub inode: u64,
    /// The inode of its copy.
    pub copy: u64,
    pub size: u64,
    /// Nanoseconds.
    mtime: i64,
    pub ctime: i64,
    /// The copy's is the same.
    pub atime: i64,
    /// Xattrs, flags, the target of a symlink: everything that a look at an inode does not show.
    pub seal: Seal,
    /// Of a regular file.
    pub chunks: Box<[Chunk]>,
    /// Whether it cannot have changed without a newer ctime: see `trust`.
    pub settled: AtomicBool,
    /// The copy has been found equal since it was written, but for its content.
    compared: AtomicBool,
    /// The copy was found not to be equal: nothing is known of it.
    refuted: AtomicBool,
    unproven: Mutex<Unproven>,
}

/// What of a copy's content was not yet read back from its storage.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Unproven {
    #[default]
    Everything,
    Chunks(Box<[u64]>),
    Nothing,
}

impl Known {
    pub fn new(source: &Meta, copy: u64, seal: Seal, chunks: Vec<Chunk>, settled: bool) -> Self {
        Known {
            inode: source.id.2,
            copy,
            size: source.size,
            mtime: source.mtime.in_nanoseconds(),
            ctime: source.ctime.in_nanoseconds(),
            atime: source.atime.in_nanoseconds(),
            seal,
            chunks: chunks.into_boxed_slice(),
            settled: AtomicBool::new(settled),
            compared: AtomicBool::new(false),
            refuted: AtomicBool::new(false),
            unproven: Mutex::default(),
        }
    }

    pub fn unproven(&self) -> Unproven {
        lock(&self.unproven).clone()
    }

    /// All of its content was read back, or is otherwise known to be on the storage.
    pub fn prove(&self) {
        *lock(&self.unproven) = Unproven::Nothing;
    }

    /// It replaces what was known of the same copy: only chunks that differ were written.
    pub fn take_proof(&self, earlier: &Known) {
        let mut unproven = match earlier.unproven() {
            Unproven::Everything => return,
            Unproven::Chunks(chunks) => chunks.into_vec(),
            Unproven::Nothing => Vec::new(),
        };
        for (these, those) in [
            (&self.chunks, &earlier.chunks),
            (&earlier.chunks, &self.chunks),
        ] {
            let differ = these.iter().filter(|chunk| {
                those
                    .binary_search_by_key(&chunk.index, |other| other.index)
                    .map_or(true, |found| those[found].hash != chunk.hash)
            });
            unproven.extend(differ.map(|chunk| chunk.index));
        }
        unproven.sort_unstable();
        unproven.dedup();
        *lock(&self.unproven) = if unproven.is_empty() {
            Unproven::Nothing
        } else {
            Unproven::Chunks(unproven.into_boxed_slice())
        };
    }

    /// Whether the source looks as it did. That alone does not prove that it is the same.
    pub fn looks_like(&self, source: &Meta) -> bool {
        let size = source.kind == crate::meta::Kind::Directory || self.size == source.size;
        self.inode == source.id.2
            && size
            && self.mtime == source.mtime.in_nanoseconds()
            && self.ctime == source.ctime.in_nanoseconds()
    }

    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// The next pass has to read both sides.
    pub fn refute(&self) {
        self.refuted.store(true, Ordering::Relaxed);
    }

    pub fn is_compared(&self) -> bool {
        self.compared.load(Ordering::Relaxed)
    }

    pub fn set_compared(&self) {
        self.compared.store(true, Ordering::Relaxed);
    }
}

impl Clone for Known {
    fn clone(&self) -> Self {
        Known {
            chunks: self.chunks.clone(),
            settled: AtomicBool::new(self.is_settled()),
            compared: AtomicBool::new(self.is_compared()),
            refuted: AtomicBool::new(self.refuted.load(Ordering::Relaxed)),
            unproven: Mutex::new(self.unproven()),
            ..*self
        }
    }
}

impl Manifest {
    /// What is known of a directory's entries.
    pub fn entries(&self, directory: u64) -> Entries {
        self.lock().get(&directory).cloned().unwrap_or_default()
    }

    /// The same, and forgets it.
    pub fn take(&self, directory: u64) -> Entries {
        self.lock().remove(&directory).unwrap_or_default()
    }

    pub fn put(&self, directory: u64, mut entries: Vec<Known>) {
        entries.sort_unstable_by_key(|known| known.inode);
        self.lock().insert(directory, Entries(Arc::new(entries)));
    }

    /// Nothing in it proves any more that a source is unchanged; hashes stay what they are.
    pub fn unsettle(&self) {
        for known in self.lock().values().flat_map(|entries| entries.0.iter()) {
            known.settled.store(false, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entries>> {
        lock(&self.directories)
    }
}

/// What is known of the entries of one directory, in the order of their inodes.
#[derive(Clone, Default)]
pub struct Entries(Arc<Vec<Known>>);

impl Entries {
    /// What is known of an inode whose copy is another.
    pub fn find(&self, inode: u64, copy: u64) -> Option<&Known> {
        let first = self.0.partition_point(|known| known.inode < inode);
        self.0[first..]
            .iter()
            .take_while(|known| known.inode == inode)
            .find(|known| known.copy == copy && !known.refuted.load(Ordering::Relaxed))
    }
}
