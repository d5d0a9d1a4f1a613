//! Staged → Retained: neither volume can be reclaimed from here to Done. The destination is kept
//! here, the source by the write that says that it is to be fenced, the next one of its record.

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::PersistentVolume;
use pvmigrate_record::names;
use pvmigrate_record::phase::{Heading, Phase};
use serde_json::json;

use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::stop::Stop;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    try_join_all(
        group
            .at(Phase::Staged)
            .map(|migration| retain(run, migration)),
    )
    .await?;
    Ok(())
}

async fn retain(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    if migration.record.heading == Heading::Destination {
        let destination = migration.destination()?.clone();
        let state = migration.destination_volume(&run.cluster).await?;
        let patch = json!({
            "metadata": {
                "labels": {names::RUN: migration.record.run, names::ROLE: names::ROLE_DESTINATION},
                "annotations": {
                    names::SOURCE: migration.record.source.name,
                    names::RECLAIM_POLICY: destination.reclaim_policy,
                },
            },
            "spec": {"persistentVolumeReclaimPolicy": "Retain"},
        });
        let kept = run
            .cluster
            .update(&run.cluster.all::<PersistentVolume>(), state, |_| {
                Ok(Some(patch.clone()))
            })
            .await?;
        migration.destination_state = Some(kept);
    }
    migration.reach()
}
