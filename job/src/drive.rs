//! One group through all its phases, forward or back.

use jiff::Timestamp;
use kube::ResourceExt;
use pvmigrate_record::phase::{Event, Heading, Phase};
use pvmigrate_record::record::Outcome;
use serde_json::json;

use crate::fence::Expected;
use crate::migration::Group;
use crate::mover::{anchor, parting};
use crate::run::{Place, Run, Window};
use crate::steps::{self, back};
use crate::stop::Stop;

/// How often a copy is started again because a consumer came in its way.
const REPEATS: usize = 3;

/// How often a mover follows a consumer to another node.
const MOVES: usize = 10;

/// Why a group goes back that nothing is wrong with.
const ABORTED: &str = "somebody has asked to abort";

/// How a group ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Migrated,
    /// It is on its sources again, and its applications run.
    TakenBack(String),
    /// It is migrated, and its applications are not Ready, or something of it is left to do.
    Unfinished(String),
}

/// Drives a group to its end. An error is one that the next pod has to go on from.
///
/// `expected` says that it is still to be fenced.
pub async fn drive(
    run: &Run,
    group: &mut Group,
    place: &Place<'_>,
    expected: Expected<'_>,
) -> Result<End, Stop> {
    let (mut repeats, mut moves) = (0, 0);
    let mut window = None;
    let mut expected = Some(expected);
    loop {
        let stop = match Box::pin(advance(run, group, place, &mut window, &mut expected)).await {
            Ok(()) => return Ok(end_of(group)),
            Err(stop) => stop,
        };
        match stop {
            Stop::Repeat(why) if repeats < REPEATS => {
                repeats += 1;
                Box::pin(back::repeat(run, group, &why)).await?;
            }
            Stop::Moved(why) if moves < MOVES => {
                moves += 1;
                // Nothing was stopped yet.
                window = None;
                Box::pin(back::stage_elsewhere(run, group, &why)).await?;
            }
            Stop::NotReady(why) => return unfinished(run, group, why).await,
            // Applications have run on their destinations: nothing goes back by itself.
            Stop::Refused(why) if group.behind() >= Phase::Thawed => {
                return unfinished(run, group, why).await;
            }
            Stop::Repeat(why) | Stop::Refused(why) | Stop::Moved(why) => {
                let is_back = group
                    .claims
                    .iter()
                    .all(|claim| claim.record.heading == Heading::Source);
                if is_back {
                    return Err(stuck(Stop::Refused(why)));
                }
                if group.is_open() {
                    return Err(Stop::Api(format!(
                        "a pod may have written to the new volumes, so there is no way back: {why}"
                    )));
                }
                expected = None;
                back::turn(run, group, &why, Outcome::Failed)
                    .await
                    .map_err(stuck)?;
            }
            other => return Err(other),
        }
    }
}

async fn unfinished(run: &Run, group: &mut Group, why: String) -> Result<End, Stop> {
    group.note_failure(&why, Timestamp::now());
    for migration in &mut group.claims {
        migration.save(&run.cluster, json!({})).await?;
    }
    Ok(End::Unfinished(why))
}

/// A refusal on the way back is no end: the next pod goes on with it.
pub fn stuck(stop: Stop) -> Stop {
    match stop {
        Stop::Refused(why) | Stop::Repeat(why) | Stop::Moved(why) => {
            Stop::Api(format!("the way back does not go on: {why}"))
        }
        other => other,
    }
}

async fn advance<'a>(
    run: &'a Run,
    group: &mut Group,
    place: &Place<'_>,
    window: &mut Option<Window>,
    expected: &mut Option<Expected<'a>>,
) -> Result<(), Stop> {
    while group.behind() < Phase::Done {
        if group.behind() >= Phase::Fenced {
            *expected = None;
        }
        match group.behind() {
            Phase::Planned | Phase::Staged
                if expected.is_none() && group.headings() == [Heading::Destination] =>
            {
                *expected = Some(run.fence.expect(&group.namespace));
            }
            Phase::Reserved => place.movers_gone(),
            Phase::Thawed => *window = None,
            _ => {}
        }
        // From before the fence is proved, and without a gap: what comes in late is seen. A step
        // that is dropped in the middle is one that a Job has died in.
        if group.behind() <= Phase::Retained && group.headings() == [Heading::Destination] {
            let watch = group.start_watch(&run.cluster).await?;
            let name = group.name.clone();
            let step = async {
                if group.behind() == Phase::Staged && window.is_none() {
                    // As early as they may come: kubelets take a while for both.
                    parting::give(run, group).await?;
                    anchor::set(run, group).await?;
                    *window = Some(place.come(&name).await?);
                }
                steps::next(run, group).await
            };
            tokio::select! {
                biased;
                done = step => done?,
                why = watch.consumer_moved() => return Err(Stop::Moved(why)),
            }
        } else {
            steps::next(run, group).await?;
        }
    }
    Ok(())
}

fn end_of(group: &Group) -> End {
    let failed = group
        .claims
        .iter()
        .find(|claim| claim.record.outcome == Some(Outcome::Failed));
    match failed {
        Some(claim) => End::TakenBack(
            claim
                .record
                .failure
                .as_ref()
                .map_or_else(String::new, |failure| failure.message.clone()),
        ),
        None => End::Migrated,
    }
}

/// What a group is taken over for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Will {
    GoOn,
    /// Whatever can go back to its source shall.
    Abort,
}

/// Takes a group over from an earlier Job: a new epoch everywhere, and every fact that may no
/// longer hold is made true again.
pub async fn take_over(run: &Run, group: &mut Group, will: Will) -> Result<(), Stop> {
    let untouched = group.claims.iter().all(|claim| claim.record.is_untouched());
    let turned = group.claims.iter().find_map(|claim| claim.record.outcome);
    if !untouched {
        anchor::find(run, group).await?;
        anchor::clear(run, group).await?;
    }
    let mut lost = None;
    for migration in &mut group.claims {
        let (phase, heading) = (migration.record.phase, migration.record.heading);
        let there = back::claim_now(run, migration).await?;
        let uid = there.and_then(|claim| claim.uid());
        // That the old claim is gone is not recorded before the new one is there, and bound. What
        // is under the name then, ours or somebody's, has another UID.
        let is_another =
            heading == Heading::Destination && uid.as_ref() != Some(&migration.record.claim.uid);
        let is_vacated = phase == Phase::Reserved && (uid.is_none() || is_another);
        if heading == Heading::Destination && phase < Phase::Reserved && uid.is_none() {
            lost = Some(format!(
                "claim {} was deleted by somebody else",
                migration.record.claim
            ));
        }
        let event = if is_vacated {
            Event::Advance
        } else {
            Event::Resume
        };
        migration.record.apply(event, Timestamp::now())?;
        migration.take_over(&run.cluster, &run.config.pod).await?;
        if migration.record.phase < Phase::Thawed {
            migration.mark_claim(&run.cluster).await?;
        }
    }
    if untouched {
        let why = match will {
            Will::GoOn => "its run was replaced before it began",
            Will::Abort => ABORTED,
        };
        back::turn(run, group, why, Outcome::Aborted).await
    } else if let Some(outcome) = turned {
        let failures = group
            .claims
            .iter()
            .filter_map(|claim| claim.record.failure.clone());
        let why = failures
            .map(|failure| failure.message)
            .next()
            .unwrap_or_default();
        back::turn(run, group, &why, outcome).await
    } else if let Some(why) = lost {
        Box::pin(back::turn(run, group, &why, Outcome::Failed)).await
    } else if will == Will::Abort && !group.is_open() {
        back::turn(run, group, ABORTED, Outcome::Aborted).await
    } else {
        back::put_back(run, group).await
    }
    .map_err(stuck)
}
