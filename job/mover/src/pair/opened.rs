//! How many files a walk may have open, and which of its directories are.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Pair;
use crate::lock::lock;

/// How many entries a thread takes at once, if that many files may be open.
const BATCH: usize = 64;
/// What a program has open that is neither a pair's nor a batch's.
const OTHER_FILES: usize = 64;

/// The pairs of a walk that are open.
pub struct Opened<T> {
    queue: Mutex<VecDeque<Weak<Pair<T>>>>,
    limit: usize,
    batch: usize,
}

impl<T> Opened<T> {
    /// Asks the system for as many open files as it allows, and keeps within that.
    pub fn new(threads: usize) -> Self {
        const WANTED: u64 = 8192;
        let limits = getrlimit(Resource::Nofile);
        let most = limits.maximum.unwrap_or(WANTED).min(WANTED);
        if limits.current.is_some_and(|current| current < most) {
            // Where that is refused there are fewer, and directories are opened again more often.
            let _ = setrlimit(
                Resource::Nofile,
                Rlimit {
                    current: Some(most),
                    maximum: limits.maximum,
                },
            );
        }
        let current = getrlimit(Resource::Nofile).current.unwrap_or(WANTED);
        let current = usize::try_from(current).unwrap_or(usize::MAX);
        let free = current.saturating_sub(OTHER_FILES);
        // A thread has files of two batches open, on both sides; half of all is for directories.
        let batch = (free / 2 / (4 * threads)).clamp(1, BATCH);
        Opened {
            queue: Mutex::default(),
            limit: (free.saturating_sub(4 * threads * batch) / 2).clamp(8, 1024),
            batch,
        }
    }

    /// How many entries a thread takes at once, and how many files it has read ahead.
    pub fn batch(&self) -> usize {
        self.batch
    }

    pub fn add(&self, pair: &Arc<Pair<T>>) {
        let mut queue = lock(&self.queue);
        // Those that were finished last are at the end.
        while queue.back().is_some_and(|last| last.strong_count() == 0) {
            queue.pop_back();
        }
        queue.push_back(Arc::downgrade(pair));
        while queue.len() > self.limit {
            // The one that was opened first is far above.
            if let Some(far) = queue.pop_front().and_then(|far| far.upgrade())
                && far.parent.is_some()
            {
                lock(&far.open).take();
            }
        }
    }
}
