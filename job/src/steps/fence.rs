//! Retained → Fenced: admission refuses new consumers, claims under the name, and scale-ups; a
//! probe was refused, by us, everywhere.

use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Consumer, Record};
use serde_json::json;

use crate::claim::manifest;
use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::stop::Stop;
use crate::workloads;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    for migration in group.at(Phase::Retained) {
        if migration.record.heading == Heading::Destination {
            migration.record.manifest = manifest_now(run, migration).await?;
        }
        migration.record.fence.on = true;
        let mut last = run.fence.generations().await;
        *last += 1;
        migration.record.fence.generation = *last;
        migration.save(&run.cluster, json!({})).await?;
    }
    let fenced: Vec<&Record> = group.claims.iter().map(|claim| &claim.record).collect();
    run.fence.raise(&fenced).await?;
    run.fence.prove_closed(&fenced).await?;

    let pods = group.watch()?.mark_known();
    for migration in group.at(Phase::Retained) {
        let record = &mut migration.record;
        let mounting = pods
            .seen
            .values()
            .filter(|pod| pod.claims.contains(&record.claim.name));
        // One that is gone for good needs no proof any more.
        let new: Vec<Consumer> = mounting
            .filter(|pod| !(pod.deleted && pod.ended))
            .filter(|pod| !record.consumers.iter().any(|known| known.uid == pod.uid))
            .map(|pod| Consumer {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                node: pod.node.clone().unwrap_or_default(),
            })
            .collect();
        record.consumers.extend(new);
        migration.advance(&run.cluster).await?;
    }
    Ok(())
}

/// The claim as it is now, with the owners that exist now.
async fn manifest_now(
    run: &Run,
    migration: &Migration,
) -> Result<pvmigrate_record::record::ClaimManifest, Stop> {
    let name = &migration.record.claim.name;
    let claim = run
        .cluster
        .get(&migration.claims(&run.cluster), name)
        .await?;
    let claim =
        claim.filter(|claim| claim.uid().as_deref() == Some(migration.record.claim.uid.as_str()));
    let claim = claim.ok_or_else(|| {
        Stop::refused(format!(
            "claim {} was deleted by somebody else",
            migration.record.claim
        ))
    })?;
    let mut living = Vec::new();
    for owner in claim
        .owner_references()
        .iter()
        .filter(|owner| owner.kind != "Pod")
    {
        let owner = pvmigrate_record::record::Workload {
            kind: owner.kind.clone(),
            namespace: migration.record.claim.namespace.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        };
        if workloads::exists(&run.cluster, &owner).await? {
            living.push(owner.uid);
        }
    }
    Ok(manifest(&claim, &living))
}
