//! How two sides of an entry differ, in sentences, and what of an entry is in the digests.

use pvmigrate_record::order::Attribute;

use crate::extra::Extra;
use crate::ledger::Ledger;
use crate::meta::{Kind, Meta};
use crate::xattrs;

/// What the destination shows otherwise, one sentence each. What may be lost is not compared.
pub fn of_metas(source: &Meta, destination: &Meta, ledger: &Ledger) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |attribute: Option<Attribute>, what: &str, a: String, b: String| {
        if a != b && attribute.is_none_or(|attribute| !ledger.loses(attribute)) {
            found.push(format!(
                "{what} is {a} on the source, {b} on the destination"
            ));
        }
    };
    let (a, b) = (source, destination);
    if a.mode != b.mode && a.kind != Kind::Symlink {
        let mode = |meta: &Meta| format!("{:o}", meta.mode);
        compare(Some(Attribute::Mode), "mode", mode(a), mode(b));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        let owner = |meta: &Meta| format!("{}:{}", meta.uid, meta.gid);
        compare(Some(Attribute::Owner), "owner", owner(a), owner(b));
    }
    if size(a) != size(b) {
        compare(None, "size", size(a).to_string(), size(b).to_string());
    }
    if a.mtime != b.mtime {
        let time = |meta: &Meta| format!("{}.{:09}", meta.mtime.seconds, meta.mtime.nanoseconds);
        let what = "time of modification";
        compare(Some(Attribute::Times), what, time(a), time(b));
    }
    if a.rdev != b.rdev {
        let device = |meta: &Meta| format!("{}:{}", meta.rdev.0, meta.rdev.1);
        compare(None, "device", device(a), device(b));
    }
    for (what, a, b) in [
        ("immutable", a.immutable, b.immutable),
        ("append-only", a.append_only, b.append_only),
    ] {
        compare(Some(Attribute::Flags), what, a.to_string(), b.to_string());
    }
    found
}

/// The same of what a look does not show.
pub fn of_extras(source: &Extra, destination: &Extra, ledger: &Ledger) -> Vec<String> {
    let mut found = Vec::new();
    let (a, b) = (source, destination);
    if a.target != b.target {
        found.push("it points elsewhere".into());
    }
    let others = b.xattrs.keys().filter(|name| !a.xattrs.contains_key(*name));
    for name in a.xattrs.keys().chain(others) {
        if a.xattrs.get(name) != b.xattrs.get(name) && !ledger.loses(xattrs::attribute(name)) {
            found.push(format!("{} differs", xattrs::shown(name)));
        }
    }
    if a.flags != b.flags && !ledger.loses(Attribute::Flags) {
        found.push(format!(
            "flags are {:#x} on the source, {:#x} on the destination",
            a.flags.bits(),
            b.flags.bits()
        ));
    }
    if !ledger.loses(Attribute::Project) {
        let id = |extra: &Extra| {
            extra
                .project
                .map_or_else(|| "the volume's own".into(), |id| id.to_string())
        };
        if a.project != b.project {
            found.push(format!(
                "project is {} on the source, {} on the destination",
                id(a),
                id(b)
            ));
        }
        if a.extents != b.extents {
            found.push(format!(
                "extent size is {} on the source, {} on the destination",
                a.extents.extent_size, b.extents.extent_size
            ));
        }
    }
    found
}

/// A directory's size is the file system's own matter.
pub fn size(meta: &Meta) -> u64 {
    if meta.kind == Kind::Directory {
        0
    } else {
        meta.size
    }
}
