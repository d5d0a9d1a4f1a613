//! The tools, each as a whole process, timed until the data has reached the storage.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use pvmigrate_record::order::{Level, PassReport};

pub const MOVER: &str = env!("CARGO_BIN_EXE_pvmigrate-mover");

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Mover(Level),
    Rsync,
    Cp,
    Tar,
    Dd,
}

#[derive(Clone, Copy, Default)]
pub struct Run {
    pub seconds: f64,
    /// The mover's resident memory at its highest.
    pub kib: u64,
    /// Bytes that the mover wrote, by its own report.
    pub bytes: u64,
    /// Files that rsync looked into and sent.
    pub transferred: Option<u64>,
}

impl fmt::Display for Tool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tool::Mover(level) => write!(formatter, "ours ({})", level.name()),
            Tool::Rsync => formatter.write_str("rsync"),
            Tool::Cp => formatter.write_str("cp"),
            Tool::Tar => formatter.write_str("tar"),
            Tool::Dd => formatter.write_str("dd"),
        }
    }
}

impl Run {
    /// A tool that found nothing of what was copied before would be timed for other work.
    pub fn having_sent(self, files: u64) -> Result<Self> {
        match self.transferred {
            Some(sent) if sent != files => bail!("it sent {sent} files rather than {files}"),
            _ => Ok(self),
        }
    }
}

impl Tool {
    /// One copy, of a tree or of a device. The mover syncs by itself; it is asked to once more,
    /// so that all are timed alike.
    pub fn copy(self, from: &Path, to: &Path) -> Result<Run> {
        let target = File::open(to)?;
        let begun = Instant::now();
        let mut run = match self {
            Tool::Mover(level) => mover(level, from, to)?,
            Tool::Rsync => rsync(from, to)?,
            Tool::Cp => cp(from, to)?,
            Tool::Tar => tar(from, to)?,
            Tool::Dd => dd(from, to)?,
        };
        flush(&target)?;
        run.seconds = begun.elapsed().as_secs_f64();
        Ok(run)
    }
}

/// Waits until all that was written to a file system, by its root, or to a device is stored.
pub fn flush(target: &File) -> Result<()> {
    if target.metadata()?.is_dir() {
        rustix::fs::syncfs(target)?;
    } else {
        target.sync_all()?;
    }
    Ok(())
}

fn mover(level: Level, from: &Path, to: &Path) -> Result<Run> {
    let child = piped(
        Command::new(MOVER)
            .arg("copy")
            .arg(format!("--verify={}", level.name()))
            .args([from, to]),
    )?;
    let kib = watch_memory(child.id());
    let output = child.wait_with_output()?;
    let Ok(report) = serde_json::from_slice::<PassReport>(&output.stdout) else {
        bail!("{}", first_line(&output.stderr));
    };
    ensure_ok(&report)?;
    Ok(Run {
        kib: kib.join().unwrap_or(0),
        bytes: report.totals.bytes,
        ..Run::default()
    })
}

pub fn ensure_ok(report: &PassReport) -> Result<()> {
    let first = report.errors.first();
    let first = first.map(|error| format!("{}: {}", error.path, error.reason));
    ensure!(report.ok, "{}", first.unwrap_or("not ok".into()));
    Ok(())
}

fn rsync(from: &Path, to: &Path) -> Result<Run> {
    let text = output(
        Command::new("rsync")
            .args(["-aHAXS", "--numeric-ids", "--stats"])
            .args([from.join(""), to.join("")]),
    )?;
    let figure = text
        .lines()
        .find_map(|line| line.strip_prefix("Number of regular files transferred: "))
        .context("rsync --stats does not say how many files it transferred")?;
    Ok(Run {
        transferred: Some(figure.replace(',', "").parse()?),
        ..Run::default()
    })
}

fn cp(from: &Path, to: &Path) -> Result<Run> {
    output(
        Command::new("cp")
            .arg("-a")
            .args([from.join("."), to.join("")]),
    )?;
    Ok(Run::default())
}

fn tar(from: &Path, to: &Path) -> Result<Run> {
    let tar = |folder: &Path| {
        let mut command = Command::new("tar");
        command.arg("-C").arg(folder).args([
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
        ]);
        command
    };
    let mut pack = piped(tar(from).args(["-S", "-c", "-f", "-", "."]))?;
    let stream = pack.stdout.take().context("tar has no output")?;
    let unpack = tar(to)
        .args(["-p", "-x", "-f", "-"])
        .stdin(stream)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    finished(unpack, "tar -x")?;
    finished(pack, "tar -c")?;
    Ok(Run::default())
}

/// Of a tree: the files at its root, one after the other.
fn dd(from: &Path, to: &Path) -> Result<Run> {
    let mut pairs: Vec<(PathBuf, PathBuf)> = Vec::new();
    if from.is_dir() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                pairs.push((entry.path(), to.join(entry.file_name())));
            }
        }
    } else {
        pairs.push((from.to_owned(), to.to_owned()));
    }
    for (from, to) in pairs {
        output(
            Command::new("dd")
                .arg(format!("if={}", from.display()))
                .arg(format!("of={}", to.display()))
                .args(["bs=4M", "iflag=direct", "oflag=direct", "status=none"]),
        )?;
    }
    Ok(Run::default())
}

/// Runs a command to its end and returns what it printed; what it says on stderr is the error.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    finished(piped(command)?, &name)
}

fn piped(command: &mut Command) -> Result<Child> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))
}

fn finished(child: Child, name: &str) -> Result<String> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name}, {}: {}", output.status, first_line(&output.stderr));
    }
    String::from_utf8(output.stdout).map_err(|_| anyhow!("{name} printed no text"))
}

fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().next().unwrap_or("no message").to_owned()
}

/// The highest resident memory of a process in KiB, asked for until it has ended. What rusage
/// has of a child would begin with the memory of its parent.
pub fn watch_memory(pid: u32) -> std::thread::JoinHandle<u64> {
    let status = format!("/proc/{pid}/status");
    let peak = move || {
        let text = fs::read_to_string(&status).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse().ok()
    };
    std::thread::spawn(move || {
        let mut kib = 0;
        // A process that has ended, waited for or not, has no such line.
        while let Some(now) = peak() {
            kib = now;
            std::thread::sleep(Duration::from_millis(10));
        }
        kib
    })
}
