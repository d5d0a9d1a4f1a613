//! Frozen → Copied → Verified: the pass that was ordered after Frozen ended well, and the copy
//! equals the source. All claims of a group get here before one of them is swapped.

use futures::future::try_join_all;
use pvmigrate_record::order::{Level, PassReport, Verified, What};
use pvmigrate_record::phase::{Event, Heading, Phase};

use serde_json::json;

use crate::migration::{Group, Migration};
use crate::mover::orders::{Answer, carry_out};
use crate::mover::parting;
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::stage::stand_ready;
use crate::stop::Stop;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let watch = group.watch.clone();
    try_join_all(
        group
            .at(Phase::Frozen)
            .map(|migration| copy(run, migration, watch.as_deref())),
    )
    .await?;
    Ok(())
}

async fn copy(run: &Run, migration: &mut Migration, watch: Option<&PodWatch>) -> Result<(), Stop> {
    if migration.record.heading == Heading::Destination {
        let watch = watch.ok_or_else(|| Stop::Repeat("the pods were not watched".into()))?;
        if migration.record.manifest.is_for_one_pod() {
            // None could stand ready beside the consumer.
            Box::pin(stand_ready(run, migration, watch)).await?;
        }
        let report = if let Some(order) = migration.parting.take() {
            parting::carry_out(run, migration, &order, watch).await?
        } else {
            let moved = migration.clone();
            // The order needs no record: a Job that takes over repeats the copy whatever it finds.
            let saved = migration.save(&run.cluster, json!({}));
            tokio::try_join!(saved, final_pass(run, &moved, watch))?.1
        };
        let outcome = if report.ok {
            Ok(())
        } else {
            Err(failed(migration, &report))
        };
        migration.record.pass = Some(report);
        outcome?;
    }
    // Saved together with Verified: the report is about both.
    migration
        .record
        .apply(Event::Advance, jiff::Timestamp::now())?;
    Ok(())
}

pub fn verify(run: &Run, group: &mut Group) -> Result<(), Stop> {
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
    // Saved together with Reserved: a Job that takes over before that repeats the copy.
    for migration in group.at(Phase::Copied) {
        migration.reach()?;
    }
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
async fn final_pass(
    run: &Run,
    migration: &Migration,
    watch: &PodWatch,
) -> Result<PassReport, Stop> {
    match carry_out(run, migration, watch, What::Final, |_| {}).await? {
        Answer::Done(report) => Ok(*report),
        Answer::Deleted(why) => Err(Stop::Repeat(why)),
        Answer::Ended { why, .. } | Answer::Unheard(why) => Err(Stop::Refused(format!(
            "mover {} ended without a report: {why}",
            migration.staging_name()
        ))),
    }
}

/// Why a pass failed: how many paths, and the first of them.
pub fn failed(migration: &Migration, report: &PassReport) -> Stop {
    let first = report
        .errors
        .first()
        .map_or_else(String::new, |e| format!(": {}: {}", e.path, e.reason));
    Stop::Refused(format!(
        "the copy of claim {} failed on {} paths{first}",
        migration.record.claim, report.error_count
    ))
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
