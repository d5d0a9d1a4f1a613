//! The order in which a cluster comes up and goes away.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::command::{retry, run};
use crate::control_plane::{await_api, await_services, kubectl, start_api, start_rest};
use crate::{
    Bed, NODES, containers, csi, disks, images, install, kubelet, network, pki, process, storage,
};

/// What runs besides containerd and kubelet of each node, and what belongs to the CSI driver.
const SHARED: [&str; 6] = [
    "local-path-provisioner",
    "kube-proxy",
    "kube-scheduler",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
];

/// Makes sure that a healthy cluster runs: nothing to do, or a kubelet that a test left stopped, or
/// a CSI driver that does not run or is an older one, or a boot from nothing after cleaning what a crash left.
pub fn up(bed: &Bed) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the test bed mounts file systems and runs kubelets: run it as root"
    );
    let _lock = bed.lock()?;
    if heal(bed).is_ok() {
        // What stands beside the cluster needs no new boot, and is no reason for one.
        install(bed)?;
        load_images(bed)?;
        return csi::start(bed);
    }
    install(bed)?;
    clean(bed)?;
    let started = Instant::now();
    boot(bed)?;
    eprintln!("booted in {:.1?}", started.elapsed());
    Ok(())
}

/// Ends the cluster and removes all that it was made of; the cache stays.
pub fn down(bed: &Bed) -> Result<()> {
    let _lock = bed.lock()?;
    clean(bed)
}

/// Which processes run, one a line.
pub fn status(bed: &Bed) -> String {
    let line = |name: String| {
        let state = if process::is_alive(bed, &name) {
            "runs"
        } else {
            "does not run"
        };
        format!("{name} {state}\n")
    };
    let csi = csi::names().map(String::from);
    names().into_iter().chain(csi).map(line).collect()
}

fn names() -> Vec<String> {
    let nodes = NODES
        .iter()
        .flat_map(|node| [kubelet::process_name(node), containers::process_name(node)]);
    SHARED.map(String::from).into_iter().chain(nodes).collect()
}

fn heal(bed: &Bed) -> Result<()> {
    ensure!(bed.state.join("booted").exists(), "no cluster was booted");
    for node in &NODES {
        kubelet::start(bed, node)?;
    }
    kubectl(bed, &["get", "--raw=/readyz"])?;
    await_whole(bed)
}

fn boot(bed: &Bed) -> Result<()> {
    fs::create_dir_all(&bed.state).with_context(|| format!("creating {}", bed.state.display()))?;
    pki::create(bed)?;
    network::create()?;
    start_api(bed)?;
    for node in &NODES {
        containers::start(bed, node)?;
    }
    disks::create(bed)?;
    kubelet::create_roots(bed)?;
    load_images(bed)?;
    await_api(bed)?;
    for node in &NODES {
        kubelet::start(bed, node)?;
    }
    start_rest(bed)?;
    storage::create(bed)?;
    csi::start(bed)?;
    await_whole(bed)?;
    fs::write(bed.state.join("booted"), "").context("noting that the cluster is up")
}

/// The images that are not the one under test; those that are there as they are now cost nothing.
fn load_images(bed: &Bed) -> Result<()> {
    for archive in images::ensure(bed)? {
        containers::load_locked(bed, &archive)?;
    }
    Ok(())
}

fn await_whole(bed: &Bed) -> Result<()> {
    await_nodes(bed)?;
    await_services()?;
    for name in names() {
        process::ensure_alive(bed, &name)?;
    }
    Ok(())
}

fn await_nodes(bed: &Bed) -> Result<()> {
    let format = "jsonpath={range .items[*]}{.metadata.name} \
                  {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    retry("both nodes to be Ready", Duration::from_secs(60), || {
        let nodes = kubectl(bed, &["get", "nodes", "-o", format])?;
        for node in &NODES {
            ensure!(
                nodes.contains(&format!("{} True", node.name)),
                "{} is not Ready: see {}; the nodes are {nodes:?}",
                node.name,
                bed.log(&kubelet::process_name(node)).display()
            );
        }
        Ok(())
    })
}

/// Works on whatever is there: a healthy cluster, half of one, or nothing.
fn clean(bed: &Bed) -> Result<()> {
    if !bed.state.exists() {
        return network::remove(bed);
    }
    // First those that would start again what is ended next.
    for node in &NODES {
        kubelet::stop(bed, node)?;
    }
    for name in csi::names().chain(SHARED) {
        process::stop(bed, name)?;
    }
    thread::scope(|scope| {
        let stops: Vec<_> = NODES
            .iter()
            .map(|node| scope.spawn(move || containers::stop(bed, node)))
            .collect();
        stops.into_iter().try_for_each(|stop| {
            stop.join()
                .map_err(|_| anyhow!("stopping a node panicked"))?
        })
    })?;
    process::sweep(bed)?;
    disks::remove(bed)?;
    network::remove(bed)?;
    // rm stays on one file system: what is still mounted by mistake is not emptied.
    run(Command::new("rm")
        .args(["-rf", "--one-file-system"])
        .arg(&bed.state))?;
    Ok(())
}
