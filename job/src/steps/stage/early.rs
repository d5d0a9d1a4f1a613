//! A staging claim and a mover that are made before their claim has a record, while preflight tries
//! the destination's class: they are that trial, and stay if the run begins.
//!
//! ```text
//! staging claim marked as a trial  →  mover with its first order  →  it has started: the class works
//!     run begins:   the mark is taken off when the claim is staged
//!     else:         both are removed, as every trial is
//! ```

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use pvmigrate_record::names;
use serde_json::json;

use super::make::{first_mover, remove_any, select_node};
use super::placement::{consumers, placement};
use super::ready::has_started;
use super::warm;
use crate::claim::{ahead, staging_claim};
use crate::migration::Migration;
use crate::mover::Placement;
use crate::pods::PodWatch;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::wait_seen_gone;
use crate::workloads::ready_since;

/// Whether a mover of this claim shows nothing but whether the class works: another pod mounts the
/// source already, and lets a mover stand beside it.
pub fn is_suited(migration: &Migration, watch: &PodWatch) -> bool {
    let record = &migration.record;
    let pods = watch.now();
    let mut users = consumers(&pods, &record.claim.name);
    record.destination.is_none()
        && !record.manifest.is_for_one_pod()
        && users.any(|user| user.node.is_some() && ready_since(&user.pod).is_some())
}

/// Makes the staging claim, and returns where its mover goes.
pub async fn ask(
    run: &Run,
    migration: &Migration,
    watch: &PodWatch,
) -> Result<(PersistentVolumeClaim, Placement), Stop> {
    let placement = placement(run, migration, watch).await?;
    let mut claim = staging_claim(&migration.record, None);
    mark(run, &mut claim.metadata);
    let labels = claim.metadata.labels.get_or_insert_default();
    labels.insert(names::ROLE.into(), names::ROLE_TRIAL.into());
    select_node(run, &mut claim, placement.node.as_deref());
    let claims = migration.claims(&run.cluster);
    let claim = run.cluster.create(&claims, &claim).await?;
    Ok((claim, placement))
}

/// Waits for a volume, where it is to be had before a pod asks for it.
pub async fn provisioned(
    run: &Run,
    migration: &Migration,
    claim: &PersistentVolumeClaim,
) -> Result<(), Stop> {
    let namespace = &migration.record.claim.namespace;
    let seen = run.cluster.claims_seen(namespace).await?;
    ahead::wait(&seen, claim, run.config.stage_limit()).await
}

/// Makes the mover, and waits until it has started: then it has mounted what was provisioned. What
/// becomes of its first order is for its group to hear.
pub async fn start(
    run: &Run,
    migration: &Migration,
    watch: &PodWatch,
    placement: &Placement,
) -> Result<Pod, Stop> {
    let first = warm::first(run, migration, watch)?;
    let mut mover = first_mover(run, migration, placement, first.as_ref())?;
    mark(run, &mut mover.metadata);
    let pods = migration.pods(&run.cluster);
    let mover = run.cluster.create(&pods, &mover).await?;
    has_started(run, &mover, watch).await?;
    Ok(watch.mover(&mover.name_any()).unwrap_or(mover))
}

/// Whose it is, and what collects it with the chart where no Job removes it.
fn mark(run: &Run, metadata: &mut ObjectMeta) {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(names::RELEASE.into(), run.config.release().full_name());
    metadata.owner_references = Some(run.cluster_owner.iter().cloned().collect());
}

/// The staging claim of a claim that has a record now, where it was made as a trial: an ordinary one
/// from here on, that nothing collects. None if it is not what is needed any more; then it is gone.
pub async fn adopt(
    run: &Run,
    migration: &Migration,
    early: PersistentVolumeClaim,
    wanted: &PersistentVolumeClaim,
) -> Result<Option<PersistentVolumeClaim>, Stop> {
    let claims = migration.claims(&run.cluster);
    if is_as_wanted(&early, wanted) {
        let patch = json!({"metadata": {
            "labels": {names::ROLE: names::ROLE_STAGING},
            "annotations": {names::RELEASE: null},
            "ownerReferences": null,
        }});
        let adopted = run.cluster.update(&claims, early, |claim| {
            let is_early = names::is_trial(&claim.name_any(), claim.labels());
            Ok(is_early.then(|| patch.clone()))
        });
        return Ok(Some(adopted.await?));
    }
    tracing::info!(claim = %migration.record.claim, "what was tried for it is not what it needs now; it is staged anew");
    remove_any(run, migration).await?;
    let namespace = &migration.record.claim.namespace;
    let seen = run.cluster.claims_seen(namespace).await?;
    let deleted = early.clone();
    run.cluster.delete(&claims, early, None, |_| Ok(())).await?;
    wait_seen_gone(&seen, deleted, run.config.stage_limit()).await?;
    Ok(None)
}

/// Whether a claim asks for the same, in the same place. Pure.
fn is_as_wanted(early: &PersistentVolumeClaim, wanted: &PersistentVolumeClaim) -> bool {
    let asked = |claim: &PersistentVolumeClaim| {
        let spec = claim.spec.clone().unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests);
        let modes = (spec.access_modes, spec.volume_mode);
        (spec.storage_class_name, modes, requests)
    };
    // A provisioner that found no room on the node has taken it off: then the scheduler chose.
    let node = |claim| ahead::selected(claim);
    asked(early) == asked(wanted)
        && early.metadata.deletion_timestamp.is_none()
        && (node(wanted).is_none() || node(early) == node(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::from;

    #[test]
    fn a_claim_is_adopted_if_it_asks_for_the_same_in_the_same_place() {
        let claim = |storage: &str, node: &str| -> PersistentVolumeClaim {
            let mut claim: PersistentVolumeClaim =
                from(json!({"metadata": {"name": "staging"}, "spec": {
                "storageClassName": "b", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": storage}}}}));
            ahead::select(&mut claim, node);
            claim
        };
        let early = claim("1Gi", "n1");
        assert!(is_as_wanted(&early, &claim("1Gi", "n1")));
        assert!(!is_as_wanted(&early, &claim("2Gi", "n1")), "it was resized");
        assert!(
            !is_as_wanted(&early, &claim("1Gi", "n2")),
            "its consumer has moved"
        );
        let mut anywhere = claim("1Gi", "n1");
        anywhere.metadata.annotations = None;
        assert!(is_as_wanted(&early, &anywhere));
        let mut going = early.clone();
        going.metadata.deletion_timestamp = Some(from(json!("2026-12-01T00:00:00Z")));
        assert!(!is_as_wanted(&going, &claim("1Gi", "n1")));
    }
}
