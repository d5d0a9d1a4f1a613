//! Ways back. A claim that cannot go on returns to its source, and its application with it; one
//! whose copy may miss a write starts it again.

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::{Event, Heading, Phase};
use pvmigrate_record::record::Outcome;
use serde_json::json;

use crate::migration::{Group, Migration};
use crate::mover::anchor;
use crate::run::Run;
use crate::steps::restore::end_mover;
use crate::steps::{rebind, reserve, vacate};
use crate::stop::Stop;
use crate::wait::wait_gone;

/// Turns a group around: every claim heads for its source. Fails where nothing may go back.
pub async fn turn(run: &Run, group: &mut Group, why: &str, outcome: Outcome) -> Result<(), Stop> {
    if outcome == Outcome::Aborted {
        tracing::info!(%why, group = %group.name, "the group goes back to its sources");
    } else {
        tracing::error!(%why, "the group goes back to its sources");
    }
    if outcome == Outcome::Failed {
        group.note_failure(why, Timestamp::now());
    }
    if is_namespace_going(run, &group.namespace).await? {
        return abandon(run, group).await;
    }
    anchor::clear(run, group).await?;
    for migration in &mut group.claims {
        if migration.record.heading == Heading::Source && migration.record.outcome.is_some() {
            // Turned by an earlier Job that ended before it had turned them all.
            continue;
        }
        if migration.record.heading == Heading::Destination {
            let claim = claim_now(run, migration).await?;
            let volume = claim.and_then(|claim| claim.spec?.volume_name);
            let claim_on_source = volume.as_ref() == Some(&migration.record.source.name);
            migration
                .record
                .apply(Event::TurnBack { claim_on_source }, Timestamp::now())?;
        }
        migration.record.outcome = Some(outcome);
        migration.take_over(&run.cluster, &run.config.pod).await?;
        migration.mark_claim(&run.cluster).await?;
        run.fence.note(&migration.record).await;
    }
    Ok(())
}

/// Ends the migrations of a namespace that is deleted: nothing can be made there again. Both
/// volumes keep their policy Retain, so that its owner can still have the data.
async fn abandon(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let why = format!(
        "namespace {} is deleted; the volumes of its claims are kept (Retain)",
        group.namespace
    );
    tracing::error!(%why, "the group is abandoned");
    group.note_failure(&why, Timestamp::now());
    for migration in &mut group.claims {
        migration.record.fence.on = false;
        migration.record.outcome = Some(Outcome::Failed);
        migration.record.apply(Event::Abandon, Timestamp::now())?;
        migration.save(&run.cluster, json!({})).await?;
        run.fence.lower(&[&migration.record]).await?;
    }
    Ok(())
}

async fn is_namespace_going(run: &Run, name: &str) -> Result<bool, Stop> {
    let namespace = run
        .cluster
        .get(&run.cluster.all::<Namespace>(), name)
        .await?;
    Ok(namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// Starts the copy of a group again: what is still on its source is looked at from the beginning;
/// what has left it is put back first.
pub async fn repeat(run: &Run, group: &mut Group, why: &str) -> Result<(), Stop> {
    tracing::warn!(%why, "the copy starts again");
    anchor::clear(run, group).await?;
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

/// Makes way for a consumer that has to run elsewhere: its application comes first.
pub async fn stage_elsewhere(run: &Run, group: &mut Group, why: &str) -> Result<(), Stop> {
    tracing::warn!(%why, "the movers make way, and will stand ready where the consumers run");
    // Asked first, all end together.
    anchor::lift(run, group).await?;
    try_join_all(
        group
            .claims
            .iter()
            .map(|migration| end_mover(run, migration)),
    )
    .await?;
    group.watch = None;
    for migration in &mut group.claims {
        migration.record.apply(Event::Resume, Timestamp::now())?;
        migration.save(&run.cluster, json!({})).await?;
    }
    Ok(())
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

/// What there is under the claim's name. A claim that is on its way out is waited for: it can never
/// be saved again.
pub async fn claim_now(
    run: &Run,
    migration: &Migration,
) -> Result<Option<PersistentVolumeClaim>, Stop> {
    let claims = migration.claims(&run.cluster);
    let name = &migration.record.claim.name;
    let Some(claim) = run.cluster.get(&claims, name).await? else {
        return Ok(None);
    };
    if claim.metadata.deletion_timestamp.is_some() {
        let uid = claim.uid().unwrap_or_default();
        wait_gone(&claims, name, &uid, run.config.freeze_limit()).await?;
        return Ok(None);
    }
    Ok(Some(claim))
}
