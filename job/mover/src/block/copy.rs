//! The copy of a block volume: unit by unit, and nothing that is there already.

use super::guess::Guess;
use super::units::{count, each, span};
use super::{How, Known, Pair, Take, Unit, at};
use crate::chunks::{Buffer, is_zero};
use crate::fault::Fault;
use crate::ledger::{Ledger, Teller};

/// What became of a unit.
struct Copied {
    now: Unit,
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
        known.units.resize(total, Unit::default());
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
        let data = data.of(length);
        let read = self.read_source(unit, data, take)?;
        let hash = blake3::hash(data);
        let mut copied = Copied {
            now: known,
            read,
            written: 0,
            changed: false,
        };
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
        } else {
            self.destination.write(offset, data)?;
            copied.written = length as u64;
        }
        Ok(copied)
    }
}
