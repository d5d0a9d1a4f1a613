//! Copies one file tree to another so that no application can tell, and proves it.
//!
//! Everything is relative to file descriptors and never follows a symlink inside a tree; trees of
//! any depth are walked with a bounded number of open files.

mod attributes;
mod block;
mod boundary;
mod chunks;
mod content;
mod copy;
pub mod ending;
mod exclude;
mod extra;
mod fault;
mod filesystem;
mod foresight;
mod ledger;
mod limiter;
mod links;
mod lock;
mod manifest;
mod meta;
mod names;
mod pair;
mod passes;
mod pool;
mod project;
mod quiet;
mod reader;
mod remove;
pub mod serve;
mod space;
mod stretches;
mod trail;
mod trust;
mod verify;
mod xattrs;

use std::collections::BTreeSet;
use std::num::{NonZeroU64, NonZeroUsize};

use pvmigrate_record::order::{Attribute, Level, THREADS};

pub use exclude::Exclusions;
pub use ledger::Progress;
pub use passes::{Mover, verify};

/// How many bytes of a file are read ahead: most files whole, and of none so much that the files of
/// a batch fill the memory.
const AHEAD: u64 = 256 * 1024;

/// How a mover works, for all of its passes.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is compared after a pass.
    pub verify: Level,
    /// What is left out, as if the source did not have it.
    pub exclude: Exclusions,
    /// Bytes a second that are read from the source, by all threads together.
    pub bandwidth: Option<NonZeroU64>,
    /// What may be lost without an error.
    pub lose: BTreeSet<Attribute>,
    /// Whether `security.selinux` is kept. A kubelet labels volumes for the pods that mount them.
    pub selinux: bool,
    pub threads: NonZeroUsize,
    /// What the copy passes over without being told to, for tests of the comparison.
    #[doc(hidden)]
    pub overlook: Exclusions,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: Level::default(),
            exclude: Exclusions::default(),
            bandwidth: None,
            lose: BTreeSet::new(),
            selinux: false,
            threads: THREADS,
            overlook: Exclusions::default(),
        }
    }
}
