//! What an inode has besides its content and what a look at it shows: extended attributes, flags,
//! project, and where a symlink points.

use blake3::Hasher;
use rustix::fs::{IFlags, ioctl_getflags};
use rustix::io::Errno;

use crate::filesystem::{FileSystem, STRICT};
use crate::project::{self, Project};
use crate::xattrs::{self, Place, Xattrs};

/// A hash of all that an [`Extra`] holds. Zero where it holds nothing, as for most inodes.
pub type Seal = [u8; 16];

#[derive(Debug, PartialEq)]
pub struct Extra {
    pub xattrs: Xattrs,
    /// Those that both sides keep, and those that must not be lost.
    pub flags: IFlags,
    /// None if it is the volume's own project, which is not the application's matter.
    pub project: Option<u32>,
    pub extents: Project,
    /// Of a symlink.
    pub target: Vec<u8>,
}

/// What is kept, by what both file systems know.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    pub flags: IFlags,
    pub projects: bool,
    pub selinux: bool,
}

impl Common {
    pub fn of(source: &FileSystem, destination: &FileSystem, selinux: bool) -> Self {
        Common {
            flags: (source.flags & destination.flags) | STRICT,
            projects: source.project.is_some() && destination.project.is_some(),
            selinux,
        }
    }
}

impl Default for Extra {
    fn default() -> Self {
        Extra {
            xattrs: Xattrs::new(),
            flags: IFlags::empty(),
            project: None,
            extents: Project::default(),
            target: Vec::new(),
        }
    }
}

impl Extra {
    /// Reads all of it but the target of a symlink. What failed is named.
    pub fn read(
        place: Place<'_>,
        on: &FileSystem,
        common: Common,
    ) -> Result<Self, (String, Errno)> {
        let mut extra = Extra {
            xattrs: xattrs::read(place, common.selinux)?,
            ..Extra::default()
        };
        if let Place::Open(fd) = place {
            if !on.flags.is_empty() {
                let flags = match ioctl_getflags(fd) {
                    Err(Errno::NOTTY | Errno::OPNOTSUPP) => IFlags::empty(),
                    flags => flags.map_err(|errno| ("read its flags".to_owned(), errno))?,
                };
                extra.flags = flags & common.flags;
            }
            if common.projects {
                let found =
                    project::read(fd).map_err(|errno| ("read its project".to_owned(), errno))?;
                extra.project = Some(found.id).filter(|id| Some(*id) != on.project);
                extra.extents = Project { id: 0, ..found };
            }
        }
        Ok(extra)
    }

    pub fn seal(&self) -> Seal {
        if *self == Self::default() {
            return Seal::default();
        }
        let mut hasher = Hasher::new();
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(&self.flags.bits().to_le_bytes());
        add(&self.project.map_or(u64::MAX, u64::from).to_le_bytes());
        add(&self.extents.extent_size.to_le_bytes());
        add(&self.extents.copy_on_write_extent_size.to_le_bytes());
        add(&self.target);
        for (name, value) in &self.xattrs {
            add(name.to_bytes());
            add(value);
        }
        let mut seal = Seal::default();
        seal.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        seal
    }
}
