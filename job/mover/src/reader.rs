//! Reading one chunk of a file: only where it has data, and past the page cache where asked.

use std::ops::Range;

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, pread};

use crate::chunks::{self, CHUNK, Chunk, PAGE};
use crate::stretches::Stretches;

/// The pieces of data of one chunk, each as where it is in the file.
#[derive(Default)]
pub struct Pieces {
    pub index: u64,
    pub data: Vec<Range<u64>>,
    /// The same within the chunk, widened to pages: what is hashed.
    pages: Vec<Range<usize>>,
}

/// A file that is read.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub file: BorrowedFd<'a>,
    /// The same, opened with `O_DIRECT`.
    pub direct: Option<BorrowedFd<'a>>,
    /// Bytes.
    pub size: u64,
}

impl Pieces {
    /// Takes the data of the next chunk that has any. False if there is none.
    pub fn take(&mut self, stretches: &mut Stretches<'_>) -> Result<bool, Errno> {
        self.data.clear();
        while let Some(data) = stretches.next()? {
            let index = data.start / CHUNK;
            if self.data.is_empty() {
                self.index = index;
            } else if index != self.index {
                stretches.put_back(data);
                break;
            }
            let end = data.end.min((index + 1) * CHUNK);
            self.data.push(data.start..end);
            if end < data.end {
                stretches.put_back(end..data.end);
                break;
            }
        }
        Ok(!self.data.is_empty())
    }

    /// How many bytes of data it has.
    pub fn bytes(&self) -> u64 {
        self.data.iter().map(|piece| piece.end - piece.start).sum()
    }

    /// Where the chunk begins in the file.
    pub fn start(&self) -> u64 {
        self.index * CHUNK
    }

    /// Where a piece is in the chunk.
    pub fn within(&self, piece: &Range<u64>) -> Range<usize> {
        let offset = |at: u64| usize::try_from(at - self.start()).unwrap_or(usize::MAX);
        offset(piece.start)..offset(piece.end)
    }

    /// Fills the buffer with the pieces, and the pages they are in with zeros around them.
    /// False if the file ends before they do.
    pub fn read(&mut self, from: Input<'_>, buffer: &mut [u8]) -> Result<bool, Errno> {
        self.pages.clear();
        let length = usize::try_from(from.size - self.start())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        for index in 0..self.data.len() {
            let piece = self.data[index].clone();
            let at = self.within(&piece);
            let page = at.start / PAGE * PAGE..at.end.next_multiple_of(PAGE).min(length);
            match self.pages.last_mut() {
                // The gap between two pieces in one page is filled below.
                Some(last) if last.end > page.start => last.end = page.end,
                _ => {
                    buffer[page.start..at.start].fill(0);
                    self.pages.push(page.clone());
                }
            }
            // Up to the next piece, should that be in the same page.
            let next = self
                .data
                .get(index + 1)
                .map_or(page.end, |next| self.within(next).start.min(page.end));
            if !read_piece(from, piece, at.clone(), buffer)? {
                return Ok(false);
            }
            buffer[at.end..next].fill(0);
        }
        Ok(true)
    }

    /// The chunk that was read; none if it is all zeros.
    pub fn chunk(&self, buffer: &[u8]) -> Option<Chunk> {
        chunks::hash(buffer, &self.pages).map(|hash| Chunk {
            index: self.index,
            hash,
        })
    }
}

fn read_piece(
    from: Input<'_>,
    piece: Range<u64>,
    at: Range<usize>,
    buffer: &mut [u8],
) -> Result<bool, Errno> {
    let wanted = at.len();
    if let Some(direct) = from.direct
        && let Some(whole) = whole_pages(&piece, from.size)
    {
        let end = (at.start + whole).min(buffer.len());
        match read_full(direct, &mut buffer[at.start..end], piece.start) {
            // Devices with larger blocks, or pieces of a tail.
            Err(Errno::INVAL) => {}
            read => return Ok(read? >= wanted),
        }
    }
    Ok(read_full(from.file, &mut buffer[at], piece.start)? >= wanted)
}

/// The length of a piece in whole pages, if `O_DIRECT` takes it: its last one may lie beyond the
/// end of the file.
pub fn whole_pages(piece: &Range<u64>, size: u64) -> Option<usize> {
    let page = PAGE as u64;
    let ends_well = piece.end.is_multiple_of(page) || piece.end == size;
    (piece.start.is_multiple_of(page) && ends_well)
        .then(|| usize::try_from((piece.end - piece.start).next_multiple_of(page)).ok())
        .flatten()
}

/// Reads until the buffer is full or the file ends.
pub fn read_full(file: BorrowedFd<'_>, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match pread(file, &mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}
