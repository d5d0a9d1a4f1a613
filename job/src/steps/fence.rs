//! Retained → Fenced: admission refuses new consumers, claims under the name, and scale-ups; a
//! probe was refused, by us, everywhere.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{ClaimManifest, Consumer, Record};
use serde_json::json;

use crate::claim::{manifest, resize, storage};
use crate::migration::{Group, Migration};
use crate::mover::{anchor, parting};
use crate::run::Run;
use crate::steps::freeze::wait_settled;
use crate::steps::rebind::is_accepted;
use crate::stop::Stop;
use crate::workloads;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    // As long as its pods can come back by themselves.
    let is_fenced = group.claims.iter().any(|claim| claim.record.fence.on);
    wait_settled(run, group, is_fenced).await?;
    let mut has_room = true;
    for migration in group.at(Phase::Retained) {
        if migration.record.heading == Heading::Destination {
            let now = manifest_now(run, migration).await?;
            fits(run, migration, &now).await?;
            migration.record.manifest = now;
            has_room &= is_accepted(run, migration).await?;
        }
        migration.record.fence.on = true;
        let mut last = run.fence.generations().await;
        *last += 1;
        migration.record.fence.generation = *last;
        // Its old policy is in the record since Planned. This is the write that Retained is said in.
        let kept = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
        migration.save(&run.cluster, kept).await?;
    }
    if !has_room {
        // The new claims have room only when the staging claims are gone.
        anchor::clear(run, group).await?;
    }
    let records: Vec<Record> = group
        .claims
        .iter()
        .map(|claim| claim.record.clone())
        .collect();
    let fenced: Vec<&Record> = records.iter().collect();
    let untouched = fenced.iter().all(|record| record.stopped.is_none());
    let proved = async {
        run.fence.raise(&fenced).await?;
        run.fence.prove_closed(&fenced).await
    };
    let (proved, taken) = tokio::join!(proved, parting::taken(run, group));
    taken?;
    proved.map_err(|stop| match stop {
        Stop::Refused(why) if untouched => Stop::Refused(format!("{why}; nothing was stopped")),
        other => other,
    })?;

    anchor::stand(run, group).await?;

    // From here on the fence refuses another size; one may have come just before.
    for migration in group.at(Phase::Retained) {
        if migration.record.heading == Heading::Destination {
            let now = sizes_now(run, migration).await?;
            fits(run, migration, &now).await?;
        }
    }
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

/// A claim that was resized since it was staged has to fit its destination still: it would never
/// be bound to a smaller volume.
async fn fits(run: &Run, migration: &Migration, now: &ClaimManifest) -> Result<(), Stop> {
    if !resize::has_changed(&migration.record.manifest, now) {
        return Ok(());
    }
    let destination = migration.destination_volume(&run.cluster).await?;
    let capacity = destination.spec.and_then(|spec| spec.capacity);
    let claim = migration.record.claim.to_string();
    match resize::refusal(&claim, now, &storage(capacity.as_ref())) {
        Some(why) => Err(Stop::Refused(why)),
        None => Ok(()),
    }
}

/// The recorded manifest with the size that the claim has and asks for now.
pub async fn sizes_now(run: &Run, migration: &Migration) -> Result<ClaimManifest, Stop> {
    let now = manifest(&claim_now(run, migration).await?, &[]);
    Ok(ClaimManifest {
        storage: now.storage,
        capacity: now.capacity,
        ..migration.record.manifest.clone()
    })
}

async fn claim_now(run: &Run, migration: &Migration) -> Result<PersistentVolumeClaim, Stop> {
    let wanted = &migration.record.claim;
    let claim = migration.claim_seen(&run.cluster).await?;
    let claim = claim.filter(|claim| claim.uid().as_deref() == Some(wanted.uid.as_str()));
    claim.ok_or_else(|| Stop::refused(format!("claim {wanted} was deleted by somebody else")))
}

/// The claim as it is now, with the owners that exist now.
async fn manifest_now(run: &Run, migration: &Migration) -> Result<ClaimManifest, Stop> {
    let claim = claim_now(run, migration).await?;
    let mut living = Vec::new();
    for owner in claim
        .owner_references()
        .iter()
        .filter(|owner| owner.kind != "Pod")
    {
        let owner = pvmigrate_record::record::Workload {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            resource: String::new(),
            namespace: migration.record.claim.namespace.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        };
        if workloads::exists(&run.cluster, &owner).await? {
            living.push(owner.uid);
        }
    }
    Ok(ClaimManifest {
        // As they were staged.
        wishes: migration.record.manifest.wishes.clone(),
        ..manifest(&claim, &living)
    })
}
