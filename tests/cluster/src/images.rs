//! The two images that the cluster itself needs, made of what is installed on this machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::archive::digest;
use crate::command::run;
use crate::{Archive, Bed, ImageConfig};

/// What holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "pvmigrate-test/pause:1";
/// For the applications of tests, and local-path's helper pods.
pub const TOOLS_IMAGE: &str = "pvmigrate-test/tools:1";

/// Reaps what is left to it as process 1, and ends when asked.
const PAUSE_SOURCE: &str = r"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int signal) { _exit(0); }
static void reap(int signal) { while (waitpid(-1, 0, WNOHANG) > 0) {} }
int main(void) {
  signal(SIGTERM, end);
  signal(SIGINT, end);
  signal(SIGCHLD, reap);
  for (;;) pause();
}
";

/// Programs of the host that say more than busybox does, or that it lacks.
const PROGRAMS: &str = "\
    b2sum bash cat chattr chmod chown cmp cp dash date dd df diff du filefrag find getcap \
    getfacl getfattr grep head id ln ls lsattr md5sum mkdir mkfifo mknod mktemp mv readlink \
    rm sed seq setcap setfacl setfattr sha256sum sleep sort split stat sync tail timeout touch \
    truncate wc xargs";

/// Makes the images that are not in the cache yet, and returns the archives.
pub fn ensure(bed: &Bed) -> Result<Vec<PathBuf>> {
    let folder = bed.cache.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // What they are made of is part of their names, so that a change makes them again.
    let pause = folder.join(format!("pause-{:.8}.tar", digest(PAUSE_SOURCE.as_bytes())));
    let tools = folder.join(format!("tools-{:.8}.tar", digest(PROGRAMS.as_bytes())));
    if !(pause.exists() && tools.exists()) {
        let _lock = bed.build_lock()?;
        make_pause(&folder, &pause)?;
        make_tools(&tools)?;
    }
    Ok(vec![pause, tools])
}

fn make_pause(folder: &Path, target: &Path) -> Result<()> {
    let (source, program) = (folder.join("pause.c"), folder.join("pause"));
    fs::write(&source, PAUSE_SOURCE).with_context(|| format!("writing {}", source.display()))?;
    run(Command::new("gcc")
        .args(["-Os", "-static", "-s", "-o"])
        .arg(&program)
        .arg(&source))?;
    let mut archive = Archive::default();
    archive.file(&program, "pause")?;
    let config = ImageConfig {
        entrypoint: vec!["/pause".into()],
        ..ImageConfig::default()
    };
    archive.write(PAUSE_IMAGE, &config, target)
}

fn make_tools(target: &Path) -> Result<()> {
    let mut archive = Archive::default();
    archive.folder("tmp", 0o1777)?;
    let mut names = BTreeSet::new();
    let mut libraries = BTreeSet::new();
    for name in PROGRAMS.split_whitespace() {
        let program = find(name)?;
        archive.file(&program, &format!("bin/{name}"))?;
        names.insert(name.to_owned());
        libraries.extend(libraries_of(&program)?);
    }
    for library in libraries {
        archive.file(Path::new(&library), library.trim_start_matches('/'))?;
    }
    // busybox's own shell would prefer its applets to the programs above.
    archive.link("bin/sh", "dash")?;
    names.insert("sh".into());
    archive.file(Path::new("/bin/busybox"), "bin/busybox")?;
    for applet in run(Command::new("/bin/busybox").arg("--list"))?.lines() {
        if applet != "busybox" && names.insert(applet.to_owned()) {
            archive.link(&format!("bin/{applet}"), "busybox")?;
        }
    }
    let config = ImageConfig {
        entrypoint: vec!["/bin/sh".into()],
        env: vec!["PATH=/bin".into()],
        ..ImageConfig::default()
    };
    archive.write(TOOLS_IMAGE, &config, target)
}

fn find(name: &str) -> Result<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .with_context(|| {
            format!("`{name}` is not installed, and the tools image needs it: run `make deps`")
        })
}

/// The paths that `ldd` prints, the loader's included.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let printed = run(Command::new("ldd").arg(program))?;
    Ok(printed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(String::from)
        .collect())
}
