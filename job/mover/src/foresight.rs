//! What the next pass will take, and whether another warm one is worth it.

use std::time::{Duration, Instant};

use pvmigrate_record::order::{PassReport, What};

/// A warm pass is the last one if it takes no longer than this, in seconds: nobody notices the
/// final one.
const SHORT: f64 = 0.05;
/// Warm passes go on while each has to read less than this part, in tenths, of what the one before
/// it did.
const SHRINKS: u128 = 7;
/// How many warm passes there are at most.
const MOST: u32 = 10;

/// The pass before.
#[derive(Default)]
pub struct Foresight {
    last: Option<Last>,
}

struct Last {
    began: Instant,
    /// Bytes of the source.
    read: u64,
}

impl Foresight {
    /// Completes the report of a pass that began then, and spent so long on looking for changes.
    ///
    /// The next pass looks at all entries too, and reads what changes while this one runs: as much
    /// as changed before this one, for the time that each of them had.
    pub fn complete(
        &mut self,
        report: &mut PassReport,
        what: What,
        began: Instant,
        looking: Duration,
    ) {
        let looking = looking.as_secs_f64();
        let working = (report.seconds - looking).max(0.0);
        let read = report.totals.read;
        let (changes, shrinks) = match &self.last {
            None => (0.0, true),
            Some(last) => {
                let interval = began.duration_since(last.began).as_secs_f64();
                let shrinks = u128::from(read) * 10 < u128::from(last.read) * SHRINKS;
                (working * (report.seconds / interval).min(1.0), shrinks)
            }
        };
        report.next_seconds = Some(looking + changes);
        report.settled = what == What::Warm
            && (report.seconds < SHORT || !shrinks || read == 0 || report.pass >= MOST);
        self.last = Some(Last { began, read });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_passes_end_when_what_they_read_no_longer_shrinks() {
        let start = Instant::now();
        let mut foresight = Foresight::default();
        // Begins at, takes, looks for, reads; the next takes, it is the last.
        let table = [
            (0, 100.0, 1, 1_000_000, 1.0, false),
            (100, 11.0, 1, 100_000, 1.0 + 10.0 * 0.11, false),
            (111, 3.0, 1, 20_000, 1.0 + 2.0 * 3.0 / 11.0, false),
            (114, 3.0, 1, 19_000, 1.0 + 2.0, true),
        ];
        for (pass, (at, seconds, looking, read, next, settled)) in (1..).zip(table) {
            let mut report = PassReport {
                pass,
                seconds,
                ..PassReport::default()
            };
            report.totals.read = read;
            let began = start + Duration::from_secs(at);
            let looking = Duration::from_secs(looking);
            foresight.complete(&mut report, What::Warm, began, looking);
            let foreseen = report.next_seconds.unwrap();
            assert!((foreseen - next).abs() < 1e-9, "{pass}: {foreseen}");
            assert_eq!(report.settled, settled, "{pass}");
        }
    }

    #[test]
    fn a_pass_that_read_nothing_or_took_no_time_is_the_last() {
        for (seconds, read) in [(9.0, 0), (0.01, 5_000)] {
            for (what, settled) in [(What::Warm, true), (What::Final, false)] {
                let mut report = PassReport {
                    pass: 1,
                    seconds,
                    ..PassReport::default()
                };
                report.totals.read = read;
                let mut foresight = Foresight::default();
                foresight.complete(&mut report, what, Instant::now(), Duration::ZERO);
                assert_eq!(report.settled, settled);
            }
        }
    }
}
