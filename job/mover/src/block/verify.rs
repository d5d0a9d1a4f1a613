//! Proof that a block volume was copied: what the storage holds, read from there.

use blake3::{Hash, Hasher};
use pvmigrate_record::order::{Level, Verified};

use super::units::{count, each, span};
use super::{How, Known, Pair, at};
use crate::fault::Fault;
use crate::ledger::{Ledger, Teller};

/// What every level is told by: the same where both sides are equal.
#[derive(Default)]
struct Digests {
    source: Hasher,
    destination: Hasher,
}

impl Digests {
    fn add(&mut self, source: &[u8], destination: &[u8]) {
        self.source.update(source);
        self.destination.update(destination);
    }

    fn verified(&self, level: Level, bytes: u64) -> Verified {
        Verified {
            level,
            entries: 1,
            bytes,
            source_digest: self.source.finalize().to_hex().to_string(),
            destination_digest: self.destination.finalize().to_hex().to_string(),
        }
    }
}

impl Pair {
    /// The sizes, which were found to fit: all the metadata that a device has.
    pub(super) fn sizes(&self) -> Verified {
        let mut digests = Digests::default();
        let size = self.source.size.to_le_bytes();
        digests.add(&size, &size);
        digests.verified(Level::Metadata, 0)
    }

    /// Reads back what was written since it was last proven, and compares it with the hash that
    /// was taken while it was copied. What is not equal will be copied again.
    pub(super) fn read_back(
        &self,
        how: &How<'_>,
        known: &mut Known,
        (ledger, teller): (&Ledger, &mut Teller<'_>),
    ) -> Verified {
        self.destination.drop_cache();
        let wanted: Vec<Option<Hash>> = known.units.iter().map(|unit| unit.hash).collect();
        let unproven: Vec<usize> = (0..wanted.len())
            .filter(|unit| !known.units[*unit].proven)
            .collect();
        let mut found = wanted.clone();
        let mut bytes = 0;
        each(
            unproven.into_iter(),
            how.threads,
            |unit, [data, _]| {
                let (offset, length) = span(unit, self.destination.size);
                let data = data.of(length);
                self.destination.read(offset, data)?;
                Ok::<_, Fault>((blake3::hash(data), length as u64))
            },
            |unit, result| {
                let read = result.and_then(|(hash, length)| {
                    bytes += length;
                    ledger.bytes(length);
                    teller.tell(ledger);
                    found[unit] = Some(hash);
                    if wanted[unit] != Some(hash) {
                        return Err(differs());
                    }
                    Ok(())
                });
                known.units[unit].proven = read.is_ok();
                if let Err(fault) = read {
                    known.units[unit].hash = None;
                    ledger.fault(&at(unit), &fault);
                }
                true
            },
        );
        let mut digests = Digests::default();
        for (wanted, found) in wanted.iter().zip(&found) {
            let [wanted, found] =
                [wanted, found].map(|hash| hash.as_ref().map_or(&[][..], |hash| hash.as_bytes()));
            digests.add(wanted, found);
        }
        digests.verified(Level::Written, bytes)
    }

    /// Reads all of both sides.
    pub(super) fn compare(
        &self,
        how: &How<'_>,
        (ledger, teller): (&Ledger, &mut Teller<'_>),
    ) -> Verified {
        self.source.drop_cache();
        self.destination.drop_cache();
        let total = count(self.destination.size);
        let mut found = vec![None; total];
        let mut bytes = 0;
        each(
            0..total,
            how.threads,
            |unit, [here, there]| {
                let (offset, length) = span(unit, self.destination.size);
                let here = here.of(length);
                self.read_source(unit, here, how.take)?;
                let there = there.of(length);
                self.destination.read(offset, there)?;
                Ok::<_, Fault>((blake3::hash(here), blake3::hash(there), length as u64))
            },
            |unit, result| {
                match result {
                    Ok((here, there, length)) => {
                        bytes += length;
                        ledger.bytes(length);
                        teller.tell(ledger);
                        found[unit] = Some((here, there));
                        if here != there {
                            ledger.fault(&at(unit), &differs());
                        }
                    }
                    Err(fault) => ledger.fault(&at(unit), &fault),
                }
                true
            },
        );
        let mut digests = Digests::default();
        for (here, there) in found.iter().flatten() {
            digests.add(here.as_bytes(), there.as_bytes());
        }
        digests.verified(Level::Full, bytes)
    }
}

fn differs() -> Fault {
    Fault::Refused("the content differs".into())
}
