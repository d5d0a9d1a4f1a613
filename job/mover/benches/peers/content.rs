//! What is copied. Contents are pseudo-random, so nothing below can make less of them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::XattrFlags;

use crate::sizes::Sizes;
use crate::tool::output;

const MIB: u64 = 1 << 20;
const IN_A_FOLDER: u64 = 1000;
/// What changes of a device changes in pieces of this size.
const PIECE: u64 = 64 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Small,
    Mixed,
    Dense,
    Sparse,
    Empty,
    /// Of a device without a file system.
    Noise,
}

impl Content {
    pub fn is_tree(self) -> bool {
        self != Content::Noise
    }

    /// Makes it below the root of a tree, or on a device.
    pub fn make(self, at: &Path, sizes: &Sizes) -> Result<()> {
        match self {
            Content::Small => small(at, sizes.small),
            Content::Mixed => mixed(at, sizes.mixed),
            Content::Dense => dense(at, sizes.dense),
            Content::Sparse => sparse(at, sizes.sparse, sizes.sparse_data),
            Content::Empty => empty(at, sizes.empty),
            Content::Noise => fill(&OpenOptions::new().write(true).open(at)?, sizes.disk, 6),
        }
        .context("cannot make the source")
    }

    /// Changes a hundredth of it, and says how many files those are. Only the two that have a
    /// final pass can change.
    pub fn change(self, at: &Path, sizes: &Sizes, seed: u64) -> Result<u64> {
        match self {
            Content::Small => change_small(at, sizes.small, seed),
            Content::Noise => change_device(at, sizes.disk, seed).map(|()| 1),
            _ => bail!("this content has no changes"),
        }
    }
}

/// Other contents of the same size.
fn change_small(root: &Path, files: u64, seed: u64) -> Result<u64> {
    let mut noise = Noise::new(seed);
    let mut changed = 0;
    for number in (seed % 100..files).step_by(100) {
        let file = OpenOptions::new()
            .write(true)
            .open(small_file(root, number))?;
        file.write_all_at(noise.bytes(4096), 0)?;
        changed += 1;
    }
    Ok(changed)
}

fn small_file(root: &Path, number: u64) -> PathBuf {
    root.join(format!("folder-{:03}", number / IN_A_FOLDER))
        .join(format!("file-{number:06}"))
}

fn small(root: &Path, files: u64) -> Result<()> {
    let mut noise = Noise::new(1);
    for number in 0..files {
        let file = small_file(root, number);
        if number % IN_A_FOLDER == 0 {
            fs::create_dir_all(file.with_file_name(""))?;
        }
        fs::write(file, noise.bytes(4096))?;
    }
    Ok(())
}

/// Fifty files in each of the folders of chains twelve deep; some symlinks, hard links and
/// extended attributes between them.
fn mixed(root: &Path, files: u64) -> Result<()> {
    let mut noise = Noise::new(2);
    let mut folder = PathBuf::new();
    for number in 0..files {
        if number % 50 == 0 {
            let at = number / 50;
            if at % 12 == 0 {
                folder = root.join(format!("chain-{}", at / 12));
            }
            folder.push(format!("level-{}", at % 12));
            fs::create_dir_all(&folder)?;
        }
        let file = folder.join(format!("file-{number}"));
        match number % 50 {
            13 => symlink(format!("file-{}", number - 1), &file)?,
            37 => fs::hard_link(folder.join(format!("file-{}", number - 1)), &file)?,
            place => {
                let limit = match noise.next() % 200 {
                    0 => 4 * MIB,
                    1..20 => 200 << 10,
                    20..80 => 32 << 10,
                    _ => 8 << 10,
                };
                let length = noise.next() % limit;
                fs::write(&file, noise.bytes(length))?;
                if place % 20 == 5 {
                    rustix::fs::setxattr(&file, "user.origin", b"bench", XattrFlags::CREATE)?;
                }
            }
        }
    }
    Ok(())
}

fn dense(root: &Path, bytes: u64) -> Result<()> {
    for (name, seed) in [("first", 3), ("second", 4)] {
        fill(&File::create(root.join(name))?, bytes, seed)?;
    }
    Ok(())
}

/// Data in pieces of 1 MiB, evenly spread from the beginning.
fn sparse(root: &Path, bytes: u64, data: u64) -> Result<()> {
    let mut noise = Noise::new(5);
    let file = File::create(root.join("sparse"))?;
    file.set_len(bytes)?;
    let pieces = data / MIB;
    for piece in 0..pieces {
        file.write_all_at(noise.bytes(MIB), bytes / pieces * piece)?;
    }
    Ok(())
}

fn empty(root: &Path, files: u64) -> Result<()> {
    let folder = root.join("folder");
    fs::create_dir(&folder)?;
    for number in 0..files {
        File::create(folder.join(format!("file-{number:07}")))?;
    }
    Ok(())
}

/// Overwrites it rather than discards it: the image stays allocated.
pub fn zero_device(device: &Path, bytes: u64) -> Result<()> {
    output(
        Command::new("dd")
            .args(["if=/dev/zero", "bs=4M", "oflag=direct", "conv=fsync"])
            .arg(format!("of={}", device.display()))
            .arg(format!("count={}", bytes / (4 * MIB))),
    )?;
    Ok(())
}

/// One piece in a hundred.
fn change_device(device: &Path, bytes: u64, seed: u64) -> Result<()> {
    let mut noise = Noise::new(seed);
    let device = OpenOptions::new().write(true).open(device)?;
    for piece in (seed % 100..bytes / PIECE).step_by(100) {
        device.write_all_at(noise.bytes(PIECE), piece * PIECE)?;
    }
    Ok(device.sync_all()?)
}

/// Bytes of a device that change, at most.
pub fn changed_of_device(bytes: u64) -> u64 {
    (bytes / PIECE).div_ceil(100) * PIECE
}

fn fill(file: &File, bytes: u64, seed: u64) -> Result<()> {
    let mut noise = Noise::new(seed);
    for at in (0..bytes).step_by(4 << 20) {
        file.write_all_at(noise.bytes((bytes - at).min(4 * MIB)), at)?;
    }
    Ok(file.sync_all()?)
}

/// xorshift64*: the same bytes each time, and no zeros to skip.
struct Noise {
    state: u64,
    buffer: Vec<u8>,
}

impl Noise {
    fn new(seed: u64) -> Self {
        Noise {
            state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            buffer: Vec::new(),
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn bytes(&mut self, length: u64) -> &[u8] {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.buffer.clear();
        while self.buffer.len() < length {
            let word = self.next().to_le_bytes();
            self.buffer.extend_from_slice(&word);
        }
        &self.buffer[..length]
    }
}
