//! A limit of bytes a second that threads share.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::lock::lock;

pub struct Limiter {
    rate: Option<NonZeroU64>,
    /// When everything that was taken so far would be through at the given rate.
    free_at: Mutex<Instant>,
}

impl Limiter {
    /// `rate` in bytes a second; none is no limit.
    pub fn new(rate: Option<NonZeroU64>) -> Self {
        Limiter {
            rate,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until these bytes may be moved. Time in which nothing was moved is not made up for.
    pub fn take(&self, bytes: u64) {
        let Some(rate) = self.rate else {
            return;
        };
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let begin = {
            let mut free_at = lock(&self.free_at);
            let begin = (*free_at).max(Instant::now());
            *free_at = begin + cost;
            begin
        };
        sleep(begin.saturating_duration_since(Instant::now()));
    }
}
