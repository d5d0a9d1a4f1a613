//! Where it was measured, and with what.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::disk::{Disk, Rates};
use crate::tool::{MOVER, output};

/// What must be there, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("rsync", "rsync"),
    ("tar", "tar"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("losetup", "util-linux"),
    ("mount", "mount"),
];

pub fn need_tools() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this makes file systems and drops caches: run it as root"
    );
    let there = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    };
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !there(program))
        .map(|(_, package)| *package)
        .collect();
    ensure!(
        missing.is_empty(),
        "Debian packages are missing: apt-get install {}",
        missing.join(" ")
    );
    Ok(())
}

/// Pairs of what and how.
pub fn gather(disk: &Disk, rates: Rates, rounds: usize) -> Result<Vec<(&'static str, String)>> {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once([':', '=']));
        value.map_or("unknown".to_owned(), |(_, value)| {
            value.trim().trim_matches('"').to_owned()
        })
    };
    let cores = std::thread::available_parallelism()?;
    let memory = field("/proc/meminfo", "MemTotal");
    let memory: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
    let load = fs::read_to_string("/proc/loadavg")?;
    let below = output(
        Command::new("findmnt")
            .args(["-n", "-o", "FSTYPE", "-T"])
            .arg(&disk.folder),
    )?;
    let direct = if disk.direct {
        "direct I/O, past the cache of the file system below"
    } else {
        "without direct I/O: through the cache of the file system below"
    };
    Ok(vec![
        (
            "machine",
            format!(
                "{}, {cores} cores, {} GiB of memory",
                field("/proc/cpuinfo", "model name"),
                memory.div_ceil(1 << 20)
            ),
        ),
        (
            "system",
            format!(
                "{}, Linux {}",
                field("/etc/os-release", "PRETTY_NAME"),
                fs::read_to_string("/proc/sys/kernel/osrelease")?.trim()
            ),
        ),
        (
            "date",
            output(Command::new("date").arg("+%F"))?.trim().to_owned(),
        ),
        (
            "load before",
            load.split(' ').next().unwrap_or_default().to_owned(),
        ),
        (
            "disks",
            format!(
                "two loop devices on {}, {direct}; one dd alone reads {:.0} and writes {:.0} MB/s",
                below.trim(),
                rates.read,
                rates.write
            ),
        ),
        (
            "tools",
            ["rsync", "cp", "tar", "dd"].map(version).join("; "),
        ),
        (
            "file systems",
            ["mkfs.ext4", "mkfs.xfs"].map(version).join("; "),
        ),
        (
            "ours",
            output(Command::new(MOVER).arg("--version"))?
                .trim()
                .to_owned(),
        ),
        (
            "rounds",
            format!("{rounds}; each figure is the median, with the least and the most"),
        ),
    ])
}

fn version(program: &str) -> String {
    let asked = match program {
        "mkfs.ext4" | "mkfs.xfs" => "-V",
        _ => "--version",
    };
    let Ok(output) = Command::new(program).arg(asked).output() else {
        return format!("{program}, unknown version");
    };
    // mkfs.ext4 answers on stderr.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or(program);
    let words: Vec<&str> = line.split_whitespace().collect();
    let line = words.join(" ");
    // rsync goes on with its protocol's version.
    line.split(" protocol").next().unwrap_or(program).to_owned()
}
