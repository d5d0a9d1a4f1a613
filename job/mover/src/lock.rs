//! What threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after another thread has panicked with it in hand: a panic ends the pass, and until
/// then nothing is left half done under a lock.
pub fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
