//! The threads of a pass, and the stack of what is left to do.
//!
//! The stack is last in, first out: a tree is walked depth first, so what waits is bounded by the
//! depth of the tree and not by its size.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::lock::lock;

/// How often the thread that waits for the others tells how far they are.
const BETWEEN_TICKS: Duration = Duration::from_secs(1);

/// How many items may wait before no more of the same kind are added: a bound on memory.
const MANY: usize = 1024;

pub struct Pool<I> {
    state: Mutex<State<I>>,
    wake: Condvar,
    stopped: AtomicBool,
}

struct State<I> {
    items: Vec<I>,
    busy: usize,
    /// Threads that wait for something to do.
    idle: usize,
    over: bool,
}

impl<I: Send> Pool<I> {
    pub fn new() -> Self {
        Pool {
            state: Mutex::new(State {
                items: Vec::new(),
                busy: 0,
                idle: 0,
                over: false,
            }),
            wake: Condvar::new(),
            stopped: AtomicBool::new(false),
        }
    }

    pub fn push(&self, item: I) {
        self.lock().items.push(item);
        self.wake.notify_one();
    }

    /// Whether who works on something long should put the rest of it on the stack: others have
    /// nothing to do, or so much waits on the stack that it should be done first. Otherwise a
    /// thread had better go on where it is: several in one directory wait for each other.
    pub fn should_share(&self) -> bool {
        let state = self.lock();
        (state.idle > 0 && state.items.is_empty()) || state.items.len() > MANY
    }

    /// Lets what is in hand end, and begins nothing more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Works until nothing is left, each thread with a state of its own. `begin` runs first in
    /// each of them; `tick` about once a second in the caller's.
    pub fn run<W>(
        &self,
        threads: usize,
        begin: impl Fn() -> W + Sync,
        work: impl Fn(&mut W, I) + Sync,
        tick: &mut dyn FnMut(),
    ) {
        thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| {
                    let mut own = begin();
                    while let Some(item) = self.next() {
                        let in_hand = InHand(self);
                        work(&mut own, item);
                        drop(in_hand);
                    }
                });
            }
            let mut state = self.lock();
            while !state.over {
                let (waited, result) = self
                    .wake
                    .wait_timeout(state, BETWEEN_TICKS)
                    .unwrap_or_else(PoisonError::into_inner);
                state = waited;
                if result.timed_out() {
                    drop(state);
                    tick();
                    state = self.lock();
                }
            }
        });
    }

    fn next(&self) -> Option<I> {
        let mut state = self.lock();
        loop {
            if state.busy == 0 && (state.items.is_empty() || self.is_stopped()) {
                state.over = true;
            }
            if state.over || self.is_stopped() {
                self.wake.notify_all();
                return None;
            }
            if let Some(item) = state.items.pop() {
                state.busy += 1;
                return Some(item);
            }
            state.idle += 1;
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        lock(&self.state)
    }
}

/// Counts an item as done however its work ends: after a panic the others must not wait for it.
struct InHand<'p, I: Send>(&'p Pool<I>);

impl<I: Send> Drop for InHand<'_, I> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 && (state.items.is_empty() || self.0.is_stopped()) {
            state.over = true;
            self.0.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn everything_that_is_pushed_while_it_works_is_done() {
        let pool = Pool::new();
        pool.push(12_u64);
        let done = AtomicU64::new(0);
        pool.run(
            4,
            || (),
            |(), depth| {
                done.fetch_add(1, Ordering::Relaxed);
                if depth > 0 {
                    pool.push(depth - 1);
                    pool.push(depth - 1);
                }
            },
            &mut || {},
        );
        assert_eq!(done.into_inner(), (1 << 13) - 1);
    }

    #[test]
    fn a_stopped_pool_begins_nothing_more() {
        let pool = Pool::new();
        pool.push(0_u64);
        let done = AtomicU64::new(0);
        pool.run(
            4,
            || (),
            |(), n| {
                done.fetch_add(1, Ordering::Relaxed);
                pool.push(n + 1);
                if n == 9 {
                    pool.stop();
                }
            },
            &mut || {},
        );
        assert_eq!(done.into_inner(), 10);
    }
}
