//! Raw block volumes: the destination becomes the source's bytes, and zeros behind them.
//!
//! ```text
//! both opened, sizes ─> source written back ─> units copied ─> destination written back
//!                                              │                └─> units read back ─> digests
//!                                              └─ hash as known? ─ equal there? ─ zeros? ─ write
//! ```
//!
//! Nothing tells which parts of a device have changed, so each pass reads the whole source, and
//! writes what it does not find at the destination. A device that changes under a warm pass is
//! normal: a later pass finds it.

mod copy;
mod device;
mod guess;
mod units;
mod verify;

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use blake3::Hash;
use pvmigrate_record::order::{Level, What};

use crate::fault::Fault;
use crate::ledger::{Ledger, Teller};
use device::{Device, Side};
use units::{UNIT, span};

/// What is known of a destination from one pass to the next, unit by unit.
#[derive(Default)]
pub struct Known {
    /// Of source and destination: with others, nothing is known.
    sizes: (u64, u64),
    units: Vec<Unit>,
}

#[derive(Clone, Copy, Default)]
struct Unit {
    /// Of the content; none as long as that is not known.
    hash: Option<Hash>,
    /// Whether that was read from the storage since it was last written.
    proven: bool,
}

/// Called with a number of bytes before they are read from the source; returns when they may be.
pub type Take<'a> = &'a (dyn Fn(u64) + Sync);

/// How a pass works.
pub struct How<'a> {
    pub level: Level,
    pub threads: NonZeroUsize,
    pub take: Take<'a>,
}

/// Whether there are two block devices to copy; a device and a folder do not go together.
pub fn are_devices(source: &Path, destination: &Path) -> Result<bool, Fault> {
    // What is not there is for whoever opens it to tell.
    let is_device =
        |path| fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
    let refused = |device: &str, folder: &str| {
        Err(Fault::Refused(format!(
            "the {device} is a block device, the {folder} is not: both volumes need the same volumeMode"
        )))
    };
    match (is_device(source), is_device(destination)) {
        (true, false) => refused("source", "destination"),
        (false, true) => refused("destination", "source"),
        (both, _) => Ok(both),
    }
}

/// Whether both can be used, without a change to either.
pub fn check(source: &Path, destination: &Path) -> Result<(), Fault> {
    Device::open(source, Side::Source)?;
    Device::open_exclusively(destination).map(drop)
}

/// Makes the destination equal to the source, whatever it held before.
pub fn pass(
    (source, destination): (&Path, &Path),
    how: &How<'_>,
    known: &mut Known,
    what: What,
    (ledger, teller): (&Ledger, &mut Teller<'_>),
) {
    let done = (|| {
        let pair = Pair {
            source: Device::open(source, Side::Source)?,
            destination: Device::open_exclusively(destination)?,
        };
        pair.must_fit()?;
        // What an application has written and the storage has not yet is read as well.
        pair.source.write_back()?;
        pair.copy(how, known, (ledger, teller));
        if let Err(fault) = pair.destination.write_back() {
            // Which writes were lost is not told.
            *known = Known::default();
            return Err(fault);
        }
        if ledger.has_errors() || how.level == Level::None {
            return Ok(());
        }
        let verified = match (how.level, what) {
            (Level::Full, What::Final) => Some(pair.compare(how, (ledger, teller))),
            (Level::Metadata, What::Final) => Some(pair.sizes()),
            (Level::Written | Level::Full, _) => {
                let verified = pair.read_back(how, known, (ledger, teller));
                (what == What::Final).then_some(verified)
            }
            _ => None,
        };
        if let Some(verified) = verified {
            ledger.verified(verified);
        }
        Ok(())
    })();
    if let Err(fault) = done {
        ledger.fault(b"", &fault);
    }
}

/// Compares the two and changes neither.
pub fn verify(
    (source, destination): (&Path, &Path),
    how: &How<'_>,
    (ledger, teller): (&Ledger, &mut Teller<'_>),
) {
    let done = (|| {
        let pair = Pair {
            source: Device::open(source, Side::Source)?,
            destination: Device::open(destination, Side::Destination)?,
        };
        pair.must_fit()?;
        for device in [&pair.source, &pair.destination] {
            device.write_back()?;
        }
        ledger.verified(pair.compare(how, (ledger, teller)));
        Ok(())
    })();
    if let Err(fault) = done {
        ledger.fault(b"", &fault);
    }
}

struct Pair {
    source: Device,
    destination: Device,
}

impl Pair {
    fn must_fit(&self) -> Result<(), Fault> {
        let (has, needs) = (self.destination.size, self.source.size);
        if self.source.number == self.destination.number {
            return Err(Fault::Refused(
                "source and destination are the same device".into(),
            ));
        }
        if has < needs {
            return Err(Fault::Refused(format!(
                "the source has {needs} bytes, the destination only {has}: nothing was written"
            )));
        }
        Ok(())
    }

    /// Reads a unit, and zeros where the source has ended: what a larger destination held there,
    /// an old file system's second superblock for example, would mislead tools.
    fn read_source(&self, unit: usize, data: &mut [u8], take: Take<'_>) -> Result<u64, Fault> {
        let (offset, length) = span(unit, self.source.size);
        let (content, behind) = data.split_at_mut(length);
        if length > 0 {
            take(length as u64);
            self.source.read(offset, content)?;
        }
        behind.fill(0);
        Ok(length as u64)
    }
}

/// Where an error is: errors of a device have no path.
fn at(unit: usize) -> Vec<u8> {
    format!("at byte {}", unit * UNIT).into_bytes()
}
