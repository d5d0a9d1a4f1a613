//! What a mover is told, and what it answers.
//!
//! An order is an annotation of the mover's own pod, which the kubelet shows it as a file. The
//! mover answers with one [`Report`] a line on stdout; its termination message holds the last
//! [`PassReport`], shortened to what fits.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

/// Threads of a mover, where nothing else is said. Two for each of two cores: one waits for
/// storage while the other works.
pub const THREADS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// One order. It counts for one pod only, so a mover that started again cannot mistake it, and a
/// report counts only if it echoes its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// UID of the mover's pod. Empty in a warm order that the pod was made with: then it is for
    /// whoever finds it there, who echoes it with its own UID.
    pub pod: String,
    /// Grows with every order; one that was carried out is not carried out again.
    pub sequence: u64,
    pub what: What,
    /// Not now, but when the kubelet asks the pod to end: deleting the mover is then what begins
    /// the pass, and its end what reports it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_end: bool,
}

impl Order {
    /// The order as the pod with this UID has to understand it.
    #[must_use]
    pub fn read_by(mut self, pod: &str) -> Self {
        if self.pod.is_empty() && self.what == What::Warm {
            self.pod = pod.to_string();
        }
        self
    }

    /// How many orders a Job can give one mover; the sequence's higher part is the Job's epoch.
    const OF_AN_EPOCH: u64 = 1 << 20;

    /// The sequence of the order that follows `last` in this epoch: greater than all before it.
    /// None if a Job of a later epoch has given orders already.
    pub fn sequence_after(last: Option<u64>, epoch: u64) -> Option<u64> {
        let first = epoch.saturating_mul(Self::OF_AN_EPOCH);
        let next = last.map_or(first, |last| first.max(last + 1));
        (next < first.saturating_add(Self::OF_AN_EPOCH)).then_some(next)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// A pass while consumers run: files may change or vanish under it.
    Warm,
    /// The pass after the freeze. It verifies, and the mover exits after it.
    Final,
}

/// How much of a copy is compared with its source afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Level {
    /// Nothing. The copy is what the engine believes it wrote.
    None,
    /// The metadata of every entry; no content.
    Metadata,
    /// The metadata of every entry, and the content of whatever was written since it was last
    /// read back: from the storage, against the hash that was taken while it was copied.
    #[default]
    Written,
    /// Metadata and content of everything, on both sides, from their storage.
    Full,
}

impl Level {
    pub const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Written, Self::Full];

    /// As it is written on a command line and in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Metadata => "metadata",
            Self::Written => "written",
            Self::Full => "full",
        }
    }
}

/// What may be lost without failing a pass, if a setting says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    Owner,
    Mode,
    Times,
    /// Extended attributes other than the two below.
    Xattrs,
    /// POSIX ACLs.
    Acls,
    Capabilities,
    /// What `lsattr` shows.
    Flags,
    /// XFS and ext4 project ids, and XFS extent size hints.
    Project,
    /// Holes are filled with zeros where the destination has none.
    Holes,
    /// Devices, FIFOs and sockets that the destination cannot have.
    Specials,
}

impl Attribute {
    pub const ALL: [Self; 10] = [
        Self::Owner,
        Self::Mode,
        Self::Times,
        Self::Xattrs,
        Self::Acls,
        Self::Capabilities,
        Self::Flags,
        Self::Project,
        Self::Holes,
        Self::Specials,
    ];

    /// As it is written on a command line and in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::Times => "times",
            Self::Xattrs => "xattrs",
            Self::Acls => "acls",
            Self::Capabilities => "capabilities",
            Self::Flags => "flags",
            Self::Project => "project",
            Self::Holes => "holes",
            Self::Specials => "specials",
        }
    }
}

/// A line of a mover's stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Report {
    /// Both volumes are mounted, orders are read.
    Ready {
        pod: String,
    },
    /// An order was read, and is being carried out.
    Taken {
        order: Order,
    },
    /// At most once a second during a pass.
    Progress {
        entries: u64,
        bytes: u64,
    },
    Pass(Box<PassReport>),
}

/// What a pass did. All figures are of this pass.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PassReport {
    /// The order that this answers; none when the mover is used by hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// Counts the passes of one mover, from 1.
    pub pass: u32,
    /// The copy is complete and, where verified, equal.
    pub ok: bool,
    pub seconds: f64,
    pub totals: Totals,
    /// How long the next pass would take if as much changes as did before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_seconds: Option<f64>,
    /// The last of the passes that one warm order asks for: what changes no longer shrinks.
    pub settled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// The first errors, each with its path; `error_count` has them all.
    pub errors: Vec<PathError>,
    pub error_count: u64,
    /// What was let go as a setting allows, and of how many entries.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<Attribute, u64>,
    /// What a reader should know though it is no error, for example a `lost+found` with contents.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    pub files: u64,
    pub directories: u64,
    pub symlinks: u64,
    /// FIFOs, sockets, devices.
    pub specials: u64,
    /// Names beyond the first of hard-linked files.
    pub hard_links: u64,
    /// Of all these, those that the pass made or looked into because they may have changed. Of a
    /// block volume, the units of 4 MiB that were not equal.
    pub changed: u64,
    /// Bytes of content that were read from the source.
    pub read: u64,
    /// Bytes of content that were written; holes are not.
    pub bytes: u64,
    /// Entries that the destination had and the source has not.
    pub deleted: u64,
    /// Entries that were left out because a pattern says so, each with all that is in it.
    pub excluded: u64,
}

/// The outcome of comparing both sides after a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verified {
    pub level: Level,
    /// Entries compared on each side.
    pub entries: u64,
    /// Bytes read back from the destination.
    pub bytes: u64,
    /// The sum of the BLAKE3 hashes of all entries, each over path, metadata and, where the level
    /// compares it, content; hexadecimal. Of a block volume, the hash of its units' hashes.
    pub source_digest: String,
    pub destination_digest: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathError {
    /// Relative to the root of the volume; bytes that are not UTF-8 are escaped.
    pub path: String,
    pub reason: String,
}

#[cfg(test)]
mod tests;
