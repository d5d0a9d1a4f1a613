//! The copy of a block volume: unit by unit, and nothing that is there already.

use std::time::{Duration, Instant};

use super::guess::Guess;
use super::units::{count, each, span};
use super::{How, Known, Pair, Take, Unit, at};
use crate::chunks::{Buffer, is_zero};
use crate::fault::Fault;
use crate::ledger::{Ledger, Teller};

/// Bytes. What is written as one in a unit that has changed.
const PIECE: usize = 64 * 1024;

/// What became of a unit.
struct Copied {
    now: Unit,
    /// For reading the source: what the next pass takes at least.
    looked: Duration,
    read: u64,
    written: u64,
    changed: bool,
}

impl Pair {
    pub(super) fn copy(
        &self,
        how: &How<'_>,
        known: &mut Known,
        (ledger, teller): (&Ledger, &mut Teller<'_>),
    ) {
        ledger.entry();
        let total = count(self.destination.size);
        let sizes = (self.source.size, self.destination.size);
        if known.sizes != sizes {
            // The first pass, or one after which a volume was expanded.
            *known = Known {
                sizes,
                units: vec![Unit::default(); total],
            };
        }
        let before = known.units.clone();
        let guess = Guess::new();
        each(
            0..total,
            how.threads,
            |unit, buffers| self.copy_unit(unit, before[unit], buffers, &guess, how.take),
            |unit, result| {
                match result {
                    Ok(copied) => {
                        known.units[unit] = copied.now;
                        ledger.count(|totals| {
                            totals.read += copied.read;
                            totals.bytes += copied.written;
                            totals.changed += u64::from(copied.changed);
                        });
                        ledger.looked(copied.looked);
                        ledger.bytes(copied.read);
                        teller.tell(ledger);
                    }
                    Err(fault) => {
                        known.units[unit] = Unit::default();
                        ledger.fault(&at(unit), &fault);
                    }
                }
                !ledger.must_stop()
            },
        );
    }

    fn copy_unit(
        &self,
        unit: usize,
        known: Unit,
        [data, there]: &mut [Buffer; 2],
        guess: &Guess,
        take: Take<'_>,
    ) -> Result<Copied, Fault> {
        let (offset, length) = span(unit, self.destination.size);
        let mut copied = Copied {
            now: known,
            looked: Duration::ZERO,
            read: 0,
            written: 0,
            changed: false,
        };
        if known.hash.is_some() && offset >= self.source.size {
            // Zeros behind the source, made by an earlier pass.
            return Ok(copied);
        }
        let began = Instant::now();
        let data = data.of(length);
        copied.read = self.read_source(unit, data, take)?;
        let hash = blake3::hash(data);
        copied.looked = began.elapsed();
        if known.hash == Some(hash) {
            return Ok(copied);
        }
        let zeros = is_zero(data);
        if known.hash.is_none() && guess.is_worth_a_look(unit) {
            let there = there.of(length);
            self.destination.read(offset, there)?;
            let equal = data == there;
            if !zeros {
                guess.was_equal(equal);
            }
            if equal {
                copied.now = Unit {
                    hash: Some(hash),
                    proven: self.destination.is_direct,
                };
                return Ok(copied);
            }
        }
        copied.changed = true;
        copied.now = Unit {
            hash: Some(hash),
            proven: false,
        };
        if zeros {
            copied.written = self.destination.zero(offset, data)?;
        } else if known.hash.is_some() {
            // An earlier copy, of which an application has changed a part.
            let there = there.of(length);
            self.destination.read(offset, there)?;
            for (index, piece) in data.chunks(PIECE).enumerate() {
                let start = index * PIECE;
                if piece != &there[start..start + piece.len()] {
                    self.destination.write(offset + start as u64, piece)?;
                    copied.written += piece.len() as u64;
                }
            }
        } else {
            self.destination.write(offset, data)?;
            copied.written = length as u64;
        }
        Ok(copied)
    }
}
