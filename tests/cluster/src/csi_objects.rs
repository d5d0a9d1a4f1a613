//! The objects that make the CSI driver's storage known to the cluster.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::csi::DRIVER;

/// Holds what the provisioner says about capacities.
pub const NAMESPACE: &str = "csi-loop";

const FS_TYPE: &str = "csi.storage.k8s.io/fstype";

/// A class, by what it does differently from others. The driver's parameters are described in
/// `go/csi/csi-driver/parameters.go`.
struct Class {
    name: &'static str,
    parameter: Option<(&'static str, &'static str)>,
    binding: &'static str,
    grows: bool,
}

const fn class(name: &'static str, parameter: Option<(&'static str, &'static str)>) -> Class {
    Class {
        name,
        parameter,
        binding: "WaitForFirstConsumer",
        grows: true,
    }
}

const CLASSES: [Class; 9] = [
    class("csi-a", Some((FS_TYPE, "ext4"))),
    class("csi-b", Some((FS_TYPE, "xfs"))),
    class("csi-btrfs", Some((FS_TYPE, "btrfs"))),
    class("csi-block", None),
    class("csi-node", Some(("topology", "node"))),
    class("csi-rwop", Some(("access", "ReadWriteOncePod"))),
    class(
        "csi-rwx",
        Some((
            "access",
            "ReadWriteOnce,ReadWriteOncePod,ReadOnlyMany,ReadWriteMany",
        )),
    ),
    Class {
        binding: "Immediate",
        ..class("csi-now", None)
    },
    Class {
        grows: false,
        ..class("csi-fixed", None)
    },
];

pub fn cluster_objects() -> Value {
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver",
            "metadata": {"name": DRIVER},
            "spec": {
                "attachRequired": true,
                "podInfoOnMount": false,
                "storageCapacity": true,
                "volumeLifecycleModes": ["Persistent"],
            },
        }),
    ];
    items.extend(CLASSES.iter().map(|class| {
        let parameters: BTreeMap<_, _> = class.parameter.into_iter().collect();
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {"name": class.name},
            "provisioner": DRIVER,
            "volumeBindingMode": class.binding,
            "allowVolumeExpansion": class.grows,
            "reclaimPolicy": "Delete",
            "parameters": parameters,
        })
    }));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

pub fn snapshot_class() -> Value {
    json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
        "metadata": {"name": "csi"},
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    })
}
