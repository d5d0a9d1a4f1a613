//! The content of a file: its data, and where it has none.

pub mod write;

use std::ops::Range;

use rustix::fd::BorrowedFd;

use crate::chunks::{Buffer, CHUNK_LENGTH, Chunk, PAGE, is_zero};
use crate::fault::Fault;
use crate::limiter::Limiter;
use crate::meta::Meta;
use crate::reader::{Input, Pieces, read_full};
use crate::stretches::Stretches;

/// What is compared, and written, as one where the destination is read too, in bytes.
const BLOCK: usize = 64 * 1024;
/// How much more the destination may have allocated before its holes are punched again: file
/// systems allocate in different steps.
const SLACK: u64 = 64 * 1024;
/// Up to this size, in bytes, a file that has as much allocated as it is long has no holes.
const SMALL: u64 = 64 * 1024;

/// What the destination has of a file before it is copied.
#[derive(Clone, Copy)]
pub enum Before<'a> {
    /// It was just made.
    Nothing,
    /// A copy whose chunks had these hashes.
    Copy(&'a Meta, &'a [Chunk]),
    /// Something that has to be read.
    Unknown(&'a Meta),
}

impl<'a> Before<'a> {
    fn meta(&self) -> Option<&'a Meta> {
        match self {
            Before::Nothing => None,
            Before::Copy(meta, _) | Before::Unknown(meta) => Some(meta),
        }
    }
}

/// One file's copy.
pub struct Job<'a> {
    pub from: Input<'a>,
    pub source: &'a Meta,
    pub to: BorrowedFd<'a>,
    /// The same, opened with `O_DIRECT`.
    pub to_direct: Option<BorrowedFd<'a>>,
    pub before: Before<'a>,
}

/// What makes contents equal, one for a thread.
pub struct Copier<'a> {
    limiter: &'a Limiter,
    from: Buffer,
    to: Buffer,
    pieces: Pieces,
    pub done: Done,
}

/// What a copier did, in bytes.
#[derive(Clone, Copy, Default)]
pub struct Done {
    pub read: u64,
    pub written: u64,
}

impl<'a> Copier<'a> {
    pub fn new(limiter: &'a Limiter) -> Self {
        Copier {
            limiter,
            from: Buffer::new(CHUNK_LENGTH),
            to: Buffer::new(CHUNK_LENGTH),
            pieces: Pieces::default(),
            done: Done::default(),
        }
    }

    /// Makes the content of the whole file equal and returns its chunks. What already is equal is
    /// not written.
    ///
    /// A hole is a hole afterwards. A file that has its whole size allocated has it in the
    /// destination too, also where nothing was written yet: who reserved space counts on it.
    ///
    /// `Destination(OPNOTSUPP)` if the destination has data to be taken out and its file system
    /// cannot punch holes: the file must be written anew.
    pub fn whole(&mut self, job: &Job<'_>) -> Result<Vec<Chunk>, Fault> {
        if job.before.meta().is_some() {
            job.set_size()?;
        }
        let mut chunks = Vec::new();
        let end = self.part(job, 0..job.source.size, &mut chunks)?;
        if end < job.source.size && matches!(job.before, Before::Nothing) {
            write::set_size(job.to, job.source.size)?;
        }
        Ok(chunks)
    }

    /// The same for a part that begins and ends with chunks, of a file that already has its size.
    /// Returns where its data ends.
    pub fn part(
        &mut self,
        job: &Job<'_>,
        part: Range<u64>,
        chunks: &mut Vec<Chunk>,
    ) -> Result<u64, Fault> {
        let source = job.source;
        let reserved = source.allocated >= source.size;
        let mut stretches = if reserved && source.size <= SMALL {
            Stretches::dense(job.from.file, part.clone())
        } else {
            Stretches::new(job.from.file, part.clone())
        };
        let mut holes = Vec::new();
        let mut at = part.start;
        while self
            .pieces
            .take(&mut stretches)
            .map_err(Fault::source("find its data"))?
        {
            for piece in &self.pieces.data {
                holes.push(at..piece.start);
                at = piece.end;
            }
            chunks.extend(self.chunk(job)?);
        }
        holes.push(at..part.end);
        for hole in holes.into_iter().filter(|hole| !hole.is_empty()) {
            job.hole(&hole)?;
            if reserved {
                write::reserve(job.to, &hole)?;
            }
        }
        Ok(at)
    }

    /// Copies the chunk whose pieces were found.
    fn chunk(&mut self, job: &Job<'_>) -> Result<Option<Chunk>, Fault> {
        let bytes = self.pieces.bytes();
        self.limiter.take(bytes);
        let buffer = self.from.bytes();
        if !self
            .pieces
            .read(job.from, buffer)
            .map_err(Fault::source("read it"))?
        {
            return Err(Fault::Changed("became shorter"));
        }
        self.done.read += bytes;
        let chunk = self.pieces.chunk(buffer);
        if let Before::Copy(_, known) = job.before
            && let Some(chunk) = chunk
            && known
                .binary_search_by_key(&chunk.index, |known| known.index)
                .is_ok_and(|found| known[found] == chunk)
        {
            return Ok(Some(chunk));
        }
        for piece in &self.pieces.data {
            let at = self.pieces.within(piece);
            let compare = match job.before {
                Before::Nothing => false,
                // Nothing is known of zeros but that they are zeros.
                Before::Copy(..) => is_zero(&buffer[at.clone()]),
                Before::Unknown(_) => true,
            };
            self.done.written += if compare {
                let found = &mut self.to.bytes()[at.clone()];
                let length =
                    read_full(job.to, found, piece.start).map_err(Fault::destination("read it"))?;
                job.update(&buffer[at], &found[..length], piece.start)?
            } else {
                job.write_piece(piece, at, buffer)?
            };
        }
        Ok(chunk)
    }
}

const _: () = assert!(CHUNK_LENGTH.is_multiple_of(PAGE) && CHUNK_LENGTH.is_multiple_of(BLOCK));
