//! What verification knows of one entry of one side, and how two sides differ.

use blake3::{Hash, Hasher};

use crate::meta::{Kind, Meta};
use crate::xattrs::{self, Xattrs};

/// How much more data than the source a file of the destination may have before it counts as
/// filled in, in bytes: per stretch of data, because file systems round in different steps.
const SLACK: u64 = 64 * 1024;
/// The same for all that is allocated, which a file system may do ahead of need.
const ALLOCATED_SLACK: u64 = 1024 * 1024;

pub struct Entry {
    pub meta: Meta,
    pub xattrs: Xattrs,
    /// Of a symlink.
    pub target: Vec<u8>,
    /// Of another name of an inode that was read before: a hash of its first path.
    pub link_to: Option<Hash>,
    pub content: Option<Content>,
}

pub struct Content {
    pub hash: Hash,
    /// Bytes that are data and not holes, and how many stretches they are in.
    pub data: u64,
    pub stretches: u64,
}

impl Entry {
    pub fn kind(&self) -> Kind {
        self.meta.kind
    }

    /// Adds path, metadata and content, each of a length that cannot be mistaken.
    pub fn add_to(&self, digest: &mut Hasher, path: &[u8]) {
        let mut add = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        let meta = &self.meta;
        add(path);
        add(meta.kind.name().as_bytes());
        for number in [meta.mode, meta.uid, meta.gid, meta.rdev.0, meta.rdev.1] {
            add(&number.to_le_bytes());
        }
        add(&self.size().to_le_bytes());
        add(&meta.mtime.seconds.to_le_bytes());
        add(&meta.mtime.nanoseconds.to_le_bytes());
        add(&[u8::from(meta.immutable), u8::from(meta.append_only)]);
        add(&self.target);
        add(&(self.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &self.xattrs {
            add(name.to_bytes());
            add(value);
        }
        add(self.link_to.as_ref().map_or(&[], |first| first.as_bytes()));
        add(self
            .content
            .as_ref()
            .map_or(&[], |content| content.hash.as_bytes()));
    }

    /// What the destination has otherwise, one sentence each.
    pub fn differences(&self, destination: &Entry) -> Vec<String> {
        let (a, b) = (&self.meta, &destination.meta);
        if a.kind != b.kind {
            return vec![format!(
                "{} on the source, {} on the destination",
                a.kind.name(),
                b.kind.name()
            )];
        }
        let mut found = Vec::new();
        let mut compare = |what: &str, source: String, destination: String| {
            if source != destination {
                found.push(format!(
                    "{what} is {source} on the source, {destination} on the destination"
                ));
            }
        };
        compare("mode", format!("{:o}", a.mode), format!("{:o}", b.mode));
        compare(
            "owner",
            format!("{}:{}", a.uid, a.gid),
            format!("{}:{}", b.uid, b.gid),
        );
        compare(
            "size",
            self.size().to_string(),
            destination.size().to_string(),
        );
        compare("time of modification", time(a), time(b));
        compare("device", format!("{:?}", a.rdev), format!("{:?}", b.rdev));
        compare(
            "immutable",
            a.immutable.to_string(),
            b.immutable.to_string(),
        );
        compare(
            "append-only",
            a.append_only.to_string(),
            b.append_only.to_string(),
        );
        if self.target != destination.target {
            found.push("it points elsewhere".into());
        }
        if self.link_to != destination.link_to {
            found.push("its hard links are others".into());
        }
        for name in self.xattrs.keys().chain(
            destination
                .xattrs
                .keys()
                .filter(|name| !self.xattrs.contains_key(*name)),
        ) {
            if self.xattrs.get(name) != destination.xattrs.get(name) {
                found.push(format!("{} differs", xattrs::shown(name)));
            }
        }
        if let (Some(x), Some(y)) = (&self.content, &destination.content) {
            if x.hash != y.hash {
                found.push("content differs".into());
            }
            // Reserved space counts as data once it was read: XFS says so of what is in the cache.
            let data = x.data.max(a.allocated) + SLACK * (x.stretches + 1);
            let allocated = 2 * a.allocated.max(x.data) + ALLOCATED_SLACK;
            if y.data > data || b.allocated > allocated {
                found.push("holes are filled in".into());
            }
        }
        found
    }

    /// A directory's size is the file system's own matter.
    fn size(&self) -> u64 {
        if self.meta.kind == Kind::Directory {
            0
        } else {
            self.meta.size
        }
    }
}

fn time(meta: &Meta) -> String {
    format!("{}.{:09}", meta.mtime.seconds, meta.mtime.nanoseconds)
}
