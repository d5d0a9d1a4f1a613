//! The content of a file: its data, and where it has none.

use std::ops::Range;

use rustix::fd::BorrowedFd;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, ftruncate, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::fault::Fault;
use crate::meta::Meta;

/// What is read at once, in bytes.
const CHUNK: usize = 1024 * 1024;
/// What is compared, and written, as one, in bytes.
const BLOCK: usize = 64 * 1024;
/// How many stretches of data are looked up at once: a bound on memory.
const STRETCHES: usize = 4096;
/// How much more the destination may have allocated before its holes are punched again: file
/// systems allocate in different steps.
const SLACK: u64 = 64 * 1024;

/// What makes one file's content equal another's.
pub struct Copier {
    from: Vec<u8>,
    to: Vec<u8>,
}

/// One file's copy under way.
struct Job<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    /// What the destination had before; none for a file that was just made.
    existing: Option<&'a Meta>,
    /// Allocated where there is no data.
    punch_all: bool,
    written: u64,
}

impl Copier {
    pub fn new() -> Self {
        Copier {
            from: vec![0; CHUNK],
            to: vec![0; CHUNK],
        }
    }

    /// Makes the content of `to` that of `from`, and says how many bytes were written. What
    /// already is equal is not written. `looked_at` is told the bytes as they are read.
    ///
    /// A hole is a hole afterwards. A file that has its whole size allocated has it in the
    /// destination too, also where nothing was written yet: who reserved space counts on it.
    ///
    /// `Destination(OPNOTSUPP)` if `to` has data to be taken out and its file system cannot punch
    /// holes: the file must be written anew.
    pub fn copy(
        &mut self,
        (from, source): (BorrowedFd<'_>, &Meta),
        (to, existing): (BorrowedFd<'_>, Option<&Meta>),
        looked_at: &mut dyn FnMut(u64),
    ) -> Result<u64, Fault> {
        let size = source.size;
        let reserved = source.allocated >= size;
        let mut job = Job {
            from,
            to,
            existing,
            punch_all: existing
                .is_some_and(|found| !reserved && found.allocated > source.allocated + SLACK),
            written: 0,
        };
        if let Some(found) = existing
            && (found.size != size || found.allocated > size + SLACK)
        {
            // To the same size too: that gives back what is allocated beyond the end.
            set_size(to, size)?;
        }
        let mut holes = Vec::new();
        let mut at = 0;
        loop {
            let stretches = stretches(from, at, size).map_err(Fault::source("find its data"))?;
            if stretches.is_empty() {
                break;
            }
            for data in stretches {
                job.hole(at..data.start)?;
                if reserved && data.start > at {
                    holes.push(at..data.start);
                }
                at = data.end;
                self.data(&mut job, data, looked_at)?;
            }
        }
        if at < size {
            job.hole(at..size)?;
            if reserved {
                holes.push(at..size);
            }
            if existing.is_none() {
                set_size(to, size)?;
            }
        }
        for hole in holes {
            reserve(to, &hole)?;
        }
        Ok(job.written)
    }

    fn data(
        &mut self,
        job: &mut Job<'_>,
        range: Range<u64>,
        looked_at: &mut dyn FnMut(u64),
    ) -> Result<(), Fault> {
        let mut at = range.start;
        while at < range.end {
            let wanted = usize::try_from(range.end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let length = read_full(job.from, &mut self.from[..wanted], at)
                .map_err(Fault::source("read it"))?;
            if length < wanted {
                return Err(Fault::Changed("became shorter"));
            }
            let from = &self.from[..length];
            if job.existing.is_some() {
                let to = &mut self.to[..length];
                let found = read_full(job.to, to, at).map_err(Fault::destination("read it"))?;
                job.update(from, &to[..found], at)?;
            } else {
                job.write(from, at)?;
            }
            at += length as u64;
            looked_at(length as u64);
        }
        Ok(())
    }
}

impl Job<'_> {
    fn hole(&self, range: Range<u64>) -> Result<(), Fault> {
        if self.existing.is_none() || range.is_empty() {
            return Ok(());
        }
        let has_data = next_data(self.to, range.start, range.end)
            .map_err(Fault::destination("find its data"))?
            .is_some();
        if has_data || self.punch_all {
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

    /// Writes the blocks of `wanted` that differ from `found`.
    fn update(&mut self, wanted: &[u8], found: &[u8], at: u64) -> Result<(), Fault> {
        for (index, block) in wanted.chunks(BLOCK).enumerate() {
            let start = index * BLOCK;
            let at = at + start as u64;
            let equal = found.get(start..start + block.len()) == Some(block);
            if !equal || (is_zero(block) && self.lacks_data(at, block.len())?) {
                self.write(block, at)?;
            }
        }
        Ok(())
    }

    /// A hole reads like zeros that were written, yet is not the same.
    fn lacks_data(&self, at: u64, length: usize) -> Result<bool, Fault> {
        let range = at..at + length as u64;
        let data = next_data(self.to, range.start, range.end)
            .map_err(Fault::destination("find its data"))?;
        Ok(data != Some(range))
    }

    fn write(&mut self, bytes: &[u8], at: u64) -> Result<(), Fault> {
        let mut done = 0;
        while done < bytes.len() {
            match pwrite(self.to, &bytes[done..], at + done as u64) {
                Ok(0) => return Err(Fault::destination("write it")(Errno::IO)),
                Ok(length) => done += length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Fault::destination("write it")(errno)),
            }
        }
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn set_size(file: BorrowedFd<'_>, size: u64) -> Result<(), Fault> {
    ftruncate(file, size).map_err(Fault::destination("set its size"))
}

fn reserve(file: BorrowedFd<'_>, range: &Range<u64>) -> Result<(), Fault> {
    let length = range.end - range.start;
    match fallocate(file, FallocateFlags::KEEP_SIZE, range.start, length) {
        // A file system without reservations makes none for the application either.
        Err(Errno::OPNOTSUPP) => Ok(()),
        reserved => reserved.map_err(Fault::destination("reserve its space")),
    }
}

/// The next stretches of data in `from..end`, none if there are no more. Many at once, and before
/// any of them is read: on XFS what was only reserved looks like data once it is in the cache.
fn stretches(file: BorrowedFd<'_>, mut from: u64, end: u64) -> Result<Vec<Range<u64>>, Errno> {
    let mut found = Vec::new();
    while found.len() < STRETCHES
        && let Some(data) = next_data(file, from, end)?
    {
        from = data.end;
        found.push(data);
    }
    Ok(found)
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

pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}
