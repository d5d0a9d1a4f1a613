//! Rebound → Restored: every claim of the group has its lasting volume with its lasting policy,
//! and the fence is off.

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::Record;
use serde_json::json;

use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::wait_gone;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    try_join_all(
        group
            .at(Phase::Rebound)
            .map(|migration| settle(run, migration)),
    )
    .await?;
    // From the first of these words on the fence may be open, and a pod of anybody's may write to
    // the destination: nothing goes back any more. See `Group::is_open`.
    try_join_all(
        group
            .at(Phase::Rebound)
            .map(|migration| let_go(run, migration)),
    )
    .await?;
    let records: Vec<&Record> = group.claims.iter().map(|claim| &claim.record).collect();
    run.fence.lower(&records).await?;
    run.fence.prove_open(&records).await?;
    // Saved when its applications run again: a Job that takes over finds the fence off.
    for migration in group.at(Phase::Rebound) {
        migration.reach()?;
    }
    group.watch = None;
    Ok(())
}

/// Everything that may be refused, and be a reason to go back.
async fn settle(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    match migration.record.heading {
        Heading::Destination => {
            let policy = run.lasting_policy(&migration.record);
            let state = migration.destination_volume(&run.cluster).await?;
            migration.destination_state = Some(set_policy(run, state, &policy).await?);
            Ok(())
        }
        Heading::Source => end_mover(run, migration).await,
    }
}

/// Says that the claim is fenced no more.
async fn let_go(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    migration.record.fence.on = false;
    let with = match migration.record.heading {
        Heading::Destination => json!({}),
        Heading::Source => {
            let policy = migration.record.source.reclaim_policy.clone();
            json!({"spec": {"persistentVolumeReclaimPolicy": policy}})
        }
    };
    migration.save(&run.cluster, with).await
}

async fn set_policy(
    run: &Run,
    state: PersistentVolume,
    policy: &str,
) -> Result<PersistentVolume, Stop> {
    let patch = json!({"spec": {"persistentVolumeReclaimPolicy": policy}});
    run.cluster
        .update(&run.cluster.all(), state, |state: &PersistentVolume| {
            let is = state
                .spec
                .as_ref()
                .and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
            Ok((is != Some(policy)).then(|| patch.clone()))
        })
        .await
}

/// On the way back a mover may still stand ready: it must not pin the source when its application
/// comes back.
pub async fn end_mover(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let pods = migration.pods(&run.cluster);
    let name = migration.staging_name();
    let Some(pod): Option<Pod> = run.cluster.get(&pods, &name).await? else {
        return Ok(());
    };
    let uid = pod.uid().unwrap_or_default();
    // A last pass that it was ordered to make when it ends is of no use to anybody.
    run.cluster.delete(&pods, pod, Some(1), |_| Ok(())).await?;
    wait_gone(&pods, &name, &uid, run.config.freeze_limit()).await
}
