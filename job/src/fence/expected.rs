//! Groups that are about to be fenced: until then an empty fence stays. It takes up to a second until
//! a policy that was made anew is in force, and none until its parameters are.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::Fence;

/// How many there are.
#[derive(Default)]
pub struct Expectations(AtomicUsize);

/// A group is about to be fenced, for as long as this exists.
pub struct Expected<'a>(&'a AtomicUsize);

impl Expectations {
    pub fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fence {
    /// Says that a group is about to be fenced.
    pub fn expect(&self) -> Expected<'_> {
        self.expected.0.fetch_add(1, Ordering::SeqCst);
        Expected(&self.expected.0)
    }
}
