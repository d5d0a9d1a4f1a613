//! Groups, driven: several at once, in the order of the schedule.

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use pvmigrate_record::phase::Event;
use pvmigrate_record::record::Outcome;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::Run;
use super::order::schedule;
use super::turn::Place;
use super::windows::Windows;
use crate::drive::{End, Will, drive, take_over};
use crate::fence::Expected;
use crate::migration::Group;
use crate::mover::anchor;
use crate::observe::Observed;
use crate::plan::stopped_by;
use crate::report::GroupLine;
use crate::schedule::{How, Schedule};
use crate::stop::Stop;

#[derive(Clone, Copy, PartialEq)]
pub enum Begun {
    Now,
    ByAnEarlierJob,
}

/// Drives groups, several at once. A group that cannot go on by itself stops the process, after
/// the others have ended: the next pod goes on with it.
pub async fn drive_all(
    run: &Run,
    groups: Vec<Group>,
    observed: &Observed,
    begun: Begun,
) -> Result<(), Stop> {
    let schedule = schedule(run, &groups, observed);
    let driven = run.fence.guarding(drive_by(run, groups, schedule, begun));
    let driven = driven.await;
    anchor::all_gone(run).await;
    driven
}

async fn drive_by(
    run: &Run,
    groups: Vec<Group>,
    mut schedule: Schedule,
    begun: Begun,
) -> Result<(), Stop> {
    let windows = Windows::new(run.config.parallelism_stopped_per_node.get());
    let waiting = groups.into_iter().map(|group| {
        let expected = run.fence.expect(&group.namespace);
        Some((group, expected))
    });
    let mut waiting: Vec<_> = waiting.collect();
    let mut running: FuturesUnordered<BoxFuture<(usize, Result<How, Stop>)>> =
        FuturesUnordered::new();
    let (turns, _) = watch::channel(schedule.turns());
    let (gone, mut movers_gone) = mpsc::unbounded_channel();
    let mut stopped = Ok(());
    loop {
        while let Some((index, pod)) = schedule.leave() {
            if let Some((group, _)) = waiting[index].take() {
                let left = async move { leave(run, group, &stopped_by(&pod)).await };
                running.push(Box::pin(
                    async move { (index, left.await.map(|()| How::Well)) },
                ));
            }
        }
        while let Some(index) = schedule.start() {
            if let Some((group, expected)) = waiting[index].take() {
                let nodes = schedule.stops_on(index);
                let place = Place::new(turns.subscribe(), index, &windows, nodes, gone.clone());
                let driven = drive_one(run, (group, expected), place, begun);
                running.push(Box::pin(async move {
                    (index, driven.await.map(|end| how(&end)))
                }));
            }
        }
        turns.send_replace(schedule.turns());
        tokio::select! {
            ended = running.next() => {
                let Some((index, end)) = ended else {
                    return stopped;
                };
                schedule.end(index, *end.as_ref().unwrap_or(&How::Interrupted));
                stopped = stopped.and(end.map(|_| ()));
            }
            Some(index) = movers_gone.recv() => schedule.movers_gone(index),
        }
    }
}

fn how(end: &End) -> How {
    match end {
        End::Migrated => How::Well,
        End::TakenBack(_) | End::Unfinished(_) => How::Badly,
    }
}

async fn drive_one(
    run: &Run,
    (mut group, expected): (Group, Expected<'_>),
    place: Place<'_>,
    begun: Begun,
) -> Result<End, Stop> {
    let end = async {
        if begun == Begun::ByAnEarlierJob {
            tracing::info!(group = %group.name, "an earlier Job has begun this; going on");
            take_over(run, &mut group, Will::GoOn).await?;
        }
        drive(run, &mut group, &place, expected).await
    }
    .await;
    let name = &group.name;
    match &end {
        Ok(End::Migrated) => {
            let records = group.claims.iter().map(|migration| &migration.record);
            tracing::info!(group = %name, took = %GroupLine::of(records).text(), "migrated");
        }
        Ok(End::TakenBack(why)) => {
            tracing::error!(group = %name, %why, "failed; its applications run on their sources");
        }
        Ok(End::Unfinished(why)) => tracing::error!(group = %name, %why, "migrated, but not well"),
        Err(stop) => tracing::error!(group = %name, why = %stop, "interrupted"),
    }
    // What a newer Job has taken over is not ours to report, and the fence may be its own.
    if !matches!(end, Err(Stop::Superseded(_))) {
        run.note([&group]).await?;
        run.fence.tidy().await?;
    }
    end
}

/// Ends a group that nothing was done of yet: its claims are on their sources, where they stay.
async fn leave(run: &Run, mut group: Group, why: &str) -> Result<(), Stop> {
    tracing::error!(group = %group.name, %why, "does not begin");
    let now = Timestamp::now();
    group.note_failure(why, now);
    for migration in &mut group.claims {
        let record = &mut migration.record;
        record.outcome = Some(Outcome::Failed);
        // On its source, and with nothing to make true on the way there.
        let claim_on_source = true;
        record.apply(Event::TurnBack { claim_on_source }, now)?;
        record.apply(Event::Abandon, now)?;
        migration.save(&run.cluster, json!({})).await?;
    }
    run.note([&group]).await
}
