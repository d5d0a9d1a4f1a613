//! The units that a device is copied by, and the threads that share them.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use crate::chunks::Buffer;
use crate::lock::lock;

/// Large enough for a network volume to reach its throughput, small enough to be written for one
/// changed byte.
pub const UNIT: usize = 4 << 20;
/// Where a unit begins, and how long it is on a device of this size.
pub fn span(unit: usize, size: u64) -> (u64, usize) {
    let offset = unit as u64 * UNIT as u64;
    let rest = size.saturating_sub(offset);
    (offset, usize::try_from(rest).map_or(UNIT, |r| r.min(UNIT)))
}

pub fn count(size: u64) -> usize {
    usize::try_from(size.div_ceil(UNIT as u64)).unwrap_or(usize::MAX)
}

/// Does `work` for each unit, in their order, on several threads with two buffers each; what it
/// returns goes to `done`, on this thread and in any order. No unit is begun after `done` has said
/// no.
pub fn each<T: Send>(
    units: impl Iterator<Item = usize> + Send,
    threads: NonZeroUsize,
    work: impl Fn(usize, &mut [Buffer; 2]) -> T + Sync,
    mut done: impl FnMut(usize, T) -> bool,
) {
    let units = Mutex::new(units.fuse());
    let stop = AtomicBool::new(false);
    let next = || {
        let mut units = lock(&units);
        units.next().filter(|_| !stop.load(Ordering::Relaxed))
    };
    let (say, hear) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.get() {
            let (say, next, work) = (say.clone(), &next, &work);
            scope.spawn(move || {
                let mut buffers = [Buffer::new(UNIT), Buffer::new(UNIT)];
                while let Some(unit) = next() {
                    if say.send((unit, work(unit, &mut buffers))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(say);
        for (unit, result) in hear {
            if !done(unit, result) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_unit_ends_where_the_device_does() {
        let size = 2 * UNIT as u64 + 512;
        assert_eq!(count(size), 3);
        assert_eq!(span(1, size), (UNIT as u64, UNIT));
        assert_eq!(span(2, size), (2 * UNIT as u64, 512));
        assert_eq!(span(3, size).1, 0);
        assert_eq!(count(0), 0);
    }

    #[test]
    fn every_unit_is_done_once_and_none_after_a_no() {
        let threads = NonZeroUsize::new(4).unwrap();
        let mut seen = Vec::new();
        each(
            0..100,
            threads,
            |unit, _| unit * 2,
            |unit, double| {
                assert_eq!(unit * 2, double);
                seen.push(unit);
                true
            },
        );
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..100));

        let mut after = 0;
        each(
            0..1_000_000,
            threads,
            |_, _| (),
            |_, ()| {
                after += 1;
                false
            },
        );
        assert!(after < 1_000_000, "{after}");
    }
}
