//! What both sides are told by in a report.

use std::ffi::CStr;

use blake3::{Hash, Hasher};
use pvmigrate_record::order::Attribute;

use super::difference::size;
use crate::chunks::Chunk;
use crate::extra::Seal;
use crate::ledger::Ledger;
use crate::meta::{Kind, Meta};

/// The sum of the hashes of all entries of one side: it does not depend on their order.
#[derive(Clone, Copy, Default)]
pub struct Digest([u64; 4]);

impl Digest {
    pub fn add(&mut self, entry: &Hash) {
        for (sum, bytes) in self.0.iter_mut().zip(entry.as_bytes().chunks_exact(8)) {
            let mut lane = [0; 8];
            lane.copy_from_slice(bytes);
            *sum = sum.wrapping_add(u64::from_le_bytes(lane));
        }
    }

    pub fn shown(self) -> String {
        let [a, b, c, d] = self.0;
        format!("{a:016x}{b:016x}{c:016x}{d:016x}")
    }
}

/// The hash of one side of an entry: all that is compared of it. Each part has a length that
/// cannot be mistaken.
pub fn of_entry(
    directory: &[u8; 32],
    name: &CStr,
    meta: &Meta,
    seal: &Seal,
    chunks: &[Chunk],
    ledger: &Ledger,
) -> Hash {
    let kept = |attribute, value: u32| if ledger.loses(attribute) { 0 } else { value };
    let mut hasher = Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    add(directory);
    add(name.to_bytes());
    add(meta.kind.name().as_bytes());
    let mode = if meta.kind == Kind::Symlink {
        0
    } else {
        meta.mode
    };
    for number in [
        kept(Attribute::Mode, mode),
        kept(Attribute::Owner, meta.uid),
        kept(Attribute::Owner, meta.gid),
        meta.rdev.0,
        meta.rdev.1,
    ] {
        add(&number.to_le_bytes());
    }
    add(&size(meta).to_le_bytes());
    if !ledger.loses(Attribute::Times) {
        add(&meta.mtime.seconds.to_le_bytes());
        add(&meta.mtime.nanoseconds.to_le_bytes());
    }
    add(seal);
    for chunk in chunks {
        add(&chunk.index.to_le_bytes());
        add(chunk.hash.as_bytes());
    }
    hasher.finalize()
}
