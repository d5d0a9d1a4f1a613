//! Content as a list of hashes.
//!
//! Content is divided into chunks. A chunk's hash is taken over its runs of pages that are not
//! all zeros, so it does not depend on where the holes are, and a chunk of zeros has none.

use std::ops::Range;

use blake3::{Hash, Hasher};

/// Bytes. What is read, written and hashed as one.
pub const CHUNK: u64 = 1024 * 1024;
/// The same for a buffer.
pub const CHUNK_LENGTH: usize = 1024 * 1024;
/// Bytes. What is looked at for zeros.
pub const PAGE: usize = 4096;
/// What `O_DIRECT` asks of a buffer's place in memory, at most.
const ALIGNMENT: usize = 4096;

static ZEROS: [u8; PAGE] = [0; PAGE];

/// One chunk that is not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub index: u64,
    pub hash: Hash,
}

pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PAGE).all(|page| page == &ZEROS[..page.len()])
}

/// The hash of a chunk whose bytes outside of `stretches` are zeros; none if all of them are.
/// The stretches are in order, begin at a page, and end at one or at the content's end.
pub fn hash(chunk: &[u8], stretches: &[Range<usize>]) -> Option<Hash> {
    let mut hasher: Option<Hasher> = None;
    let mut run: Option<Range<usize>> = None;
    let mut add = |run: Range<usize>| {
        let hasher = hasher.get_or_insert_default();
        hasher.update(&(run.start as u64).to_le_bytes());
        hasher.update(&(run.len() as u64).to_le_bytes());
        hasher.update(&chunk[run]);
    };
    for stretch in stretches {
        let mut at = stretch.start;
        while at < stretch.end {
            let end = (at + PAGE).min(stretch.end);
            if !is_zero(&chunk[at..end]) {
                match &mut run {
                    Some(run) if run.end == at => run.end = end,
                    _ => {
                        if let Some(run) = run.replace(at..end) {
                            add(run);
                        }
                    }
                }
            }
            at = end;
        }
    }
    if let Some(run) = run {
        add(run);
    }
    hasher.map(|hasher| hasher.finalize())
}

/// A buffer for one chunk, at a place that `O_DIRECT` takes.
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn new(length: usize) -> Self {
        let memory = vec![0; length + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Buffer { memory, start }
    }

    /// As much of it as is asked for.
    pub fn of(&mut self, length: usize) -> &mut [u8] {
        &mut self.memory[self.start..self.start + length]
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        let end = self.memory.len() - (ALIGNMENT - self.start);
        &mut self.memory[self.start..end]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init)] // A file may well have one stretch of data.

    use super::*;

    #[test]
    fn a_hash_does_not_depend_on_where_the_holes_are() {
        let mut chunk = vec![0; 5 * PAGE];
        chunk[PAGE + 7] = 1;
        chunk[3 * PAGE] = 2;
        let whole = hash(&chunk, &[0..5 * PAGE]);
        assert!(whole.is_some());
        assert_eq!(whole, hash(&chunk, &[PAGE..2 * PAGE, 3 * PAGE..4 * PAGE]));
        assert_eq!(whole, hash(&chunk, &[0..2 * PAGE, 2 * PAGE..4 * PAGE]));
        assert_eq!(whole, hash(&chunk[..4 * PAGE], &[PAGE..4 * PAGE]));
        chunk.swap(3 * PAGE, 4 * PAGE);
        assert_ne!(whole, hash(&chunk, &[0..5 * PAGE]));
    }

    #[test]
    fn zeros_have_no_hash() {
        assert_eq!(hash(&[0; 3 * PAGE], &[0..3 * PAGE]), None);
        assert_eq!(hash(&[], &[]), None);
        assert!(is_zero(&[]) && is_zero(&[0; PAGE + 1]));
        let mut last = [0; PAGE + 1];
        last[PAGE] = 1;
        assert!(!is_zero(&last));
    }

    #[test]
    fn a_buffer_is_aligned_and_whole() {
        let mut buffer = Buffer::new(CHUNK_LENGTH);
        assert_eq!(buffer.bytes().len(), CHUNK_LENGTH);
        assert_eq!(buffer.bytes().as_ptr().align_offset(ALIGNMENT), 0);
    }
}
