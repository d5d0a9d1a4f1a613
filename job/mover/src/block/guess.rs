//! Whether to look at a destination whose content is not known before writing to it.
//!
//! A mover that was killed left a destination that is mostly equal: up to where it came, or all
//! but what changed since. Reading that is cheaper than writing it again, above all on storage
//! that keeps what is written (thin volumes, snapshots, quotas of writes). A fresh destination is
//! nowhere equal, and reading it first would make a copy cost half as much again. So: look as long
//! as what is looked at is equal; after a few units in a row that are not, look at one in many,
//! which finds the next equal stretch late by that many units at worst.

use std::sync::atomic::{AtomicU32, Ordering};

/// Units in a row that may differ before looking seems in vain.
const PATIENCE: u32 = 8;
/// After that, one unit in this many is looked at: less than 2 % more to read.
const SAMPLE: usize = 64;

pub struct Guess {
    patience: AtomicU32,
}

impl Guess {
    pub fn new() -> Self {
        Guess {
            patience: AtomicU32::new(PATIENCE),
        }
    }

    pub fn is_worth_a_look(&self, unit: usize) -> bool {
        unit.is_multiple_of(SAMPLE) || self.patience.load(Ordering::Relaxed) > 0
    }

    /// What a look has shown. Units of zeros do not count: they are equal on a fresh destination
    /// as well.
    pub fn was_equal(&self, equal: bool) {
        if equal {
            self.patience.store(PATIENCE, Ordering::Relaxed);
        } else {
            let less = |patience: u32| Some(patience.saturating_sub(1));
            let _ = self
                .patience
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many units are looked at and how many written, where `equal` says which are equal.
    fn play(units: usize, equal: impl Fn(usize) -> bool) -> (usize, usize) {
        let guess = Guess::new();
        let (mut looks, mut writes) = (0, 0);
        for unit in 0..units {
            let looked = guess.is_worth_a_look(unit);
            if looked {
                looks += 1;
                guess.was_equal(equal(unit));
            }
            writes += usize::from(!looked || !equal(unit));
        }
        (looks, writes)
    }

    #[test]
    fn a_fresh_destination_is_hardly_looked_at() {
        let (looks, writes) = play(3200, |_| false);
        assert_eq!(writes, 3200);
        assert!(looks <= 3200 / SAMPLE + PATIENCE as usize, "{looks}");
    }

    #[test]
    fn what_a_killed_mover_has_written_is_not_written_again() {
        assert_eq!(play(1000, |unit| unit < 700).1, 300);
        // Killed in a later pass: equal but for what changed since.
        assert_eq!(play(1000, |unit| unit % 10 != 3).1, 100);
    }

    #[test]
    fn an_equal_stretch_after_many_changes_is_found_soon() {
        let (_, writes) = play(1000, |unit| unit >= 100);
        assert!(writes < 100 + SAMPLE, "{writes}");
    }
}
