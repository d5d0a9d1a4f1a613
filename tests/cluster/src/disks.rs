//! What the two storage classes differ in: `local-a` lies on ext4, `local-b` on XFS, and each node
//! has file systems of its own, so that a volume really lives on one node.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};

use crate::command::run;
use crate::{Bed, NODES, Node};

/// A sparse file takes only what is written to it.
const SIZE: u64 = 8 << 30;

#[derive(Debug, Clone, Copy)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// Where the volumes of this node on this file system lie.
pub fn folder(bed: &Bed, node: &Node, kind: FileSystem) -> PathBuf {
    bed.state.join(format!("{}-{}", kind.name(), node.name))
}

pub fn create(bed: &Bed) -> Result<()> {
    thread::scope(|scope| {
        let makers: Vec<_> = NODES
            .iter()
            .flat_map(|node| FileSystem::ALL.map(|kind| (node, kind)))
            .map(|(node, kind)| scope.spawn(move || make(bed, node, kind)))
            .collect();
        makers.into_iter().try_for_each(|maker| {
            maker
                .join()
                .map_err(|_| anyhow!("making a disk panicked"))?
        })
    })
}

fn make(bed: &Bed, node: &Node, kind: FileSystem) -> Result<()> {
    let folder = folder(bed, node, kind);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let image = folder.with_extension("img");
    File::create(&image)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("creating {}", image.display()))?;
    match kind {
        FileSystem::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?,
        FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&image))?,
    };
    // mount takes the loop device by itself, and the kernel gives it back at the unmount.
    run(Command::new("mount")
        .args(["-o", "loop"])
        .arg(&image)
        .arg(&folder))?;
    Ok(())
}

/// Unmounts all that lies under the state folder, and frees the loop devices of its files.
pub fn remove(bed: &Bed) -> Result<()> {
    // Before the mounts: a device that is in use goes when its last user does, and once a file's
    // mount is gone, nothing says any more that the file was ours.
    free_devices(bed)?;
    // Later mounts may lie in or on earlier ones: the last goes first.
    for point in mounts_under(&bed.state)?.iter().rev() {
        run(Command::new("umount").arg("-l").arg(point))?;
    }
    free_devices(bed)
}

fn free_devices(bed: &Bed) -> Result<()> {
    let devices = run(Command::new("losetup").args(["-n", "-O", "NAME,BACK-FILE"]))?;
    for line in devices.lines() {
        let Some((device, file)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        if Path::new(file.trim()).starts_with(&bed.state) {
            // The kernel may have freed it between the list and now.
            let _ = run(Command::new("losetup").args(["-d", device]));
        }
    }
    Ok(())
}

fn mounts_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the CSI driver and a kubelet leave a raw block volume: a device over a device that is
    /// mounted as a file.
    #[test]
    fn devices_of_files_under_the_folder_are_freed_though_they_are_in_use() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let name = format!("testbed-disks-{}", std::process::id());
        let state = std::env::temp_dir().join(&name);
        let bed = Bed {
            cache: state.clone(),
            state: state.clone(),
        };
        let [mounted, raw, point, file] =
            ["mounted", "raw", "point", "file"].map(|part| state.join(format!("{name}-{part}")));
        fs::create_dir_all(&point).unwrap();
        File::create(&file).unwrap();
        let image = |path: &Path| {
            File::create(path).unwrap().set_len(8 << 20).unwrap();
            device(path)
        };
        let device_of_mounted = image(&mounted);
        run(Command::new("mkfs.ext4").args(["-q", &device_of_mounted])).unwrap();
        run(Command::new("mount").arg(&device_of_mounted).arg(&point)).unwrap();
        run(Command::new("mount")
            .arg("--bind")
            .arg(image(&raw))
            .arg(&file))
        .unwrap();
        device(&file);

        remove(&bed).unwrap();

        let left = run(Command::new("losetup").args(["-n", "-O", "BACK-FILE"])).unwrap();
        assert!(!left.contains(&name), "there is still {left}");
        assert_eq!(mounts_under(&state).unwrap(), Vec::<PathBuf>::new());
        fs::remove_dir_all(&state).unwrap();
    }

    fn device(path: &Path) -> String {
        let device = run(Command::new("losetup").args(["-f", "--show"]).arg(path)).unwrap();
        device.trim().to_owned()
    }
}
