//! Frozen → Copied → Verified: the pass that was ordered after Frozen ended well, and the copy
//! equals the source. All claims of a group get here before one of them is swapped.

use std::time::Duration;

use futures::future::try_join_all;
use futures::io::AsyncBufReadExt;
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use pvmigrate_record::names;
use pvmigrate_record::order::{Level, Order, PassReport, Report, Verified, What};
use pvmigrate_record::phase::{Event, Heading, Phase};
use serde_json::json;

use crate::causes;
use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::stop::Stop;

/// How long a mover may say nothing: it reports its progress every second.
const SILENCE: Duration = Duration::from_secs(120);

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    try_join_all(
        group
            .at(Phase::Frozen)
            .map(|migration| copy(run, migration)),
    )
    .await?;
    Ok(())
}

async fn copy(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    if migration.record.heading == Heading::Destination {
        let report = ordered(run, migration).await?;
        if !report.ok {
            let first = report
                .errors
                .first()
                .map_or_else(String::new, |e| format!(": {}: {}", e.path, e.reason));
            let message = format!(
                "the copy of claim {} failed on {} paths{first}",
                migration.record.claim, report.error_count
            );
            migration.record.pass = Some(report);
            return Err(Stop::Refused(message));
        }
        migration.record.pass = Some(report);
    }
    // Saved together with Verified: the report is about both.
    migration
        .record
        .apply(Event::Advance, jiff::Timestamp::now())?;
    Ok(())
}

pub async fn verify(run: &Run, group: &mut Group) -> Result<(), Stop> {
    for migration in group.at(Phase::Copied) {
        if migration.record.heading == Heading::Destination {
            let (claim, asked) = (&migration.record.claim, run.config.mover_verify);
            let pass = migration.record.pass.as_ref();
            let verified = pass.and_then(|pass| pass.verified.as_ref());
            is_proven(verified, asked)
                .map_err(|why| Stop::Refused(format!("the copy of claim {claim} {why}")))?;
            if verified.is_none() {
                tracing::warn!(%claim, "the copy was NOT compared with its source: mover.verify is none");
            }
        }
    }
    try_join_all(
        group
            .at(Phase::Copied)
            .map(|migration| migration.advance(&run.cluster)),
    )
    .await?;
    Ok(())
}

/// Whether a copy was compared as was asked for, and found equal; or, as a clause, why not.
fn is_proven(verified: Option<&Verified>, asked: Level) -> Result<(), String> {
    let Some(verified) = verified else {
        return if asked == Level::None {
            Ok(())
        } else {
            Err("was not compared with its source".into())
        };
    };
    let (source, destination) = (&verified.source_digest, &verified.destination_digest);
    if source.is_empty() || source != destination {
        return Err(format!("does not equal its source: {verified:?}"));
    }
    if verified.level < asked {
        let (done, asked) = (verified.level.name(), asked.name());
        return Err(format!(
            "was compared with its source as `{done}` says, where `{asked}` is asked for"
        ));
    }
    Ok(())
}

/// Gives the final order and waits for the report that echoes it.
async fn ordered(run: &Run, migration: &Migration) -> Result<PassReport, Stop> {
    let pods = migration.pods(&run.cluster);
    let name = migration.staging_name();
    let pod = run
        .cluster
        .get(&pods, &name)
        .await?
        .ok_or_else(|| Stop::Repeat(format!("mover {name} was deleted by somebody else")))?;
    let order = Order {
        pod: pod.uid().unwrap_or_default(),
        sequence: migration.record.epoch,
        what: What::Final,
    };
    let text = serde_json::to_string(&order).map_err(|error| Stop::Api(error.to_string()))?;
    run.cluster
        .update(&pods, pod, |_| {
            Ok(Some(
                json!({"metadata": {"annotations": {names::ORDER: text}}}),
            ))
        })
        .await?;
    follow(run, &pods, &name, &order).await
}

/// Reads the mover's lines until the report; the termination message holds it too, for when the
/// lines cannot be followed.
async fn follow(run: &Run, pods: &Api<Pod>, name: &str, order: &Order) -> Result<PassReport, Stop> {
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut heard = tokio::time::Instant::now();
    loop {
        if let Ok(log) = pods.log_stream(name, &params).await {
            let lines = log.lines();
            pin_mut!(lines);
            while let Ok(Some(Ok(line))) = tokio::time::timeout(SILENCE, lines.next()).await {
                heard = tokio::time::Instant::now();
                match serde_json::from_str::<Report>(&line) {
                    Ok(Report::Pass(report)) if report.order.as_ref() == Some(order) => {
                        return Ok(*report);
                    }
                    Ok(Report::Progress { entries, bytes }) => {
                        tracing::info!(mover = name, entries, bytes, "copying");
                    }
                    _ => {}
                }
            }
        }
        let pod = run.cluster.get(pods, name).await?;
        let pod =
            pod.ok_or_else(|| Stop::Repeat(format!("mover {name} was deleted by somebody else")))?;
        if let Some(report) = last_words(&pod) {
            return match serde_json::from_str::<PassReport>(&report) {
                Ok(report) if report.order.as_ref() == Some(order) => Ok(report),
                _ => Err(Stop::Refused(format!(
                    "mover {name} ended without a report: {}",
                    causes::of_pod(&pod)
                ))),
            };
        }
        if heard.elapsed() > SILENCE {
            return Err(Stop::Refused(format!(
                "mover {name} has said nothing for {} s: {}",
                SILENCE.as_secs(),
                causes::of_pod(&pod)
            )));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The termination message of a mover that has ended; empty if it left none.
fn last_words(pod: &Pod) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = containers.first()?.state.as_ref()?.terminated.as_ref()?;
    Some(ended.message.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_nothing_is_to_be_compared_a_copy_needs_no_proof() {
        let verified = |level, source: &str, destination: &str| Verified {
            level,
            source_digest: source.into(),
            destination_digest: destination.into(),
            ..Verified::default()
        };
        let equal = |level| verified(level, "d", "d");
        for asked in Level::ALL {
            assert_eq!(is_proven(None, asked).is_ok(), asked == Level::None);
            for level in Level::ALL {
                assert_eq!(
                    is_proven(Some(&equal(level)), asked).is_ok(),
                    level >= asked
                );
                assert!(is_proven(Some(&verified(level, "", "")), asked).is_err());
                assert!(is_proven(Some(&verified(level, "d", "e")), asked).is_err());
            }
        }
        assert_eq!(
            is_proven(Some(&equal(Level::Metadata)), Level::Full).unwrap_err(),
            "was compared with its source as `metadata` says, where `full` is asked for"
        );
    }
}
