//! What preflight looks at beside the claims that are asked for and their workloads: nodes, drivers,
//! quotas, snapshots, and what others have.

use std::collections::{BTreeMap, BTreeSet};

use futures::try_join;
use k8s_openapi::api::core::v1::{
    Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use serde::de::DeserializeOwned;

use super::by_name;
use super::custom::served;
use crate::cluster::Cluster;
use crate::stop::Stop;

#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// By name, as all maps of objects here.
    pub nodes: BTreeMap<String, Node>,
    pub drivers: BTreeMap<String, CSIDriver>,
    pub csi_nodes: BTreeMap<String, CSINode>,
    pub capacities: Vec<CSIStorageCapacity>,
    pub quotas: Vec<ResourceQuota>,
    pub snapshots: Vec<DynamicObject>,
    /// All volumes of the cluster, without what describes them.
    pub volumes: BTreeMap<String, PersistentVolume>,
    /// The volume of each claim of the cluster, by namespace and name.
    pub bindings: BTreeMap<(String, String), String>,
    /// Claims that wait for their volume and are to be made from something.
    pub clones: BTreeMap<(String, String), PersistentVolumeClaim>,
    /// Folders of nodes that pods mount directly.
    pub host_paths: BTreeSet<HostPath>,
}

/// A folder of a node that a pod mounts past any claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPath {
    /// As "namespace/name".
    pub pod: String,
    pub node: Option<String>,
    pub path: String,
}

impl Surroundings {
    /// Lists what nobody else does. What the Job may not list, or the cluster does not have, is
    /// left empty: the first is for the check of its rights to say.
    pub async fn read(cluster: &Cluster) -> Result<Self, Stop> {
        let (nodes, drivers, csi_nodes, capacities, quotas, snapshots) = try_join!(
            list(cluster, cluster.all()),
            list(cluster, cluster.all()),
            list(cluster, cluster.all()),
            list(cluster, cluster.all()),
            list(cluster, cluster.all()),
            snapshots(cluster),
        )?;
        Ok(Self {
            nodes: by_name(nodes),
            drivers: by_name(drivers),
            csi_nodes: by_name(csi_nodes),
            capacities,
            quotas,
            snapshots,
            ..Self::default()
        })
    }

    pub fn see_claim(&mut self, claim: &PersistentVolumeClaim) {
        let key = (claim.namespace().unwrap_or_default(), claim.name_any());
        let Some(spec) = &claim.spec else {
            return;
        };
        if let Some(volume) = spec.volume_name.clone() {
            self.bindings.insert(key, volume);
        } else if spec.data_source.is_some() {
            self.clones.insert(key, claim.clone());
        }
    }

    pub fn see_volume(&mut self, volume: &PersistentVolume) {
        let mut known = volume.clone();
        known.metadata.managed_fields = None;
        known.metadata.annotations = None;
        self.volumes.insert(known.name_any(), known);
    }

    pub fn see_pod(&mut self, pod: &Pod) {
        let Some(spec) = &pod.spec else {
            return;
        };
        for volume in spec.volumes.iter().flatten() {
            if let Some(host) = &volume.host_path {
                self.host_paths.insert(HostPath {
                    pod: format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()),
                    node: spec.node_name.clone(),
                    path: host.path.clone(),
                });
            }
        }
    }
}

async fn list<K>(cluster: &Cluster, api: Api<K>) -> Result<Vec<K>, Stop>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    match cluster.collect(&api, Some).await {
        Err(Stop::Refused(why)) => {
            tracing::debug!(%why, "what is around claims is not all seen");
            Ok(Vec::new())
        }
        other => other,
    }
}

async fn snapshots(cluster: &Cluster) -> Result<Vec<DynamicObject>, Stop> {
    match served(cluster, "snapshot.storage.k8s.io/v1", "VolumeSnapshot").await? {
        Some((resource, _)) => {
            let api = Api::all_with(cluster.client(), &resource);
            list(cluster, api).await
        }
        None => Ok(Vec::new()),
    }
}
