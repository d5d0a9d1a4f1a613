//! When a file counts as unchanged.
//!
//! It does only if its ctime is what it was, and that ctime is older than the start of the last
//! completed `syncfs(source)` before it was copied, less the clock's granularity. A page that was
//! dirtied through a mapping stays writable until it is written back, and while it is, writes
//! move no timestamp. Writing back protects the page, so that the next write has to.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::filesystem::FileSystem;

/// The kernel stamps inodes with the time of its last tick, at most 10 ms ago (`CONFIG_HZ=100`).
const TICK: i64 = 20_000_000;
/// ext4 with small inodes keeps full seconds only.
const COARSE: i64 = 1_000_000_000;
/// How much less than the time that went by a clock may show before it counts as set back: it is
/// also slewed.
const SLEWED: Duration = Duration::from_millis(500);

/// The clock that stamps inodes, against one that nobody sets.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Nanoseconds.
    wall: i64,
    steady: i64,
}

impl Moment {
    pub fn now() -> Self {
        let nanoseconds = |time: Timespec| {
            time.tv_sec
                .wrapping_mul(1_000_000_000)
                .wrapping_add(time.tv_nsec)
        };
        Moment {
            wall: nanoseconds(clock_gettime(ClockId::Realtime)),
            steady: nanoseconds(clock_gettime(ClockId::Boottime)),
        }
    }

    fn was_set_back_until(self, later: Moment) -> bool {
        let (wall, steady) = (later.wall - self.wall, later.steady - self.steady);
        wall < steady - i64::try_from(SLEWED.as_nanos()).unwrap_or(i64::MAX)
    }
}

/// What a pass may conclude from a ctime.
#[derive(Debug)]
pub struct Trust {
    /// Before the source was written back.
    synced: Moment,
    /// Why a ctime proves nothing.
    distrust: Option<String>,
}

impl Trust {
    /// `earlier` is when the pass before this one began; `now` is before `syncfs(source)`.
    pub fn new(source: &FileSystem, earlier: Option<Moment>, now: Moment) -> Self {
        let distrust = if !source.has_reliable_ctime() {
            Some(format!("on {} a ctime does not prove it", source.name()))
        } else if earlier.is_some_and(|earlier| earlier.was_set_back_until(now)) {
            Some("the clock was set back since the last pass".into())
        } else {
            None
        };
        Trust {
            synced: now,
            distrust,
        }
    }

    /// Whether every later change of an inode with this ctime will give it a newer one.
    pub fn settles(&self, ctime: i64) -> bool {
        let granularity = if ctime % 1_000_000_000 == 0 {
            COARSE
        } else {
            0
        };
        self.distrust.is_none() && ctime < self.synced.wall - granularity - TICK
    }

    /// Whether a settled inode that looks the same is the same.
    pub fn looks_suffice(&self) -> bool {
        self.distrust.is_none()
    }

    pub fn why_not(&self) -> Option<&str> {
        self.distrust.as_deref()
    }

    /// Whether what was settled since is not.
    pub fn is_void(&self, now: Moment) -> bool {
        self.synced.was_set_back_until(now)
    }

    pub fn began(&self) -> Moment {
        self.synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall: i64, steady: i64) -> Moment {
        Moment { wall, steady }
    }

    #[test]
    fn a_ctime_settles_only_if_it_is_older_than_the_sync_by_more_than_the_clock_can_tell() {
        let trust = Trust {
            synced: at(10_500_000_000, 0),
            distrust: None,
        };
        assert!(trust.settles(10_479_999_999));
        assert!(!trust.settles(10_480_000_001));
        assert!(!trust.settles(10_600_000_000));
        // 10.0 may stand for anything before 11.0.
        assert!(!trust.settles(10_000_000_000));
        assert!(trust.settles(9_000_000_000));
    }

    #[test]
    fn a_clock_that_was_set_back_proves_nothing() {
        let second = 1_000_000_000;
        let start = at(100 * second, 0);
        assert!(!start.was_set_back_until(at(110 * second, 10 * second)));
        assert!(
            !start.was_set_back_until(at(200 * second, 10 * second)),
            "forward"
        );
        assert!(start.was_set_back_until(at(105 * second, 10 * second)));
        assert!(start.was_set_back_until(at(99 * second, second)));
    }
}
