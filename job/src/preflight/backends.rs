//! Whether another volume object has the same data behind it: two roads to one folder, of which
//! the fence closes one.

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use serde_json::Value;

use super::{claims, nodes};
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};

pub fn nobody_else_has_the_data(observed: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let known: Vec<(&PersistentVolume, Backend)> = observed
        .every_volume()
        .filter_map(|volume| Some((volume, Backend::of(volume)?)))
        .collect();
    let mut all = Vec::new();
    for claim in claims(plan) {
        let Some(volume) = observed.volume_of(claim) else {
            continue;
        };
        let Some(backend) = Backend::of(volume) else {
            continue;
        };
        let others = known.iter().filter(|(other, same)| {
            other.metadata.name != volume.metadata.name
                && *same == backend
                && (!backend.is_on_nodes() || share_a_node(observed, volume, other))
        });
        all.extend(others.map(|(other, _)| {
            format!(
                "the data of claim {} is also that of volume {}{}: {backend}; delete one of the two volume objects (policy Retain keeps the data), or leave the claim out",
                full_name(claim),
                other.name_any(),
                holder(other)
            )
        }));
    }
    all
}

/// Who may use a volume now.
fn holder(volume: &PersistentVolume) -> String {
    let held = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    let held = held.and_then(|held| Some((held.namespace.as_ref()?, held.name.as_ref()?)));
    held.map_or_else(String::new, |(namespace, name)| {
        format!(" of claim {namespace}/{name}")
    })
}

/// Where the data is, as far as a volume object tells.
#[derive(Debug, PartialEq)]
enum Backend {
    Csi {
        driver: String,
        handle: String,
    },
    Nfs {
        server: String,
        path: String,
    },
    /// A `local` or a `hostPath` volume.
    Folder {
        path: String,
    },
    /// Another kind, by what it says of itself.
    Other {
        kind: String,
        source: Value,
    },
}

impl Backend {
    pub fn of(volume: &PersistentVolume) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        if let Some(csi) = &spec.csi {
            return Some(Self::Csi {
                driver: csi.driver.clone(),
                handle: csi.volume_handle.clone(),
            });
        }
        if let Some(nfs) = &spec.nfs {
            return Some(Self::Nfs {
                server: nfs.server.clone(),
                path: trimmed(&nfs.path),
            });
        }
        let local = spec.local.as_ref().map(|local| &local.path);
        if let Some(path) = local.or(spec.host_path.as_ref().map(|host| &host.path)) {
            return Some(Self::Folder {
                path: trimmed(path),
            });
        }
        let kinds = [
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cephfs",
            "cinder",
            "fc",
            "flexVolume",
            "gcePersistentDisk",
            "glusterfs",
            "iscsi",
            "rbd",
            "vsphereVolume",
        ];
        let mut whole = serde_json::to_value(spec).ok()?;
        let (kind, mut source) = kinds.into_iter().find_map(|kind| {
            let source = whole.get_mut(kind)?.take();
            Some((kind.to_string(), source))
        })?;
        for how in ["fsType", "readOnly", "secretRef"] {
            source.as_object_mut()?.remove(how);
        }
        Some(Self::Other { kind, source })
    }

    fn is_on_nodes(&self) -> bool {
        matches!(self, Self::Folder { .. })
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Csi { driver, handle } => {
                write!(f, "volumeHandle {handle} of CSI driver {driver}")
            }
            Self::Nfs { server, path } => write!(f, "{path} of NFS server {server}"),
            Self::Folder { path } => write!(f, "folder {path} of a node"),
            Self::Other { kind, .. } => write!(f, "the same {kind}"),
        }
    }
}

/// `/data/` is `/data`, and `//` is `/`.
pub fn trimmed(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

/// Whether two volumes that are folders of nodes may lie on the same one. Where the nodes are not
/// known, they may.
fn share_a_node(observed: &Observed, one: &PersistentVolume, other: &PersistentVolume) -> bool {
    let mut all = observed.surroundings.nodes.values().peekable();
    all.peek().is_none() || all.any(|node| is_on(one, node) && is_on(other, node))
}

/// Whether a folder's volume lies on this node.
pub fn is_on(volume: &PersistentVolume, node: &k8s_openapi::api::core::v1::Node) -> bool {
    let spec = volume.spec.as_ref();
    let affinity = spec.and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|required| nodes::is_selected(node, required))
}

#[cfg(test)]
mod tests;
