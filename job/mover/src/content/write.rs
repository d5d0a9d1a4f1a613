//! Writing to a destination: its data, its holes, its size.

use std::ops::Range;

use rustix::fd::BorrowedFd;
use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use rustix::io::{Errno, pwrite};

use super::{BLOCK, Job, SLACK};
use crate::chunks::is_zero;
use crate::fault::Fault;
use crate::reader::whole_pages;
use crate::stretches::next_data;

impl Job<'_> {
    /// Gives an existing file its size, and gives back what is allocated beyond the end.
    pub fn set_size(&self) -> Result<(), Fault> {
        let size = self.source.size;
        let fits = self
            .before
            .meta()
            .is_some_and(|found| found.size == size && found.allocated <= size + SLACK);
        if fits {
            Ok(())
        } else {
            set_size(self.to, size)
        }
    }

    pub fn hole(&self, range: &Range<u64>) -> Result<(), Fault> {
        let Some(found) = self.before.meta() else {
            return Ok(());
        };
        let source = self.source;
        let punch_all =
            source.allocated < source.size && found.allocated > source.allocated + SLACK;
        let has_data = next_data(self.to, range.start, range.end)
            .map_err(Fault::destination("find its data"))?
            .is_some();
        if has_data || punch_all {
            fallocate(
                self.to,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                range.start,
                range.end - range.start,
            )
            .map_err(Fault::destination("punch a hole into it"))?;
        }
        Ok(())
    }

    /// Writes the blocks of `wanted` that differ from `found`, and says how many bytes that were.
    pub fn update(&self, wanted: &[u8], found: &[u8], at: u64) -> Result<u64, Fault> {
        let mut written = 0;
        for (index, block) in wanted.chunks(BLOCK).enumerate() {
            let start = index * BLOCK;
            let at = at + start as u64;
            let equal = found.get(start..start + block.len()) == Some(block);
            if !equal || (is_zero(block) && self.lacks_data(at, block.len())?) {
                written += write(self.to, block, at)?;
            }
        }
        Ok(written)
    }

    /// A hole reads like zeros that were written, yet is not the same.
    fn lacks_data(&self, at: u64, length: usize) -> Result<bool, Fault> {
        let range = at..at + length as u64;
        let data = next_data(self.to, range.start, range.end)
            .map_err(Fault::destination("find its data"))?;
        Ok(data != Some(range))
    }

    /// Writes a piece as it is, past the cache if that is how the file is open. What is written
    /// beyond the end, to fill a page, is cut off with the file's size.
    pub fn write_piece(
        &self,
        piece: &Range<u64>,
        at: Range<usize>,
        buffer: &mut [u8],
    ) -> Result<u64, Fault> {
        if let Some(direct) = self.to_direct
            && let Some(whole) = whole_pages(piece, self.source.size)
            && at.start + whole <= buffer.len()
        {
            buffer[at.end..at.start + whole].fill(0);
            match pwrite(direct, &buffer[at.start..at.start + whole], piece.start) {
                Ok(written) if written == whole => return Ok(piece.end - piece.start),
                // Buffered, which says why if that does not work either.
                Ok(_) | Err(Errno::INVAL | Errno::INTR) => {}
                Err(errno) => return Err(Fault::destination("write it")(errno)),
            }
        }
        write(self.to, &buffer[at], piece.start)
    }
}

fn write(to: BorrowedFd<'_>, bytes: &[u8], at: u64) -> Result<u64, Fault> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(to, &bytes[done..], at + done as u64) {
            Ok(0) => return Err(Fault::destination("write it")(Errno::IO)),
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Fault::destination("write it")(errno)),
        }
    }
    Ok(done as u64)
}

pub fn set_size(file: BorrowedFd<'_>, size: u64) -> Result<(), Fault> {
    ftruncate(file, size).map_err(Fault::destination("set its size"))
}

pub fn reserve(file: BorrowedFd<'_>, range: &Range<u64>) -> Result<(), Fault> {
    let length = range.end - range.start;
    match fallocate(file, FallocateFlags::KEEP_SIZE, range.start, length) {
        // A file system without reservations makes none for the application either.
        Err(Errno::OPNOTSUPP) => Ok(()),
        reserved => reserved.map_err(Fault::destination("reserve its space")),
    }
}
