//! Where a file has data.

use std::collections::VecDeque;
use std::ops::Range;

use rustix::fd::BorrowedFd;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// How many stretches are looked up at once: a bound on memory.
const AT_ONCE: usize = 4096;

/// The stretches of data in a part of a file. Many are looked up at once, and before any of them
/// is read: on XFS what was only reserved looks like data once it is in the cache.
pub struct Stretches<'a> {
    file: BorrowedFd<'a>,
    at: u64,
    end: u64,
    found: VecDeque<Range<u64>>,
}

impl<'a> Stretches<'a> {
    pub fn new(file: BorrowedFd<'a>, part: Range<u64>) -> Self {
        Stretches {
            file,
            at: part.start,
            end: part.end,
            found: VecDeque::new(),
        }
    }

    /// Of what is known to have no holes.
    pub fn dense(file: BorrowedFd<'a>, part: Range<u64>) -> Self {
        let mut stretches = Self::new(file, part.end..part.end);
        if !part.is_empty() {
            stretches.found.push_back(part);
        }
        stretches
    }

    /// What was taken comes next once more.
    pub fn put_back(&mut self, stretch: Range<u64>) {
        self.found.push_front(stretch);
    }

    pub fn next(&mut self) -> Result<Option<Range<u64>>, Errno> {
        if self.found.is_empty() {
            while self.found.len() < AT_ONCE
                && let Some(data) = next_data(self.file, self.at, self.end)?
            {
                self.at = data.end;
                self.found.push_back(data);
            }
        }
        Ok(self.found.pop_front())
    }
}

/// The next stretch of data in `from..end`. A file system that does not tell holes has none.
pub fn next_data(file: BorrowedFd<'_>, from: u64, end: u64) -> Result<Option<Range<u64>>, Errno> {
    if from >= end {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(from)) {
        Ok(start) if start >= end => return Ok(None),
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => from,
        Err(errno) => return Err(errno),
    };
    let hole = match seek(file, SeekFrom::Hole(start)) {
        // The file changed between the two calls, or they are not supported: all of it is read.
        Ok(hole) if hole <= start => end,
        Ok(hole) => hole.min(end),
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => end,
        Err(errno) => return Err(errno),
    };
    Ok(Some(start..hole))
}
