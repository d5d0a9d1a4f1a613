use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::bed::write;
use crate::pki::{kubeconfig, path};
use crate::{Bed, Node, containers, process};

/// Starts a node's kubelet, the first time or after [`stop`]; its pods are as they were.
pub fn start(bed: &Bed, node: &Node) -> Result<()> {
    if process::is_alive(bed, &process_name(node)) {
        return Ok(());
    }
    let folder = bed.node_folder(node);
    let config = folder.join("kubelet.json");
    write(&folder.join("resolv.conf"), "")?;
    write(&config, serde_json::to_vec_pretty(&settings(bed, node))?)?;
    process::start(
        bed,
        &process_name(node),
        &bed.program("kubelet"),
        &[
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig(bed, node.name).display()),
            format!("--root-dir={}", root(bed, node).display()),
            format!("--cert-dir={}", folder.join("kubelet-pki").display()),
            format!("--hostname-override={}", node.name),
            format!("--node-ip={}", node.address()),
            format!("--node-labels=topology.kubernetes.io/zone={}", node.zone),
        ],
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
