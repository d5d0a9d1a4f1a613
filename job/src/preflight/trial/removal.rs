//! Nothing stays of a trial: not its pod, its claim or its volume, whatever its class says of
//! volumes that are no longer used.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pvmigrate_record::names;
use serde_json::json;

use crate::cluster::{Cluster, Object, retried};
use crate::config::Config;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::wait_gone;

/// How long a provisioner may take to delete the volume of a trial before that is only said.
const VOLUME_LIMIT: Duration = Duration::from_secs(30);

/// Removes what an earlier Job of this release has left of its trials.
pub async fn clear(run: &Run) -> Result<(), Stop> {
    for (namespace, name) in left(&run.cluster, &run.config).await? {
        tracing::info!(%namespace, trial = %name, "an earlier Job has left a trial; it is removed");
        remove(run, &namespace, &name, Volume::Awaited).await?;
    }
    Ok(())
}

/// Namespace and name of this release's trials.
pub async fn left(cluster: &Cluster, config: &Config) -> Result<BTreeSet<(String, String)>, Stop> {
    let mut left = found(config, cluster.all::<Pod>()).await?;
    left.extend(found(config, cluster.all::<PersistentVolumeClaim>()).await?);
    Ok(left)
}

/// What is done about a volume that its provisioner deletes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volume {
    Awaited,
    /// There is other work to do until it is gone.
    Left,
}

async fn found<K: Object>(
    config: &Config,
    api: Api<K>,
) -> Result<BTreeSet<(String, String)>, Stop> {
    let label = format!("{}={}", names::ROLE, names::ROLE_TRIAL);
    let params = ListParams::default().labels(&label);
    let all = retried(|| api.list(&params)).await?;
    Ok(all
        .items
        .iter()
        .filter(|object| is_ours(config, *object))
        .map(|object| (object.namespace().unwrap_or_default(), object.name_any()))
        .collect())
}

/// A mover carries a release only where it was made as a trial.
fn is_ours<K: Object>(config: &Config, object: &K) -> bool {
    let (name, labels) = (object.name_any(), object.labels());
    let role = labels.get(names::ROLE).map(String::as_str);
    let is_of_trial = names::is_trial(&name, labels) || role == Some(names::ROLE_MOVER);
    is_of_trial && object.annotations().get(names::RELEASE) == Some(&config.release().full_name())
}

/// Removes a trial: first what uses the volume, then the claim; then its provisioner deletes the
/// volume.
pub async fn remove(run: &Run, namespace: &str, name: &str, then: Volume) -> Result<(), Stop> {
    let pods: Api<Pod> = run.cluster.namespaced(namespace);
    let claims: Api<PersistentVolumeClaim> = run.cluster.namespaced(namespace);
    remove_one(run, &pods, name).await?;
    let claim = run.cluster.get(&claims, name).await?;
    let Some(claim) = claim.filter(|claim| is_ours(&run.config, claim)) else {
        return Ok(());
    };
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    let mut known = None;
    if let Some(volume) = volume {
        known = run.cluster.get(&run.cluster.all(), &volume).await?;
        if let Some(state) = known.clone() {
            let_go(run, state, &claim).await?;
        }
    }
    remove_one(run, &claims, name).await?;
    if known.is_none() {
        // One that was being made meanwhile has the name that provisioners give.
        let made = format!("pvc-{}", claim.uid().unwrap_or_default());
        known = run.cluster.get(&run.cluster.all(), &made).await?;
        if let Some(state) = known.clone() {
            let_go(run, state, &claim).await?;
        }
    }
    let Some(volume) = known.filter(|_| then == Volume::Awaited) else {
        return Ok(());
    };
    let (name, uid) = (volume.name_any(), volume.uid().unwrap_or_default());
    let volumes = run.cluster.all::<PersistentVolume>();
    match wait_gone(&volumes, &name, &uid, VOLUME_LIMIT).await {
        Err(Stop::Refused(why)) => {
            tracing::warn!(%why, volume = %name, "the volume of a trial is still there");
            Ok(())
        }
        other => other,
    }
}

async fn remove_one<K: Object>(run: &Run, api: &Api<K>, name: &str) -> Result<(), Stop> {
    let found = run.cluster.get(api, name).await?;
    let Some(object) = found.filter(|object| is_ours(&run.config, object)) else {
        return Ok(());
    };
    let uid = object.uid().unwrap_or_default();
    run.cluster.delete(api, object, None, |_| Ok(())).await?;
    wait_gone(api, name, &uid, run.config.stage_limit()).await
}

/// Lets the provisioner delete a volume that it has made for the trial. One that was there before,
/// and was taken by it, is somebody's: it keeps its policy.
async fn let_go(
    run: &Run,
    volume: PersistentVolume,
    claim: &PersistentVolumeClaim,
) -> Result<(), Stop> {
    let uid = claim.uid();
    let patch = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    run.cluster
        .update(&run.cluster.all(), volume, |state: &PersistentVolume| {
            let spec = state.spec.clone().unwrap_or_default();
            let held = spec.claim_ref.and_then(|held| held.uid);
            let was_there = state
                .annotations()
                .contains_key("pv.kubernetes.io/bound-by-controller")
                || state.creation_timestamp() < claim.creation_timestamp();
            let is_kept = spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete");
            Ok((is_kept && !was_there && held == uid).then(|| patch.clone()))
        })
        .await?;
    Ok(())
}
