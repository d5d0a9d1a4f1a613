//! Real file systems to copy between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
}

const MOUNT: &str = "mount -o loop,strictatime image volume";
/// A process that another test is just starting has all that is open here, for a moment.
const UNMOUNT: &str = "for mount in view volume; do
    n=0; until umount $mount; do [ $((n += 1)) -lt 100 ]; sleep 0.1; done
done";
const VIEW: &str = "mount --bind volume view; mount -o remount,bind,ro view";

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
            Kind::Tmpfs => "tmpfs",
        }
    }

    /// The flags besides `i` and `a` that `chattr` can give to a directory there, and that mean
    /// something to an application.
    pub fn flags(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Btrfs => "AdSD",
            Kind::Xfs => "AdS",
            Kind::Tmpfs => "",
        }
    }
}

/// A file system of its own in memory, mounted until this is dropped.
pub struct Volume {
    folder: PathBuf,
    /// For the engine to write to. Every read that touches an access time shows here.
    pub path: PathBuf,
    /// The same, read-only: what looks through this changes nothing, access times included.
    pub view: PathBuf,
}

impl Volume {
    pub fn new(kind: Kind) -> Self {
        // mkfs.xfs makes nothing smaller than 300 MB.
        Self::with_size(kind, "400M")
    }

    pub fn with_size(kind: Kind, size: &str) -> Self {
        Self::with_options(kind, size, "")
    }

    /// `options` are mkfs's.
    pub fn with_options(kind: Kind, size: &str, options: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount file systems and give files away: run them as root"
        );
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("pvmigrate-mover-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let volume = Volume {
            path: folder.join("volume"),
            view: folder.join("view"),
            folder,
        };
        shell(&volume.folder, "mount -t tmpfs -o size=3G pvmigrate-test .");
        fs::create_dir_all(&volume.path).unwrap();
        fs::create_dir_all(&volume.view).unwrap();
        match kind {
            Kind::Ext4 => volume.make(&format!("mkfs.ext4 -q -b 4096 {options}"), size),
            Kind::Xfs => volume.make(&format!("mkfs.xfs -q {options}"), size),
            Kind::Btrfs => volume.make(&format!("mkfs.btrfs -q {options}"), size),
            Kind::Tmpfs => {
                let mount = "mount -t tmpfs -o strictatime";
                shell(
                    &volume.folder,
                    &format!("{mount},size={size} pvmigrate-test volume"),
                );
            }
        }
        shell(&volume.folder, VIEW);
        volume
    }

    /// Where its image and its mounts are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn make(&self, mkfs: &str, size: &str) {
        shell(
            &self.folder,
            &format!("truncate -s {size} image; {mkfs} image; {MOUNT}"),
        );
    }

    /// Runs a script beside the image, while it is not mounted.
    pub fn offline(&self, script: &str) {
        shell(
            &self.folder,
            &format!("{UNMOUNT}; {script}; {MOUNT}; {VIEW}"),
        );
    }

    /// Runs a script in the volume.
    pub fn run(&self, script: &str) -> String {
        shell(&self.path, script)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        for path in [&self.view, &self.path, &self.folder] {
            let _ = Command::new("umount")
                .args(["-R", "-l"])
                .arg(path)
                .stderr(Stdio::null())
                .status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Runs a script in a folder and returns what it printed; any command that fails fails the test.
pub fn shell(folder: &Path, script: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        script.get(..200).unwrap_or(script),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
