//! Planned → Staged: the destination exists, bound to the staging claim, and a mover has both
//! volumes mounted and waits for its order.

mod ready;

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::Volume;
use serde_json::json;

use crate::claim::{staging_claim, storage};
use crate::migration::{Group, Migration};
use crate::mover::{Placement, is_told_otherwise, mover_pod};
use crate::pods::{PodWatch, Pods, SeenPod, has_ended};
use crate::quantity::bytes;
use crate::run::Run;
use crate::steps::reserve::{is_bound, wait_released};
use crate::stop::Stop;
use crate::wait::{Seen, wait_for, wait_gone};
use crate::{causes, workloads};
use ready::stands_ready;

/// How long a consumer may look for a node before its mover is placed without it.
const SCHEDULING_LIMIT: Duration = Duration::from_secs(60);

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let watch = group.start_watch(&run.cluster).await?;
    try_join_all(
        group
            .at(Phase::Planned)
            .map(|migration| stage(run, migration, &watch)),
    )
    .await?;
    Ok(())
}

async fn stage(run: &Run, migration: &mut Migration, watch: &PodWatch) -> Result<(), Stop> {
    let (claims, pods) = (migration.claims(&run.cluster), migration.pods(&run.cluster));
    let name = migration.staging_name();
    let namespace = migration.record.claim.namespace.clone();
    clear_leftovers(run, migration).await?;
    let reused = match &migration.record.destination {
        Some(known) => Some(claim_again(run, migration, known).await?),
        None => None,
    };
    let wanted = staging_claim(&migration.record, reused.as_deref());
    run.cluster.create(&claims, &wanted).await?;
    let placement = placement(run, migration, watch).await?;
    let wanted = mover_pod(&migration.record, &run.config, &placement);
    let mover = run.cluster.create(&pods, &wanted).await?;

    let what = format!(
        "a volume of class {} for claim {}",
        migration.record.destination_class, migration.record.claim
    );
    let bound = wait_for(&claims, &name, &what, run.config.stage_limit(), |claim| {
        let Some(claim) = claim else {
            return Seen::NotYet("the staging claim is not there".into());
        };
        match claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
        {
            Some("Bound") => Seen::Reached(claim.clone()),
            other => Seen::NotYet(format!(
                "staging claim {name} is {}",
                other.unwrap_or("new")
            )),
        }
    })
    .await;
    let explained = [
        ("PersistentVolumeClaim", name.as_str()),
        ("Pod", name.as_str()),
    ];
    let bound = match bound {
        Ok(bound) => bound,
        Err(stop) => return Err(causes::explain(&run.cluster, &namespace, stop, &explained).await),
    };
    let destination = destination_of(run, migration, &bound).await?;
    let ready = stands_ready(run, &pods, &mover).await;
    if let Err(stop) = ready {
        return Err(causes::explain(&run.cluster, &namespace, stop, &explained).await);
    }
    // Known by its UID from here on: whatever happens, no second one is provisioned.
    migration.record.destination = Some(destination);
    migration.advance(&run.cluster).await
}

/// The volume behind the staging claim, if it can take over.
async fn destination_of(
    run: &Run,
    migration: &Migration,
    staging: &PersistentVolumeClaim,
) -> Result<Volume, Stop> {
    let name = staging
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone())
        .unwrap_or_default();
    let found: Option<PersistentVolume> = run.cluster.get(&run.cluster.all(), &name).await?;
    let found =
        found.ok_or_else(|| Stop::refused(format!("volume {name} vanished after it was bound")))?;
    let spec = found.spec.clone().unwrap_or_default();
    let (has, needs) = (
        storage(spec.capacity.as_ref()),
        &migration.record.manifest.storage,
    );
    if bytes(&has) < bytes(needs) {
        return Err(Stop::refused(format!(
            "class {} made volume {name} with {has} for claim {}, which asks for {needs}",
            migration.record.destination_class, migration.record.claim
        )));
    }
    if spec.storage_class_name.as_deref() != Some(migration.record.destination_class.as_str()) {
        return Err(Stop::refused(format!(
            "volume {name} is of class {:?}, not {}",
            spec.storage_class_name, migration.record.destination_class
        )));
    }
    // One that is Filesystem may leave it out.
    let mode = spec.volume_mode.as_deref().unwrap_or("Filesystem");
    if mode != migration.record.manifest.volume_mode {
        return Err(Stop::refused(format!(
            "volume {name} has volumeMode {mode}, claim {} has {}",
            migration.record.claim, migration.record.manifest.volume_mode
        )));
    }
    let known = migration.record.destination.as_ref();
    Ok(Volume {
        uid: found.uid().unwrap_or_default(),
        // What it was before we kept it; a destination that is staged again is kept already.
        reclaim_policy: known.map_or_else(
            || {
                spec.persistent_volume_reclaim_policy
                    .clone()
                    .unwrap_or_else(|| "Delete".into())
            },
            |known| known.reclaim_policy.clone(),
        ),
        name,
    })
}

/// Reserves a destination that exists for a new staging claim, where the old one is gone: after a
/// way back, or a Job that ended between the claims.
async fn claim_again(run: &Run, migration: &Migration, known: &Volume) -> Result<String, Stop> {
    let name = migration.staging_name();
    let staged = run
        .cluster
        .get(&migration.claims(&run.cluster), &name)
        .await?;
    if staged.is_none() {
        let state = wait_released(run, known).await?;
        let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "namespace": migration.record.claim.namespace, "name": name});
        run.cluster
            .update_json(&run.cluster.all::<PersistentVolume>(), state, |state| {
                if is_bound(state) {
                    return Err(Stop::Refused(format!(
                        "volume {} was bound by somebody else",
                        known.name
                    )));
                }
                let held = state
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.claim_ref.clone())
                    .unwrap_or_default();
                if held.name.as_deref() == Some(name.as_str()) && held.uid.is_none() {
                    return Ok(None);
                }
                Ok(Some(vec![
                    json!({"op": "replace", "path": "/spec/claimRef", "value": reference}),
                ]))
            })
            .await?;
    }
    Ok(known.name.clone())
}

/// Where the mover has to run: with the claim's consumer, else as its workload would.
async fn placement(run: &Run, migration: &Migration, watch: &PodWatch) -> Result<Placement, Stop> {
    let claim = &migration.record.claim;
    // One that looks for a node goes first: a mover would decide for it.
    let what = format!("the consumers of claim {claim} to find their nodes");
    let settled = watch.wait_until(&what, SCHEDULING_LIMIT, |pods| {
        let (placed, homeless): (Vec<_>, Vec<_>) =
            consumers(pods, &claim.name).partition(|pod| pod.node.is_some());
        match homeless.first() {
            Some(pod) if placed.is_empty() => Err(causes::of_pod(&pod.pod)),
            _ => Ok(()),
        }
    });
    if let Err(stop) = settled.await {
        tracing::warn!(why = %stop, "the mover goes where its workload's template allows");
    }
    let pods = watch.now();
    let placed = consumers(&pods, &claim.name).find(|pod| pod.node.is_some());
    if let Some(spec) = placed.and_then(|seen| seen.pod.spec.as_ref()) {
        return Ok(Placement::of(spec));
    }
    match migration.record.freeze.workloads.first() {
        Some(workload) => Ok(Placement::of(
            &workloads::pod_spec(&run.cluster, workload).await?,
        )),
        None => Ok(Placement::default()),
    }
}

fn consumers<'a>(pods: &'a Pods, claim: &'a str) -> impl Iterator<Item = &'a SeenPod> {
    pods.present(claim).filter(|seen| {
        let phase = seen
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        !is_over && seen.pod.metadata.deletion_timestamp.is_none()
    })
}

/// Removes what an earlier Job has used up: a mover that has ended or is ending, or that was told
/// to work otherwise, and the staging claim that was deleted after it.
async fn clear_leftovers(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let (claims, pods) = (migration.claims(&run.cluster), migration.pods(&run.cluster));
    let name = migration.staging_name();
    if let Some(pod) = run.cluster.get(&pods, &name).await?
        && (pod.metadata.deletion_timestamp.is_some()
            || has_ended(&pod)
            || is_told_otherwise(&pod, &migration.record, &run.config))
    {
        let uid = pod.uid().unwrap_or_default();
        run.cluster.delete(&pods, pod, None, |_| Ok(())).await?;
        wait_gone(&pods, &name, &uid, run.config.stage_limit()).await?;
    }
    if let Some(claim) = run.cluster.get(&claims, &name).await?
        && claim.metadata.deletion_timestamp.is_some()
    {
        let uid = claim.uid().unwrap_or_default();
        wait_gone(&claims, &name, &uid, run.config.stage_limit()).await?;
    }
    Ok(())
}
