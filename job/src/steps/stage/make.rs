//! What staging makes: the staging claim, and a pod under the mover's name.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::order::{Order, What};

use super::destination::claim_again;
use super::placement::placement;
use super::{DEATHS, early, explained, wait_provisioned};
use crate::claim::{ahead, staging_claim};
use crate::cluster::Made;
use crate::migration::Migration;
use crate::mover::orders::{self, is_over, last_order};
use crate::mover::{Placement, is_told_otherwise, mover_pod};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{wait_gone, wait_seen_gone};

/// The destination is provisioned, for the staging claim that is returned; there is a mover for it,
/// if it is a new one with its first order.
pub async fn make_mover(
    run: &Run,
    migration: &mut Migration,
    watch: &PodWatch,
    first: Option<&Order>,
) -> Result<(Pod, PersistentVolumeClaim), Stop> {
    let placement = placement(run, migration, watch).await?;
    let staging = claim_staging(run, migration, placement.node.as_deref()).await?;
    let there = watch.mover(&migration.staging_name());
    let mover = if let Some(mover) = there.filter(|mover| !is_used_up(mover, run, migration)) {
        mover
    } else {
        let wanted = first_mover(run, migration, &placement, first)?;
        new_pod(run, migration, &wanted).await?
    };
    Ok((mover, wait_provisioned(run, migration, staging).await?))
}

/// A mover that finds its first order when it starts.
pub fn first_mover(
    run: &Run,
    migration: &Migration,
    placement: &Placement,
    first: Option<&Order>,
) -> Result<Pod, Stop> {
    let mut mover = mover_pod(&migration.record, &run.config, placement);
    if let Some(first) = first {
        let annotations = mover.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ORDER.into(), orders::text(first)?);
    }
    Ok(mover)
}

/// A pod under the mover's name: a new one, or the one that is there if it is of use still. One that
/// has ended or is ending is not, nor one that will end because a Job before has given it its final
/// order, or that was told to work otherwise.
pub async fn new_pod(run: &Run, migration: &Migration, wanted: &Pod) -> Result<Pod, Stop> {
    let pods = migration.pods(&run.cluster);
    for _ in 0..DEATHS {
        match run.cluster.make(&pods, wanted).await? {
            Made::New(pod) => return Ok(pod),
            Made::Found(pod) if !is_used_up(&pod, run, migration) => return Ok(pod),
            Made::Found(pod) => remove(run, migration, pod).await?,
        }
    }
    let name = migration.staging_name();
    Err(Stop::refused(format!(
        "somebody else makes pods of the name {name}"
    )))
}

/// Removes the pod under the mover's name, if there is one.
pub async fn remove_any(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let pods = migration.pods(&run.cluster);
    match run.cluster.get(&pods, &migration.staging_name()).await? {
        Some(pod) => remove(run, migration, pod).await,
        None => Ok(()),
    }
}

async fn remove(run: &Run, migration: &Migration, pod: Pod) -> Result<(), Stop> {
    let pods = migration.pods(&run.cluster);
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    run.cluster.delete(&pods, pod, None, |_| Ok(())).await?;
    wait_gone(&pods, &name, &uid, run.config.stage_limit()).await
}

/// The staging claim exists, for a new volume or for the one that is known. Where the node is known
/// too, a new volume is there already, or not to be had before a pod asks for it.
pub async fn claim_staging(
    run: &Run,
    migration: &Migration,
    node: Option<&str>,
) -> Result<PersistentVolumeClaim, Stop> {
    clear_leftovers(run, migration).await?;
    let claims = migration.claims(&run.cluster);
    let reused = match &migration.record.destination {
        Some(known) => Some(claim_again(run, migration, known).await?),
        None => None,
    };
    let mut wanted = staging_claim(&migration.record, reused.as_deref());
    select_node(run, &mut wanted, node.filter(|_| reused.is_none()));
    let seen = run
        .cluster
        .claims_seen(&migration.record.claim.namespace)
        .await?;
    let is_early =
        |claim: &PersistentVolumeClaim| names::is_trial(&claim.name_any(), claim.labels());
    let mut staging = match seen.get(&migration.staging_name()).filter(is_early) {
        Some(early) => early,
        None => run.cluster.create(&claims, &wanted).await?,
    };
    if is_early(&staging) {
        staging = match early::adopt(run, migration, staging, &wanted).await? {
            Some(adopted) => adopted,
            None => run.cluster.create(&claims, &wanted).await?,
        };
    }
    match ahead::wait(&seen, &staging, run.config.stage_limit()).await {
        Ok(()) => Ok(staging),
        Err(stop) => Err(explained(run, migration, stop).await),
    }
}

/// Has the volume made on a node that is known, where its class lets the Job name one.
pub fn select_node(run: &Run, staging: &mut PersistentVolumeClaim, node: Option<&str>) {
    if let Some(node) = node.filter(|_| run.provisions_ahead) {
        ahead::select(staging, node);
    }
}

/// Waits for a staging claim that was deleted, by a way back or a Job that ended between the claims;
/// a mover that still mounts it goes first.
async fn clear_leftovers(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let name = migration.staging_name();
    let namespace = &migration.record.claim.namespace;
    let claims = run.cluster.claims_seen(namespace).await?;
    let going = claims
        .get(&name)
        .filter(|claim| claim.metadata.deletion_timestamp.is_some());
    let Some(going) = going else {
        return Ok(());
    };
    remove_any(run, migration).await?;
    wait_seen_gone(&claims, going, run.config.stage_limit()).await
}

fn is_used_up(mover: &Pod, run: &Run, migration: &Migration) -> bool {
    mover.metadata.deletion_timestamp.is_some()
        || is_over(mover)
        || last_order(mover).is_some_and(|order| order.what == What::Final && !order.at_end)
        || is_told_otherwise(mover, &migration.record, &run.config)
}
