//! Reserved → Vacated: the old claim is gone. The fence holds its name.

use std::sync::Mutex;

use futures::future::try_join_all;
use pvmigrate_record::phase::{Heading, Phase};

use crate::claim::refresh;
use crate::migration::{Group, Migration};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::reserve::nobody_came;
use crate::stop::Stop;
use crate::wait::wait_seen_gone;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let Group { claims, watch, .. } = group;
    let watch = watch.as_deref();
    let reserved = claims
        .iter_mut()
        .filter(|claim| claim.record.phase == Phase::Reserved);
    try_join_all(reserved.map(|migration| vacate(run, migration, watch))).await?;
    Ok(())
}

async fn vacate(
    run: &Run,
    migration: &mut Migration,
    watch: Option<&PodWatch>,
) -> Result<(), Stop> {
    let claims = migration.claims(&run.cluster);
    // The volume that the claim is leaving: a claim on any other is not the one we know.
    let leaves = match migration.record.heading {
        Heading::Destination => Some(migration.record.source.name.clone()),
        Heading::Source => migration
            .record
            .destination
            .as_ref()
            .map(|d| d.name.clone()),
    };
    if let Some(claim) = migration.claim_seen(&run.cluster).await? {
        let volume = claim
            .spec
            .as_ref()
            .and_then(|spec| spec.volume_name.clone());
        if volume == leaves {
            // As it is deleted, by its resourceVersion: nothing written on it is lost.
            let last = Mutex::new(migration.record.manifest.clone());
            run.cluster
                .delete(&claims, claim.clone(), None, |claim| {
                    migration.still_ours(claim)?;
                    if let Ok(mut last) = last.lock() {
                        refresh(&mut last, claim);
                    }
                    Ok(())
                })
                .await?;
            if let Ok(last) = last.into_inner() {
                migration.record.manifest = last;
            }
            let seen = run
                .cluster
                .claims_seen(&migration.record.claim.namespace)
                .await?;
            wait_seen_gone(&seen, claim, run.config.freeze_limit()).await?;
        }
    }
    // Whatever is decided next has to start from a claim that is gone. Saved when it is back: a Job
    // that takes over sees that it is not there.
    migration.reach()?;
    if migration.record.heading == Heading::Destination {
        nobody_came(migration, watch)?;
    }
    Ok(())
}
