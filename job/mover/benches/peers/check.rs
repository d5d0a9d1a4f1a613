//! Whether a copy is complete: a cheap look, so that no tool is timed for work that it left out.
//! That the mover's copies are exact is for its tests to show.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

const SAMPLES: usize = 16;
const PIECE: usize = 1 << 20;

/// Compares names and sizes of all, and contents at some places of some.
pub fn same(source: &Path, destination: &Path) -> Result<()> {
    let (from, to) = (list(source)?, list(destination)?);
    ensure!(
        from.len() == to.len(),
        "the copy has {} entries rather than {}",
        to.len(),
        from.len()
    );
    let differs = from.iter().zip(&to).find(|(from, to)| from != to);
    ensure!(
        differs.is_none(),
        "the copy differs: {:?}",
        differs.map(|(from, _)| &from.0)
    );
    let files: Vec<_> = from.iter().filter(|(_, size)| size.is_some()).collect();
    for (name, size) in files.iter().step_by(files.len().div_ceil(SAMPLES).max(1)) {
        let last = size.unwrap_or(0).saturating_sub(PIECE as u64);
        for at in [0, last / 2, last] {
            let same = piece(&source.join(name), at)? == piece(&destination.join(name), at)?;
            ensure!(same, "the copy of {} differs at {at}", name.display());
        }
    }
    Ok(())
}

/// All below a root, sorted; the size of regular files. A file system's own folder is no part.
fn list(root: &Path) -> Result<Vec<(PathBuf, Option<u64>)>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            if name == Path::new("lost+found") {
                continue;
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(name.clone());
            }
            let size = kind.is_file().then(|| entry.metadata()).transpose()?;
            found.push((name, size.map(|it| it.len())));
        }
    }
    found.sort();
    Ok(found)
}

fn piece(file: &Path, at: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; PIECE];
    let length = File::open(file)?.read_at(&mut bytes, at)?;
    bytes.truncate(length);
    Ok(bytes)
}
