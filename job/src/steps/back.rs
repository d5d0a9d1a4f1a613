//! Ways back. A claim that cannot go on returns to its source, and its application with it; one
//! whose copy may miss a write starts it again.

use jiff::Timestamp;
use kube::ResourceExt;
use pvmigrate_record::phase::{Event, Heading, Phase};
use pvmigrate_record::record::Outcome;
use serde_json::json;

use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::steps::{rebind, reserve, vacate};
use crate::stop::Stop;

/// Turns a group around: every claim heads for its source. Fails where nothing may go back.
pub async fn turn(run: &Run, group: &mut Group, why: &str) -> Result<(), Stop> {
    tracing::error!(%why, "the group goes back to its sources");
    group.note_failure(why, Timestamp::now());
    for migration in &mut group.claims {
        if migration.record.heading == Heading::Source {
            // Turned by an earlier Job that ended before it had turned them all.
            continue;
        }
        let claim_on_source = claim_on_source(run, migration).await?;
        migration
            .record
            .apply(Event::TurnBack { claim_on_source }, Timestamp::now())?;
        migration.record.outcome = Some(Outcome::Failed);
        migration.take_over(&run.cluster, &run.config.pod).await?;
        migration.mark_claim(&run.cluster).await?;
        run.fence.note(&migration.record).await;
    }
    Ok(())
}

/// Starts the copy of a group again: what is still on its source is looked at from the beginning;
/// what has left it is put back first.
pub async fn repeat(run: &Run, group: &mut Group, why: &str) -> Result<(), Stop> {
    tracing::warn!(%why, "the copy starts again");
    group.watch = None;
    for migration in &mut group.claims {
        let event = if migration.record.phase <= Phase::Reserved {
            Event::Resume
        } else {
            Event::TurnBack {
                claim_on_source: false,
            }
        };
        migration.record.apply(event, Timestamp::now())?;
        migration.take_over(&run.cluster, &run.config.pod).await?;
    }
    put_back(run, group).await
}

/// Brings claims that were turned around only to be copied again back to their sources, and turns
/// them to their destinations.
pub async fn put_back(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let away = |group: &Group| {
        group
            .claims
            .iter()
            .any(|claim| claim.record.heading == Heading::Source)
    };
    if !away(group) {
        return Ok(());
    }
    // The steps work on the claims of their phase: those that were not away are at Planned.
    reserve::run(run, group).await?;
    vacate::run(run, group).await?;
    rebind::run(run, group).await?;
    for migration in &mut group.claims {
        if (migration.record.phase, migration.record.heading) == (Phase::Rebound, Heading::Source) {
            migration.record.apply(Event::TryAgain, Timestamp::now())?;
            migration.save(&run.cluster, json!({})).await?;
        }
    }
    Ok(())
}

/// Whether the claim exists, and is on its source. One that is on its way out is waited for.
async fn claim_on_source(run: &Run, migration: &Migration) -> Result<bool, Stop> {
    let claims = migration.claims(&run.cluster);
    let name = &migration.record.claim.name;
    let Some(claim) = run.cluster.get(&claims, name).await? else {
        return Ok(false);
    };
    if claim.metadata.deletion_timestamp.is_some() {
        let uid = claim.uid().unwrap_or_default();
        crate::wait::wait_gone(&claims, name, &uid, run.config.freeze_limit()).await?;
        return Ok(false);
    }
    let volume = claim.spec.and_then(|spec| spec.volume_name);
    Ok(volume.as_deref() == Some(migration.record.source.name.as_str()))
}
