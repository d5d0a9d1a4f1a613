use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::bed::write;
use crate::control_plane::kubectl;
use crate::disks::{FileSystem, folder};
use crate::images::TOOLS_IMAGE;
use crate::process::start;
use crate::{Bed, NODES};

/// The storage classes: the first on ext4, the second on XFS.
pub const CLASSES: [&str; 2] = ["local-a", "local-b"];

const NAMESPACE: &str = "local-path-storage";

/// Creates what the cluster needs to hold volumes, and starts local-path-provisioner.
pub fn create(bed: &Bed) -> Result<()> {
    let config = serde_json::to_string_pretty(&json!({"storageClassConfigs": {
        CLASSES[0]: paths(bed, FileSystem::Ext4),
        CLASSES[1]: paths(bed, FileSystem::Xfs),
    }}))?;
    let helper = serde_json::to_string_pretty(&helper_pod())?;
    let [config_file, helper_file] =
        ["config.json", "helper-pod.json"].map(|file| bed.state.join("local-path").join(file));
    write(&config_file, &config)?;
    write(&helper_file, &helper)?;

    let manifest = bed.state.join("local-path/manifest.json");
    write(
        &manifest,
        serde_json::to_vec_pretty(&objects(&config, &helper))?,
    )?;
    kubectl(bed, &["create", "-f", &manifest.display().to_string()])
        .context("creating the storage classes")?;
    start(
        bed,
        "local-path-provisioner",
        &bed.program("local-path-provisioner"),
        &[
            "start".into(),
            format!("--config={}", config_file.display()),
            format!("--helper-pod-file={}", helper_file.display()),
            format!("--kubeconfig={}", bed.kubeconfig().display()),
            format!("--namespace={NAMESPACE}"),
            format!("--helper-image={TOOLS_IMAGE}"),
            "--service-account-name=default".into(),
            "--configmap-name=local-path-config".into(),
        ],
    )
}

fn paths(bed: &Bed, kind: FileSystem) -> Value {
    let nodes: Vec<Value> = NODES
        .iter()
        .map(|node| json!({"node": node.name, "paths": [folder(bed, node, kind)]}))
        .collect();
    json!({ "nodePathMap": nodes })
}

fn objects(config: &str, helper: &str) -> Value {
    let scripts = BTreeMap::from([
        ("config.json", config),
        ("helperPod.yaml", helper),
        (
            "setup",
            "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n",
        ),
        ("teardown", "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n"),
    ]);
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "local-path-config", "namespace": NAMESPACE},
            "data": scripts,
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "testbed-kube-proxy"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "system:node-proxier",
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                "name": "system:kube-proxy",
            }],
        }),
    ];
    items.extend(CLASSES.map(|class| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": class},
            "provisioner": "rancher.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
        })
    }));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn helper_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "helper-pod", "image": TOOLS_IMAGE, "imagePullPolicy": "IfNotPresent",
            }],
        },
    })
}
