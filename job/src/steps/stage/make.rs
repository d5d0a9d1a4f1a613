//! What staging makes: the staging claim, and a pod under the mover's name.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::order::{Order, What};

use super::destination::claim_again;
use super::placement::placement;
use super::{DEATHS, explained, wait_provisioned};
use crate::claim::{ahead, staging_claim};
use crate::cluster::Made;
use crate::migration::Migration;
use crate::mover::orders::{self, is_over, last_order};
use crate::mover::{is_told_otherwise, mover_pod};
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
    let mut wanted = mover_pod(&migration.record, &run.config, &placement);
    if let Some(first) = first {
        let annotations = wanted.metadata.annotations.get_or_insert_default();
        annotations.insert(names::ORDER.into(), orders::text(first)?);
    }
    let mover = new_pod(run, migration, &wanted).await?;
    Ok((mover, wait_provisioned(run, migration, staging).await?))
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
    if let Some(node) = node.filter(|_| run.provisions_ahead && reused.is_none()) {
        ahead::select(&mut wanted, node);
    }
    let staging = run.cluster.create(&claims, &wanted).await?;
    let seen = run.cluster.claims_seen(&migration.record.claim.namespace);
    match ahead::wait(&seen.await?, &staging, run.config.stage_limit()).await {
        Ok(()) => Ok(staging),
        Err(stop) => Err(explained(run, migration, stop).await),
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
    let pods = migration.pods(&run.cluster);
    if let Some(pod) = run.cluster.get(&pods, &name).await? {
        remove(run, migration, pod).await?;
    }
    wait_seen_gone(&claims, going, run.config.stage_limit()).await
}

fn is_used_up(mover: &Pod, run: &Run, migration: &Migration) -> bool {
    mover.metadata.deletion_timestamp.is_some()
        || is_over(mover)
        || last_order(mover).is_some_and(|order| order.what == What::Final && !order.at_end)
        || is_told_otherwise(mover, &migration.record, &run.config)
}
