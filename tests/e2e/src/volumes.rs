//! Claims and what is behind them, looked at from outside.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::{Cluster, wait_for};

/// A claim and its volume, each of which names the other.
#[derive(Debug, Clone)]
pub struct Bound {
    pub claim: PersistentVolumeClaim,
    pub volume: PersistentVolume,
}

impl Bound {
    pub fn class(&self) -> &str {
        let spec = self.claim.spec.as_ref();
        spec.and_then(|spec| spec.storage_class_name.as_deref())
            .unwrap_or_default()
    }

    pub fn reclaim_policy(&self) -> &str {
        policy(&self.volume)
    }
}

/// A claim with its volume; fails unless both are Bound, to each other, and of one class.
pub async fn bound(cluster: &Cluster, namespace: &str, name: &str) -> Result<Bound> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), namespace);
    let claim = claims.get(name).await?;
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    let wanted = wanted.with_context(|| format!("claim {name} names no volume"))?;
    let volume = Api::<PersistentVolume>::all(cluster.client.clone())
        .get(&wanted)
        .await?;
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    ensure!(phase == Some("Bound"), "claim {name} is {phase:?}");
    ensure!(
        phase_of(&volume) == "Bound",
        "volume {wanted} is {}",
        phase_of(&volume)
    );
    let held = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    let held = held.and_then(|held| held.uid.clone());
    ensure!(
        held == claim.uid(),
        "volume {wanted} holds {held:?}, not claim {name}"
    );
    let both = Bound { claim, volume };
    let class = both
        .volume
        .spec
        .as_ref()
        .and_then(|spec| spec.storage_class_name.as_deref());
    ensure!(
        class == Some(both.class()),
        "claim {name} is of {}, its volume {class:?}",
        both.class()
    );
    Ok(both)
}

/// The volumes that claims of a namespace have left behind, by the claim's name.
pub async fn released(cluster: &Cluster, namespace: &str) -> Result<Vec<PersistentVolume>> {
    let api = Api::<PersistentVolume>::all(cluster.client.clone());
    let all = api.list(&ListParams::default()).await?;
    let left = all.items.into_iter().filter(|volume| {
        let held = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        held.is_some_and(|held| held.namespace.as_deref() == Some(namespace))
            && phase_of(volume) == "Released"
    });
    Ok(left.collect())
}

/// Runs the command that a report names for a volume that is kept, as its reader would, and waits
/// until the volume is gone.
pub async fn dispose(cluster: &Cluster, volume: &str, command: &str) -> Result<()> {
    let arguments: Vec<&str> = command
        .split(' ')
        .map(|word| word.trim_matches('\''))
        .collect();
    let ["kubectl", arguments @ ..] = arguments.as_slice() else {
        bail!("this is no kubectl command: {command}");
    };
    cluster.kubectl(arguments).await?.success()?;
    let api = Api::<PersistentVolume>::all(cluster.client.clone());
    let what = format!("volume {volume} to be deleted by its provisioner");
    wait_for(&what, Duration::from_secs(90), async || {
        let found = api.get_opt(volume).await?;
        ensure!(
            found.is_none(),
            "it is {:?}",
            found.and_then(|volume| volume.status)
        );
        Ok(())
    })
    .await
}

/// Gives the volumes that claims of a namespace have left behind to their provisioner.
pub(crate) async fn give_back(cluster: &Cluster, namespace: &str) -> Result<()> {
    let api = Api::<PersistentVolume>::all(cluster.client.clone());
    let patch = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    for volume in released(cluster, namespace).await? {
        api.patch(
            &volume.name_any(),
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await?;
    }
    Ok(())
}

/// Where a volume of the test bed lies on this machine; `None` on another cluster.
pub fn folder(cluster: &Cluster, volume: &PersistentVolume) -> Option<PathBuf> {
    cluster.bed.as_ref()?;
    let spec = volume.spec.as_ref()?;
    let host = spec.host_path.as_ref().map(|host| host.path.clone());
    host.or_else(|| spec.local.as_ref().map(|local| local.path.clone()))
        .map(PathBuf::from)
}

pub(crate) fn phase_of(volume: &PersistentVolume) -> &str {
    let status = volume.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(crate) fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref())
        .unwrap_or_default()
}
