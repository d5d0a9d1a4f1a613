use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::{run, run_loud};

const PACKAGES: [&str; 24] = [
    "acl",
    "attr",
    "btrfs-progs",
    "buildah",
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "dash",
    "e2fsprogs",
    "etcd-server",
    "gcc",
    "iproute2",
    "iptables",
    "kmod",
    "libc6-dev",
    "libcap2-bin",
    "postgresql-15",
    "rsync",
    "runc",
    "socat",
    "sqlite3",
    "util-linux",
    "xfsprogs",
];

/// Installs the packages that are missing.
pub fn ensure() -> Result<()> {
    let missing = missing()?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "the packages {} are missing and only root can install them: run `make deps` as root",
        missing.join(" ")
    );
    println!("installing {}", missing.join(" "));
    run_loud(Command::new("apt-get").args(["-q", "update"]))?;
    // Tests start servers of their own; the package would start one for the whole machine.
    let no_server = Path::new("/etc/postgresql-common/createcluster.d/pvmigrate-testbed.conf");
    fs::create_dir_all(no_server.parent().unwrap_or(no_server))?;
    fs::write(no_server, "create_main_cluster = false\n")?;
    let installed = run_loud(
        Command::new("apt-get")
            .args([
                "-q",
                "-y",
                "-o",
                "Dpkg::Use-Pty=0",
                "--no-install-recommends",
                "install",
            ])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    );
    fs::remove_file(no_server)?;
    installed
}

fn missing() -> Result<Vec<&'static str>> {
    let list =
        run(Command::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]))?;
    let installed: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    Ok(PACKAGES
        .into_iter()
        .filter(|package| !installed.contains(package))
        .collect())
}
