//! Extended attributes: with them POSIX ACLs (`system.posix_acl_*`) and capabilities
//! (`security.capability`), which are stored as such.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr,
    lremovexattr, lsetxattr,
};
use rustix::io::Errno;

use pvmigrate_record::order::Attribute;

use crate::attributes::Keep;
use crate::fault::Fault;

/// The label of the mandatory access control. It is not an attribute of the inode but of where it
/// is: the kubelet labels a volume for the pod that mounts it.
const SELINUX: &CStr = c"security.selinux";
/// What XFS shows root of its own way to store an ACL, which is read and written as
/// `system.posix_acl_*` like everywhere.
const LEFT_OUT: [&CStr; 2] = [c"trusted.SGI_ACL_FILE", c"trusted.SGI_ACL_DEFAULT"];
/// What is made in a directory inherits this ACL.
pub const DEFAULT_ACL: &CStr = c"system.posix_acl_default";
/// Set last, because a change of owner clears it.
const CAPABILITY: &CStr = c"security.capability";
/// What the kernel allows a value or a list of names to have, in bytes.
const LIMIT: usize = 64 * 1024;

pub type Xattrs = BTreeMap<CString, Vec<u8>>;

/// How an inode is reached.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// A file or directory.
    Open(BorrowedFd<'a>),
    /// What must not be opened, or cannot: a symlink, a FIFO, a socket, a device.
    Named(BorrowedFd<'a>, &'a CStr),
}

/// The calls for extended attributes have no variant relative to a directory. This path is one:
/// its last part is never followed, and its length does not depend on the depth.
fn by_name(directory: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    CString::new(path).unwrap_or_default()
}

/// All extended attributes but those left out; none where the file system has no such thing.
pub fn read(place: Place<'_>, selinux: bool) -> Result<Xattrs, (String, Errno)> {
    let list = match list(place) {
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::new()),
        list => list.map_err(|errno| ("list its xattrs".to_owned(), errno))?,
    };
    let mut xattrs = Xattrs::new();
    for name in list.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        if LEFT_OUT.contains(&name) || (name == SELINUX && !selinux) {
            continue;
        }
        match get(place, name) {
            Ok(value) => {
                xattrs.insert(name.to_owned(), value);
            }
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(errno) => return Err((format!("read its {}", shown(name)), errno)),
        }
    }
    Ok(xattrs)
}

/// Gives the destination's inode exactly `wanted`, the capability last. `found` is what it has;
/// none if it has to be looked up. Says whether an ACL was among what was set.
pub fn write(
    place: Place<'_>,
    wanted: &Xattrs,
    found: Option<Xattrs>,
    keep: &Keep<'_>,
) -> Result<bool, Fault> {
    let found = match found {
        Some(found) => found,
        None => read(place, keep.common.selinux)
            .map_err(|(doing, errno)| Fault::destination(doing)(errno))?,
    };
    for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
        match remove(place, name) {
            // An ACL that says no more than the mode does may be listed and yet not be there.
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) => {
                let fault = Fault::destination(format!("remove its {}", shown(name)))(errno);
                keep.ledger.unless_lost(attribute(name), Err(fault))?;
            }
        }
    }
    let (last, first): (Vec<_>, Vec<_>) = wanted
        .iter()
        .filter(|(name, value)| found.get(*name) != Some(value))
        .partition(|(name, _)| name.as_c_str() == CAPABILITY);
    let mut acl = false;
    for (name, value) in first.into_iter().chain(last) {
        let set = set(place, name, value).map_err(|errno| {
            let doing = format!("set its {}", shown(name));
            match errno {
                // ext4 says so of a value that it has no place for, on a volume with room enough.
                Errno::NOSPC => Fault::Refused(format!("destination: cannot {doing}: {errno}")),
                _ => Fault::destination(doing)(errno),
            }
        });
        acl |= attribute(name) == Attribute::Acls;
        keep.ledger.unless_lost(attribute(name), set)?;
    }
    Ok(acl)
}

/// Takes from a directory what new entries would inherit. Says whether there was any.
pub fn remove_default_acl(directory: BorrowedFd<'_>) -> Result<bool, Fault> {
    match fremovexattr(directory, DEFAULT_ACL) {
        Ok(()) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(Fault::destination("remove its default ACL")(errno)),
    }
}

/// What of an inode an extended attribute is.
pub fn attribute(name: &CStr) -> Attribute {
    if name == CAPABILITY {
        Attribute::Capabilities
    } else if name.to_bytes().starts_with(b"system.posix_acl_") {
        Attribute::Acls
    } else {
        Attribute::Xattrs
    }
}

pub fn shown(name: &CStr) -> String {
    format!("xattr {}", String::from_utf8_lossy(name.to_bytes()))
}

fn list(place: Place<'_>) -> Result<Vec<u8>, Errno> {
    match place {
        Place::Open(fd) => whole(|buffer| flistxattr(fd, buffer)),
        Place::Named(directory, name) => {
            let path = by_name(directory, name);
            whole(|buffer| llistxattr(&path, buffer))
        }
    }
}

fn get(place: Place<'_>, xattr: &CStr) -> Result<Vec<u8>, Errno> {
    match place {
        Place::Open(fd) => whole(|buffer| fgetxattr(fd, xattr, buffer)),
        Place::Named(directory, name) => {
            let path = by_name(directory, name);
            whole(|buffer| lgetxattr(&path, xattr, buffer))
        }
    }
}

fn set(place: Place<'_>, xattr: &CStr, value: &[u8]) -> Result<(), Errno> {
    match place {
        Place::Open(fd) => fsetxattr(fd, xattr, value, XattrFlags::empty()),
        Place::Named(directory, name) => {
            lsetxattr(by_name(directory, name), xattr, value, XattrFlags::empty())
        }
    }
}

fn remove(place: Place<'_>, xattr: &CStr) -> Result<(), Errno> {
    match place {
        Place::Open(fd) => fremovexattr(fd, xattr),
        Place::Named(directory, name) => lremovexattr(by_name(directory, name), xattr),
    }
}

/// Reads what has a length that is not known before: first into what is nearly always enough.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 1024];
    match read(&mut small) {
        Err(Errno::RANGE) => {
            let mut large = vec![0; LIMIT];
            let length = read(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        length => Ok(small[..length?].to_vec()),
    }
}
