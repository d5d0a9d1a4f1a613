//! Long-running children, found again by the id that they wrote themselves and by a mark in their
//! environment: an id alone may belong to someone else by now.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Bed;

/// Every process of a test bed has this variable, with its state folder as value.
const MARK: &str = "PVMIGRATE_TESTBED_OWNER";

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
        .env(MARK, &bed.state)
        .current_dir(&bed.state)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("starting {name} ({})", program.display()))?;
    Ok(())
}

/// Whether the process of this name runs.
pub fn is_alive(bed: &Bed, name: &str) -> bool {
    id(bed, name).is_some_and(|id| is_ours(bed, id))
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

    fn await_start(bed: &Bed, name: &str) {
        let limit = Instant::now() + Duration::from_secs(10);
        while !is_alive(bed, name) {
            assert!(Instant::now() < limit, "{name} did not start");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_process_is_found_by_its_name_and_ended() {
        let bed = bed("named");
        start(&bed, "sleeper", "/bin/sleep".as_ref(), &["60".into()]).unwrap();
        await_start(&bed, "sleeper");
        stop(&bed, "sleeper").unwrap();
        assert!(!is_alive(&bed, "sleeper"));
        fs::remove_dir_all(&bed.state).unwrap();
    }

    #[test]
    fn a_process_whose_id_was_lost_is_found_by_its_mark() {
        let bed = bed("marked");
        start(&bed, "sleeper", "/bin/sleep".as_ref(), &["60".into()]).unwrap();
        await_start(&bed, "sleeper");
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
