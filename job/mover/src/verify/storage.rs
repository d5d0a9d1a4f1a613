//! Reading content past the page cache: what counts is what the storage gives back.

use std::ffi::CStr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Advice, OFlags, fadvise};
use rustix::io::Errno;

use super::content::{PART, Reading};
use crate::AHEAD;
use crate::chunks::{Buffer, CHUNK_LENGTH, Chunk};
use crate::limiter::Limiter;
use crate::quiet::open_quietly;
use crate::reader::{Input, Pieces};
use crate::stretches::Stretches;

pub struct File {
    file: OwnedFd,
    direct: Option<OwnedFd>,
}

/// What reads, one for a thread.
pub struct Reader<'a> {
    limiter: &'a Limiter,
    buffer: Buffer,
    pieces: Pieces,
    /// Small files that are being read ahead.
    pub ahead: Vec<Arc<Reading>>,
    /// Bytes.
    pub read: u64,
}

impl<'a> Reader<'a> {
    pub fn new(limiter: &'a Limiter) -> Self {
        Reader {
            limiter,
            buffer: Buffer::new(CHUNK_LENGTH),
            pieces: Pieces::default(),
            ahead: Vec::new(),
            read: 0,
        }
    }

    /// The chunks of a part of a file that begins with one.
    pub fn chunks(
        &mut self,
        from: Input<'_>,
        allocated: u64,
        part: Range<u64>,
    ) -> Result<Vec<Chunk>, Errno> {
        let mut chunks = Vec::new();
        // The map before the reading: XFS takes reserved space for data once it is in the cache.
        let mut stretches = if allocated >= from.size {
            Stretches::dense(from.file, part.clone())
        } else {
            Stretches::new(from.file, part.clone())
        };
        while self.pieces.take(&mut stretches)? {
            chunks.extend(self.chunk(from)?);
        }
        Ok(chunks)
    }

    fn chunk(&mut self, from: Input<'_>) -> Result<Option<Chunk>, Errno> {
        let bytes = self.pieces.bytes();
        self.limiter.take(bytes);
        self.read += bytes;
        let buffer = self.buffer.bytes();
        // One that ends early has another size by now, or is read with what was there before:
        // either way its hash is another.
        if !self.pieces.read(from, buffer)? {
            buffer.fill(0xff);
        }
        Ok(self.pieces.chunk(buffer))
    }
}

impl File {
    pub fn open(tree: BorrowedFd<'_>, name: &CStr, size: u64) -> Result<Self, Errno> {
        let file = open_quietly(tree, name, OFlags::RDONLY)?;
        // What counts is what the storage gives back, not what the page cache still has.
        let direct = if size >= PART {
            open_quietly(tree, name, OFlags::RDONLY | OFlags::DIRECT).ok()
        } else {
            None
        };
        if direct.is_none() {
            fadvise(&file, 0, None, Advice::DontNeed)?;
            fadvise(&file, 0, NonZeroU64::new(AHEAD), Advice::WillNeed)?;
        }
        Ok(File { file, direct })
    }

    pub fn input(&self, size: u64) -> Input<'_> {
        Input {
            file: self.file.as_fd(),
            direct: self.direct.as_ref().map(AsFd::as_fd),
            size,
        }
    }
}
