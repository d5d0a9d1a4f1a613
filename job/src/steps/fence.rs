//! Retained → Fenced: admission refuses new consumers, claims under the name, and scale-ups; a
//! probe was refused, by us, everywhere.

use std::collections::BTreeSet;

use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Consumer, Record};
use serde_json::json;

use crate::claim::manifest;
use crate::migration::{Group, Migration};
use crate::pods::{PodWatch, Wanted};
use crate::run::Run;
use crate::stop::Stop;
use crate::workloads;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    // From before the proof, and without a gap from here: what comes in late is seen.
    let wanted = Wanted {
        claims: group
            .claims
            .iter()
            .map(|claim| claim.record.claim.name.clone())
            .collect(),
        movers: group.claims.iter().map(Migration::staging_name).collect(),
    };
    let watch = PodWatch::start(&run.cluster, &group.namespace, wanted).await?;

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

    let pods = watch.now();
    for migration in group.at(Phase::Retained) {
        let known: BTreeSet<String> = migration
            .record
            .consumers
            .iter()
            .map(|c| c.uid.clone())
            .collect();
        let new = pods
            .present(&migration.record.claim.name)
            .filter(|pod| !known.contains(&pod.uid));
        let new: Vec<Consumer> = new
            .map(|pod| Consumer {
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                node: pod.node.clone().unwrap_or_default(),
            })
            .collect();
        migration.record.consumers.extend(new);
        migration.advance(&run.cluster).await?;
    }
    group.watch = Some(watch);
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
