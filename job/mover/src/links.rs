//! Which names are one inode.

use std::collections::HashMap;

use crate::meta::{Id, Meta};

/// The inodes of a pass that have more than one name.
#[derive(Default)]
pub struct Links {
    /// By the source's inode: its first copied name, and how many more names are to come.
    first: HashMap<Id, First>,
    /// By the destination's inode: the source's inode that it is the copy of.
    owner: HashMap<Id, Id>,
}

#[derive(Clone)]
pub struct First {
    /// Relative to the root of the destination.
    pub path: Vec<u8>,
    pub destination: Id,
    to_come: u32,
}

impl Links {
    /// Where another name of this source inode was copied to in this pass.
    pub fn first(&self, source: &Meta) -> Option<First> {
        self.first.get(&source.id).cloned()
    }

    /// Whether this inode of the destination is already the copy of another source inode.
    pub fn belongs_to_another(&self, destination: &Meta, source: &Meta) -> bool {
        self.owner
            .get(&destination.id)
            .is_some_and(|owner| *owner != source.id)
    }

    /// `source` was copied to `path`. `names` is how many names the destination's inode had before.
    pub fn copied(&mut self, source: &Meta, destination: Id, names: u32, path: Vec<u8>) {
        if source.nlink > 1 {
            let first = First {
                path,
                destination,
                to_come: source.nlink - 1,
            };
            self.first.insert(source.id, first);
        }
        if source.nlink > 1 || names > 1 {
            self.owner.insert(destination, source.id);
        }
    }

    /// Another name of `source` was linked. The last one frees its memory.
    pub fn linked(&mut self, source: &Meta) {
        if let Some(first) = self.first.get_mut(&source.id) {
            first.to_come = first.to_come.saturating_sub(1);
            if first.to_come == 0 {
                self.first.remove(&source.id);
            }
        }
    }
}
