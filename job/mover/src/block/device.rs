//! A block device: opened past the page cache where it lets itself be, read, written and zeroed.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use rustix::fs::{Advice, FallocateFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, retry_on_intr};

use crate::fault::Fault;

/// Ways to make zeros, the cheapest first. A punched hole reads as zeros and gives its space back;
/// where that is not to be had, `ZERO_RANGE` lets the device, or else the kernel, write them.
const WAYS: [FallocateFlags; 2] = [
    FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE),
    FallocateFlags::ZERO_RANGE.union(FallocateFlags::KEEP_SIZE),
];

/// How long a device may stay in use by a mover that was killed: its last requests have to end
/// first. What looks at new devices on its own, udev for example, is through sooner.
const LET_GO: Duration = Duration::from_secs(5);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

pub struct Device {
    fd: OwnedFd,
    side: Side,
    pub size: u64,
    /// Which device it is, whatever its name.
    pub number: u64,
    /// Whether what is read comes from the storage, and never from the page cache.
    pub is_direct: bool,
    /// The first of [`WAYS`] that was not refused yet.
    way: AtomicUsize,
}

impl Device {
    /// Read-only.
    pub fn open(path: &Path, side: Side) -> Result<Self, Fault> {
        Self::open_with(path, side, OFlags::RDONLY)
    }

    /// For writing, and for this alone: a device that is mounted, or held by another program that
    /// says so, is refused.
    pub fn open_exclusively(path: &Path) -> Result<Self, Fault> {
        Self::open_with(path, Side::Destination, OFlags::RDWR | OFlags::EXCL)
    }

    fn open_with(path: &Path, side: Side, access: OFlags) -> Result<Self, Fault> {
        let open = |more: OFlags| {
            let flags = access | more | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let begun = Instant::now();
            loop {
                match retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())) {
                    Err(Errno::BUSY) if begun.elapsed() < LET_GO => sleep(BETWEEN_TRIES),
                    opened => return opened,
                }
            }
        };
        let (opened, is_direct) = match open(OFlags::DIRECT) {
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (open(OFlags::empty()), false),
            opened => (opened, true),
        };
        let fault = |doing: &str, errno| side.fault(doing, errno);
        let fd = opened.map_err(|errno| match errno {
            Errno::BUSY => Fault::Refused(format!(
                "{} is in use: it is mounted, or another program holds it",
                side.name()
            )),
            errno => fault("open it", errno),
        })?;
        let found = rustix::fs::fstat(&fd).map_err(|errno| fault("look at it", errno))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::BlockDevice {
            return Err(Fault::Refused(format!(
                "{} is not a block device",
                side.name()
            )));
        }
        let end = rustix::fs::seek(&fd, SeekFrom::End(0))
            .map_err(|errno| fault("learn its size", errno))?;
        Ok(Device {
            fd,
            side,
            size: end,
            number: found.st_rdev,
            is_direct,
            way: AtomicUsize::new(0),
        })
    }

    /// Fills the buffer from this offset.
    pub fn read(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), Fault> {
        while !buffer.is_empty() {
            let read = retry_on_intr(|| rustix::io::pread(&self.fd, &mut *buffer, offset))
                .map_err(|errno| self.side.fault("read it", errno))?;
            if read == 0 {
                return Err(Fault::Refused(format!(
                    "{} ends here, and had {} bytes when it was opened",
                    self.side.name(),
                    self.size
                )));
            }
            buffer = &mut buffer[read..];
            offset += read as u64;
        }
        Ok(())
    }

    pub fn write(&self, mut offset: u64, mut data: &[u8]) -> Result<(), Fault> {
        while !data.is_empty() {
            let written = retry_on_intr(|| rustix::io::pwrite(&self.fd, data, offset))
                .map_err(|errno| self.side.fault("write to it", errno))?;
            data = &data[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Makes a range zero, and says how many bytes had to be written for it. `zeros` is as long as
    /// the range. A way that fails, for whatever reason, is not tried again: the last one, which
    /// writes, tells what is really wrong.
    pub fn zero(&self, offset: u64, zeros: &[u8]) -> Result<u64, Fault> {
        let length = zeros.len() as u64;
        let first = self.way.load(Ordering::Relaxed);
        for (number, way) in WAYS.iter().enumerate().skip(first) {
            match retry_on_intr(|| rustix::fs::fallocate(&self.fd, *way, offset, length)) {
                Ok(()) => return Ok(0),
                Err(_) => self.way.fetch_max(number + 1, Ordering::Relaxed),
            };
        }
        self.write(offset, zeros)?;
        Ok(length)
    }

    /// Brings to the storage what was written, by whomever, and learns of writes that were lost.
    pub fn write_back(&self) -> Result<(), Fault> {
        retry_on_intr(|| rustix::fs::fsync(&self.fd))
            .map_err(|errno| self.side.fault("write it back", errno))
    }

    /// What is read from here on comes from the storage. Best effort where the device is read
    /// through the page cache: what another program holds in memory stays there.
    pub fn drop_cache(&self) {
        if !self.is_direct {
            let _ = rustix::fs::fadvise(&self.fd, 0, None, Advice::DontNeed);
        }
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Source => "the source",
            Side::Destination => "the destination",
        }
    }

    fn fault(self, doing: &str, errno: Errno) -> Fault {
        let doing = doing.to_owned();
        match self {
            Side::Source => Fault::Source { doing, errno },
            Side::Destination => Fault::Destination { doing, errno },
        }
    }
}
