//! A containerd for each node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use crate::bed::write;
use crate::command::{retry, run};
use crate::images::PAUSE_IMAGE;
use crate::process;
use crate::{Bed, NODES, Node};

/// Starts a node's containerd, and does not wait for it.
pub fn start(bed: &Bed, node: &Node) -> Result<()> {
    let folder = bed.node_folder(node);
    let config = folder.join("containerd.toml");
    write(
        &folder.join("cni/10-pods.conflist"),
        serde_json::to_vec_pretty(&pod_network(node, &folder))?,
    )?;
    write(&config, settings(&folder))?;
    process::start(
        bed,
        &process_name(node),
        "/usr/bin/containerd".as_ref(),
        &["--config".into(), config.display().to_string()],
    )
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/run"
disabled_plugins = ["io.containerd.internal.v1.tracing", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
address = "{folder}/containerd.sock"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
# Not every machine that runs tests may lower a process's score (CAP_SYS_RESOURCE).
restrict_oom_score_adj = true
# So that unmounting what lies under the state folder also ends the pods' networks.
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
"#
    )
}

fn pod_network(node: &Node, folder: &Path) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": format!("pvmigrate-{}", node.name),
        "plugins": [{
            "type": "bridge",
            "bridge": node.bridge(),
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("addresses"),
                "ranges": [[{"subnet": node.pod_subnet()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// Imports an image archive into both nodes, so that pods can use it without a registry. An archive
/// that was loaded and has not changed since is left alone.
pub fn load(bed: &Bed, archive: &Path) -> Result<()> {
    let _lock = bed.lock()?;
    load_locked(bed, archive)
}

/// The same, for who holds the bed's lock already.
pub(crate) fn load_locked(bed: &Bed, archive: &Path) -> Result<()> {
    let state = fs::metadata(archive)
        .with_context(|| format!("there is no image archive {}", archive.display()))?;
    let version = format!(
        "{} {} {:?}",
        archive.display(),
        state.len(),
        state.modified()?
    );
    let note = bed
        .state
        .join("loaded")
        .join(archive.file_name().unwrap_or_default());
    if fs::read_to_string(&note).is_ok_and(|loaded| loaded == version) {
        return Ok(());
    }
    thread::scope(|scope| {
        let imports: Vec<_> = NODES
            .iter()
            .map(|node| scope.spawn(move || import(bed, node, archive)))
            .collect();
        imports
            .into_iter()
            .try_for_each(|import| import.join().map_err(|_| anyhow!("an import panicked"))?)
    })?;
    write(&note, version)
}

fn import(bed: &Bed, node: &Node, archive: &Path) -> Result<()> {
    retry(
        &format!("containerd of {}", node.name),
        Duration::from_secs(30),
        || run(ctr(bed, node).arg("version")),
    )?;
    run(ctr(bed, node).args(["images", "import"]).arg(archive))
        .with_context(|| format!("loading {} into {}", archive.display(), node.name))?;
    Ok(())
}

/// Ends all containers of a node and then its containerd. The order matters: without containerd
/// the containers' processes would stay.
pub fn stop(bed: &Bed, node: &Node) -> Result<()> {
    let folder = bed.node_folder(node);
    if has_tasks(&folder) {
        if !process::is_alive(bed, &process_name(node)) {
            start(bed, node)?;
        }
        let tasks = retry(
            &format!("containerd of {}", node.name),
            Duration::from_secs(30),
            || run(ctr(bed, node).args(["tasks", "ls", "-q"])),
        )?;
        for task in tasks.split_whitespace() {
            // A pod's containers may end as its first one does.
            let _ = run(ctr(bed, node).args(["tasks", "rm", "-f", task]));
        }
    }
    process::stop(bed, &process_name(node))?;
    forget_pod_networks(node)
}

fn has_tasks(folder: &Path) -> bool {
    fs::read_dir(folder.join("run/io.containerd.runtime.v2.task/k8s.io"))
        .is_ok_and(|mut tasks| tasks.next().is_some())
}

/// The CNI library notes each pod's network in a folder of the host.
fn forget_pod_networks(node: &Node) -> Result<()> {
    let Ok(results) = fs::read_dir("/var/lib/cni/results") else {
        return Ok(());
    };
    let prefix = format!("pvmigrate-{}-", node.name);
    for result in results.filter_map(Result::ok) {
        if result.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(result.path())
                .with_context(|| format!("removing {}", result.path().display()))?;
        }
    }
    Ok(())
}

/// Where a node's kubelet finds its containerd.
pub fn socket(bed: &Bed, node: &Node) -> PathBuf {
    bed.node_folder(node).join("containerd.sock")
}

pub fn process_name(node: &Node) -> String {
    format!("containerd-{}", node.name)
}

fn ctr(bed: &Bed, node: &Node) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(socket(bed, node))
        .args(["--namespace", "k8s.io"]);
    command
}
