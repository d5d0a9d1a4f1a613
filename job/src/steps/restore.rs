//! Rebound → Restored: every claim of the group has its lasting volume, and the fence is off. The
//! volume's lasting policy comes when its applications run again: until then nothing may reclaim it.

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::Record;
use serde_json::json;

use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::wait_gone;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let back = group.at(Phase::Rebound);
    let back = back.filter(|migration| migration.record.heading == Heading::Source);
    try_join_all(back.map(|migration| end_mover(run, migration))).await?;
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
    Ok(())
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
