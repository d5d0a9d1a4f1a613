//! Groups that are still to be fenced: until then an empty fence stays, and its policy already covers
//! their namespaces. It takes up to a second until a policy that was changed is in force, and none
//! until its parameters are, which alone name what is refused.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Fence;

#[derive(Default)]
pub struct Expectations(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    groups: usize,
    /// Of all groups that were expected since there was none.
    namespaces: BTreeSet<String>,
}

/// A group is still to be fenced, for as long as this exists.
pub struct Expected<'a>(&'a Expectations);

impl Expectations {
    pub fn any(&self) -> bool {
        self.lock().groups > 0
    }

    pub fn namespaces(&self) -> BTreeSet<String> {
        self.lock().namespaces.clone()
    }

    fn expect(&self, namespace: &str) -> Expected<'_> {
        let mut waiting = self.lock();
        waiting.groups += 1;
        waiting.namespaces.insert(namespace.to_string());
        Expected(self)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.groups -= 1;
        if waiting.groups == 0 {
            waiting.namespaces.clear();
        }
    }
}

impl Fence {
    /// Says that a group of this namespace is still to be fenced.
    pub fn expect(&self, namespace: &str) -> Expected<'_> {
        self.expected.expect(namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_stay_until_no_group_is_expected() {
        let expected = Expectations::default();
        let (one, other) = (expected.expect("a"), expected.expect("b"));
        drop(one);
        assert!(expected.any());
        assert_eq!(expected.namespaces(), ["a", "b"].map(String::from).into());
        drop(other);
        assert!(!expected.any());
        assert!(expected.namespaces().is_empty());
    }
}
