//! Long-running children, found again by the id that they wrote themselves and by a mark in their
//! environment: an id alone may belong to someone else by now.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Bed;

/// Every process of a test bed has this variable, with its state folder as value.
const MARK: &str = "PVMIGRATE_TESTBED_OWNER";

/// How much of a log an error quotes.
const LOG_LINES: usize = 15;

/// Starts a process that outlives this one. Its output goes to its log.
pub fn start(bed: &Bed, name: &str, program: &Path, arguments: &[String]) -> Result<()> {
    let log = bed.log(name);
    let id_file = id_file(bed, name);
    for path in [&log, &id_file] {
        let folder = path.parent().unwrap_or(&bed.state);
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let output = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("opening {}", log.display()))?;
    // The child writes its own id before it becomes the program, so that no crash of ours can come
    // between the two.
    Command::new("/bin/sh")
        .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
        .arg(&id_file)
        .arg(program)
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", &bed.state)
        // Most are written in Go. Tests wait for the processor, never for memory: a sixth of an API
        // server's time went into collecting garbage.
        .env("GOGC", "400")
        .env(MARK, &bed.state)
        .current_dir(&bed.state)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("starting {name} ({})", program.display()))
        .and_then(|mut child| await_program(name, &mut child))
}

/// Until the shell, and what it may run first, has become the program: before, the id is not
/// written yet, or the process has no environment to know it by.
fn await_program(name: &str, child: &mut Child) -> Result<()> {
    let line = format!("/proc/{}/cmdline", child.id());
    let before = |line: Vec<u8>| {
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        [b"".as_slice(), b"/bin/sh", b"/usr/bin/env"].contains(&program)
    };
    let limit = Instant::now() + Duration::from_secs(20);
    while fs::read(&line).is_ok_and(before) {
        if child.try_wait()?.is_some() {
            // It ended at once. Whoever needs it finds out why.
            return Ok(());
        }
        if Instant::now() > limit {
            bail!("{name} has not begun 20 s after it was started");
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether the process of this name runs.
pub fn is_alive(bed: &Bed, name: &str) -> bool {
    id(bed, name).is_some_and(|id| is_ours(bed, id))
}

/// Fails with the end of its log where the process of this name does not run.
pub fn ensure_alive(bed: &Bed, name: &str) -> Result<()> {
    if is_alive(bed, name) {
        return Ok(());
    }
    let log = fs::read(bed.log(name)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    bail!("{name} does not run any more; its log ends with:\n{last}")
}

/// When the process of this name was started last.
pub fn started(bed: &Bed, name: &str) -> Option<SystemTime> {
    fs::metadata(id_file(bed, name)).ok()?.modified().ok()
}

/// Ends the process of this name at once, and returns when it is gone.
///
/// SIGKILL: nothing here has data to save, and an API server that is asked politely first waits
/// for its watches.
pub fn stop(bed: &Bed, name: &str) -> Result<()> {
    let Some(id) = id(bed, name) else {
        return Ok(());
    };
    kill(bed, id)?;
    await_end(bed, id).with_context(|| format!("stopping {name}"))?;
    let path = id_file(bed, name);
    fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))
}

/// Ends every process that carries this test bed's mark, whether an id of it was kept or not
/// (containerd's shims, a program that was being started when the harness died).
pub fn sweep(bed: &Bed) -> Result<()> {
    let ours: Vec<i32> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&id| is_ours(bed, id))
        .collect();
    for &id in &ours {
        kill(bed, id)?;
    }
    ours.iter().try_for_each(|&id| await_end(bed, id))
}

fn kill(bed: &Bed, id: i32) -> Result<()> {
    let pid = Pid::from_raw(id).with_context(|| format!("{id} is no process id"))?;
    // The descriptor holds on to the process, so that what is checked is what is ended.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(());
    };
    if is_ours(bed, id) {
        // It may have ended by itself since.
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
    Ok(())
}

fn await_end(bed: &Bed, id: i32) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(20);
    while is_ours(bed, id) {
        if Instant::now() > limit {
            bail!("process {id} is still there 20 s after SIGKILL");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A zombie has an empty environment, and so is not ours any more.
fn is_ours(bed: &Bed, id: i32) -> bool {
    let mark = format!("{MARK}={}", bed.state.display());
    fs::read(format!("/proc/{id}/environ")).is_ok_and(|environment| {
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes())
    })
}

fn id(bed: &Bed, name: &str) -> Option<i32> {
    fs::read_to_string(id_file(bed, name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn id_file(bed: &Bed, name: &str) -> PathBuf {
    bed.state.join("processes").join(name)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn bed(name: &str) -> Bed {
        let state = std::env::temp_dir().join(format!("testbed-{name}-{}", std::process::id()));
        fs::create_dir_all(&state).unwrap();
        Bed {
            cache: state.clone(),
            state,
        }
    }

    #[test]
    fn a_process_is_found_by_its_name_and_ended() {
        let bed = bed("named");
        start(&bed, "sleeper", "/bin/sleep".as_ref(), &["60".into()]).unwrap();
        assert!(is_alive(&bed, "sleeper"));
        stop(&bed, "sleeper").unwrap();
        assert!(!is_alive(&bed, "sleeper"));
        fs::remove_dir_all(&bed.state).unwrap();
    }

    #[test]
    fn a_process_that_has_ended_is_missed_with_the_end_of_its_log() {
        let bed = bed("ended");
        let arguments = ["-c", "seq 30; echo the reason >&2"].map(String::from);
        start(&bed, "brief", "/bin/bash".as_ref(), &arguments).unwrap();
        let limit = Instant::now() + Duration::from_secs(10);
        let error = loop {
            if let Err(error) = ensure_alive(&bed, "brief") {
                break error.to_string();
            }
            assert!(Instant::now() < limit, "it never ended");
        };
        assert!(
            error.starts_with("brief does not run any more; its log ends with:\n17\n18\n"),
            "{error}"
        );
        assert!(error.ends_with("\n30\nthe reason"), "{error}");
        fs::remove_dir_all(&bed.state).unwrap();
    }

    #[test]
    fn a_process_whose_id_was_lost_is_found_by_its_mark() {
        let bed = bed("marked");
        start(&bed, "sleeper", "/bin/sleep".as_ref(), &["60".into()]).unwrap();
        assert!(is_alive(&bed, "sleeper"));
        let id = id(&bed, "sleeper").unwrap();
        fs::remove_file(id_file(&bed, "sleeper")).unwrap();
        sweep(&bed).unwrap();
        assert!(!is_ours(&bed, id));
        fs::remove_dir_all(&bed.state).unwrap();
    }

    #[test]
    fn a_process_of_someone_else_under_a_kept_id_is_left_alone() {
        let bed = bed("foreign");
        let mut foreign = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        fs::create_dir_all(bed.state.join("processes")).unwrap();
        fs::write(id_file(&bed, "sleeper"), foreign.id().to_string()).unwrap();
        stop(&bed, "sleeper").unwrap();
        assert!(foreign.try_wait().unwrap().is_none(), "it was ended");
        foreign.kill().unwrap();
        foreign.wait().unwrap();
        fs::remove_dir_all(&bed.state).unwrap();
    }
}
