use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::bed::write;
use crate::command::run;
use crate::pki::{kubeconfig, path};
use crate::{Bed, NODES, Node, containers, process};

/// `$1` is this node's root, and the arguments up to `--` are those of the others.
///
/// This node's root stays what [`create_roots`] made it: what is mounted there, by the kubelet here or
/// by the CSI driver outside, is there on both sides. (The first line fails where it is no mount: in a
/// cluster that was booted without.) What the root lies on only follows the machine's mounts from
/// here on, or what is taken away here would be taken away there.
const OWN_MOUNTS: &str = r#"set -e
mount --make-shared "$1"
mount --make-slave "$(findmnt --noheadings --output TARGET --target "$(dirname "$1")")"
shift
while [ "$1" != -- ]; do
    mount --make-rslave "$1"
    umount --lazy "$1"
    shift
done
shift
exec "$@""#;

/// Makes each kubelet's root a mount with a propagation of its own, so that kubelets can be kept
/// from seeing each other's. Once, before the first one starts.
pub fn create_roots(bed: &Bed) -> Result<()> {
    for node in &NODES {
        let root = root(bed, node);
        fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
        run(Command::new("mount").arg("--bind").args([&root, &root]))?;
        // Private first: shared from the start, it would be of one group with what it lies on.
        for kind in ["--make-private", "--make-shared"] {
            run(Command::new("mount").arg(kind).arg(&root))?;
        }
    }
    Ok(())
}

/// Starts a node's kubelet, the first time or after [`stop`]; its pods are as they were.
pub fn start(bed: &Bed, node: &Node) -> Result<()> {
    if process::is_alive(bed, &process_name(node)) {
        return Ok(());
    }
    let folder = bed.node_folder(node);
    let config = folder.join("kubelet.json");
    write(&folder.join("resolv.conf"), "")?;
    write(&config, serde_json::to_vec_pretty(&settings(bed, node))?)?;
    // A node sees no mounts but its own. A kubelet that sees another's takes a volume that both have
    // for one that is still in use, and does not let go of it before the other has.
    let others = NODES.iter().filter(|other| other.name != node.name);
    let mut arguments: Vec<String> = ["--mount", "--propagation", "unchanged"]
        .into_iter()
        .chain(["/bin/sh", "-c", OWN_MOUNTS, "kubelet"])
        .map(String::from)
        .collect();
    arguments.push(root(bed, node).display().to_string());
    arguments.extend(others.map(|other| root(bed, other).display().to_string()));
    arguments.extend([
        "--".into(),
        bed.program("kubelet").display().to_string(),
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", kubeconfig(bed, node.name).display()),
        format!("--root-dir={}", root(bed, node).display()),
        format!("--cert-dir={}", folder.join("kubelet-pki").display()),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.address()),
        format!("--node-labels=topology.kubernetes.io/zone={}", node.zone),
    ]);
    process::start(
        bed,
        &process_name(node),
        "/usr/bin/unshare".as_ref(),
        &arguments,
    )
}

/// Ends a node's kubelet. Its containers run on, and the cluster sees the node as lost after about
/// 16 s.
pub fn stop(bed: &Bed, node: &Node) -> Result<()> {
    process::stop(bed, &process_name(node))
}

/// Where a node's kubelet keeps what it mounts, and finds the plugins that register.
pub fn root(bed: &Bed, node: &Node) -> PathBuf {
    bed.node_folder(node).join("kubelet")
}

pub fn process_name(node: &Node) -> String {
    format!("kubelet-{}", node.name)
}

fn settings(bed: &Bed, node: &Node) -> serde_json::Value {
    let folder = bed.node_folder(node);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", containers::socket(bed, node).display()),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": path(bed, "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        // Several kubelets on one host must share nothing.
        "address": node.address(),
        "healthzPort": 11247 + node.number,
        "podLogsDir": folder.join("pod-logs"),
        "volumePluginDir": folder.join("plugins"),
        "resolvConf": folder.join("resolv.conf"),
        // Only kube-proxy writes rules, and it can take them back.
        "makeIPTablesUtilChains": false,
        // The host's cgroups are left as they are, whatever version they have.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        // A node that is lost, or back, is seen soon.
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 12,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
    })
}
