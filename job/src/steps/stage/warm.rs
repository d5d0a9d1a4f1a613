//! Warm passes: most of the copy is done while the application runs.

use std::future::pending;
use std::time::Duration;

use jiff::Timestamp;
use pvmigrate_record::order::What;
use pvmigrate_record::phase::Phase;
use serde_json::json;

use super::placement::consumers;
use crate::migration::{Group, Migration};
use crate::mover::orders::{Answer, carry_out};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::copy::failed;
use crate::stop::Stop;

/// After so many seconds what has changed since the last warm pass is copied once more, before the
/// application is stopped.
const STALE: f64 = 5.0;

/// After so long what is known so far is saved before the passes are done.
const LONG: Duration = Duration::from_secs(5);

/// How the warm passes over a claim ended.
pub enum Warmed {
    /// Another would not make the final one shorter; or none is wanted, or can be heard of.
    Enough,
    /// The mover is no more.
    Died(String),
}

/// Gives the warm order, where it is worth one: a claim that nobody uses has no downtime.
pub async fn passes(
    run: &Run,
    migration: &mut Migration,
    watch: &PodWatch,
) -> Result<Warmed, Stop> {
    let is_used = consumers(&watch.now(), &migration.record.claim.name)
        .next()
        .is_some();
    if !run.config.warm || !is_used {
        return Ok(Warmed::Enough);
    }
    // If they take long, whoever takes over finds the destination by its UID.
    let mut known = migration.clone();
    let saved = async {
        tokio::time::sleep(LONG).await;
        known.save(&run.cluster, json!({})).await?;
        pending().await
    };
    tokio::select! {
        warmed = order(run, migration, watch) => warmed,
        failed = saved => failed,
    }
}

/// One more order for the claims of a group whose last pass was long ago: others of the group took
/// longer, or the group had to wait for its turn.
pub async fn refresh(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let (now, watch) = (Timestamp::now(), group.watch()?);
    let is_stale = |migration: &Migration| {
        let staged = migration.record.times.get(&Phase::Staged);
        migration.record.warm.is_some()
            && staged.is_some_and(|staged| now.duration_since(*staged).as_secs_f64() > STALE)
    };
    let stale = group.at(Phase::Staged).filter(|claim| is_stale(claim));
    futures::future::try_join_all(stale.map(async |migration| {
        match order(run, migration, &watch).await? {
            Warmed::Enough => Ok(()),
            Warmed::Died(why) => Err(Stop::Moved(why)),
        }
    }))
    .await?;
    Ok(())
}

async fn order(run: &Run, migration: &mut Migration, watch: &PodWatch) -> Result<Warmed, Stop> {
    let claim = migration.record.claim.clone();
    let mut warm = migration.record.warm.clone().unwrap_or_default();
    let answer = carry_out(run, migration, watch, What::Warm, |pass| {
        warm.add(pass);
        tracing::info!(
            %claim,
            pass = pass.pass,
            files = pass.totals.files,
            changed = pass.totals.changed,
            bytes = pass.totals.bytes,
            seconds = pass.seconds,
            next_seconds = pass.next_seconds,
            settled = pass.settled,
            "warm pass done"
        );
    })
    .await?;
    if warm.passes > 0 {
        migration.record.warm = Some(warm);
    }
    match answer {
        Answer::Done(report) if report.ok => Ok(Warmed::Enough),
        // Nothing was stopped for it yet.
        Answer::Done(report) => Err(failed(migration, &report)),
        Answer::Ended(why) | Answer::Deleted(why) => Ok(Warmed::Died(why)),
        Answer::Unheard(why) => {
            tracing::warn!(%claim, %why, "its warm passes cannot be waited for; the final one may take as long as all of them");
            Ok(Warmed::Enough)
        }
    }
}
