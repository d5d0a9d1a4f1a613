//! The two disks: image files on loop devices, removed when dropped.

use std::env;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::content::zero_device;
use crate::sizes::Sizes;
use crate::tool::output;

/// Of each disk, in MB/s: what one reader or one writer with direct I/O gets from it.
#[derive(Clone, Copy)]
pub struct Rates {
    pub read: f64,
    pub write: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "XFS",
        })
    }
}

pub struct Disk {
    pub folder: PathBuf,
    pub device: PathBuf,
    /// Where its file system is mounted.
    pub path: PathBuf,
    /// The same, read-only as a mover's source: reading it leaves no access times to write.
    pub view: PathBuf,
    /// Whether the loop device goes past the cache of the file system below.
    pub direct: bool,
    size: u64,
}

impl Disk {
    pub fn new(name: &str, size: u64) -> Result<Self> {
        // Not where /tmp is memory by default: an image there would be measured as a disk.
        let parent =
            env::var_os("TMPDIR").map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
        let folder = parent.join(format!("bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut disk = Disk {
            path: folder.join("volume"),
            view: folder.join("view"),
            folder,
            device: PathBuf::new(),
            direct: false,
            size,
        };
        fs::create_dir(&disk.path)?;
        fs::create_dir(&disk.view)?;
        let image = disk.folder.join("image");
        disk.allocate(&image)?;
        disk.attach(&image)?;
        Ok(disk)
    }

    /// All of it at once: a copy is not to pay for the growth of an image.
    fn allocate(&self, image: &Path) -> Result<()> {
        let available = rustix::fs::statvfs(&self.folder)?;
        ensure!(
            available.f_bavail * available.f_frsize > self.size + (1 << 30),
            "{} has too little space: set TMPDIR to a folder with more",
            self.folder.display()
        );
        let file = File::create(image)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.size)
            .with_context(|| format!("cannot allocate {}", image.display()))
    }

    fn attach(&mut self, image: &Path) -> Result<()> {
        let losetup = |direct| {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", direct]).arg(image);
            output(&mut command)
        };
        // Not every file system below can do direct I/O; the facts say which it was.
        let device = losetup("--direct-io=on").or_else(|_| losetup("--direct-io=off"))?;
        self.device = PathBuf::from(device.trim());
        let name = self.device.file_name().context("losetup named no device")?;
        let dio = Path::new("/sys/block").join(name).join("loop/dio");
        self.direct = fs::read_to_string(dio)?.trim() == "1";
        Ok(())
    }

    /// Writes all of it, which also spares the first round what a first write costs, and reads
    /// it again.
    pub fn measure(&self) -> Result<Rates> {
        let rate = |begun: Instant| {
            let mebibytes = u32::try_from(self.size >> 20).map_or(f64::INFINITY, f64::from);
            mebibytes * 1.048_576 / begun.elapsed().as_secs_f64()
        };
        let begun = Instant::now();
        zero_device(&self.device, self.size)?;
        let write = rate(begun);
        let begun = Instant::now();
        output(
            Command::new("dd")
                .arg(format!("if={}", self.device.display()))
                .args(["of=/dev/null", "bs=4M", "iflag=direct", "status=none"]),
        )?;
        Ok(Rates {
            read: rate(begun),
            write,
        })
    }

    /// A new file system. Nothing is discarded, so the image stays allocated; and no thread of
    /// ext4 initialises inode tables while something is measured.
    pub fn format(&self, kind: Kind, sizes: &Sizes) -> Result<()> {
        self.unmount()?;
        let inodes = sizes.inodes.to_string();
        let (mkfs, options, mount) = match kind {
            Kind::Ext4 => (
                "mkfs.ext4",
                vec![
                    "-q",
                    "-F",
                    "-N",
                    &inodes,
                    "-E",
                    "nodiscard,lazy_itable_init=1",
                ],
                "noinit_itable",
            ),
            Kind::Xfs => ("mkfs.xfs", vec!["-q", "-f", "-K"], "defaults"),
        };
        output(Command::new(mkfs).args(options).arg(&self.device))?;
        output(
            Command::new("mount")
                .args(["-o", mount])
                .args([&self.device, &self.path]),
        )?;
        output(
            Command::new("mount")
                .args(["-o", "bind,ro"])
                .args([&self.path, &self.view]),
        )?;
        Ok(())
    }

    /// Down to the file system that the image is on, where that has a cache between.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(File::open(&self.path)?)?;
        if !self.direct {
            rustix::fs::syncfs(File::open(&self.folder)?)?;
        }
        Ok(File::open(&self.device)?.sync_all()?)
    }

    pub fn unmount(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        for path in [&self.view, &self.path] {
            let Some(path) = path.to_str() else {
                bail!("{} is no text", path.display());
            };
            if mounts.contains(&format!(" {path} ")) {
                output(Command::new("umount").arg(path))?;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let tidied = self.unmount().and_then(|()| {
            if !self.device.as_os_str().is_empty() {
                output(Command::new("losetup").arg("--detach").arg(&self.device))?;
            }
            Ok(fs::remove_dir_all(&self.folder)?)
        });
        if let Err(error) = tidied {
            eprintln!("{} is left behind: {error:#}", self.folder.display());
        }
    }
}
