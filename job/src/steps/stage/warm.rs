//! Warm passes: most of the copy is done while the application runs.

use std::future::pending;
use std::time::Duration;

use pvmigrate_record::order::{Order, PassReport, What};
use serde_json::json;

use super::placement::consumers;
use crate::migration::Migration;
use crate::mover::orders::{self, Answer, carry_out};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::copy::failed;
use crate::stop::Stop;

/// After so long what is known so far is saved before the passes are done.
const LONG: Duration = Duration::from_secs(5);

/// How the warm passes over a claim ended.
pub enum Warmed {
    /// Another would not make the final one shorter; or none is wanted, or can be heard of.
    Enough,
    /// The mover is no more.
    Died(String),
}

/// The order that a new mover is made with, where warm passes are worth it: so it begins at once, and
/// need not be shown another version of its pod.
pub fn first(run: &Run, migration: &Migration, watch: &PodWatch) -> Result<Option<Order>, Stop> {
    let wanted = is_worth_it(run, migration, watch);
    wanted
        .then(|| orders::first(&migration.record, What::Warm))
        .transpose()
}

/// A claim that nobody uses has no downtime.
fn is_worth_it(run: &Run, migration: &Migration, watch: &PodWatch) -> bool {
    let pods = watch.now();
    let mut consumers = consumers(&pods, &migration.record.claim.name);
    run.config.warm && consumers.next().is_some()
}

/// Has warm passes made, where they are worth it: by the order that the mover was `given`, or by a
/// new one.
pub async fn passes(
    run: &Run,
    migration: &mut Migration,
    watch: &PodWatch,
    given: Option<Order>,
) -> Result<Warmed, Stop> {
    if given.is_none() && !is_worth_it(run, migration, watch) {
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
        warmed = order(run, migration, watch, given) => warmed,
        failed = saved => failed,
    }
}

async fn order(
    run: &Run,
    migration: &mut Migration,
    watch: &PodWatch,
    given: Option<Order>,
) -> Result<Warmed, Stop> {
    let claim = migration.record.claim.clone();
    let mut warm = migration.record.warm.clone().unwrap_or_default();
    let is_first = given.is_some();
    let seen = |pass: &PassReport| {
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
    };
    let answer = match given {
        Some(order) => orders::carry_out_first(run, migration, &order, seen).await?,
        None => carry_out(run, migration, watch, What::Warm, seen).await?,
    };
    if warm.passes > 0 {
        migration.record.warm = Some(warm);
    }
    match answer {
        Answer::Done(report) if report.ok => Ok(Warmed::Enough),
        // Nothing was stopped for it yet.
        Answer::Done(report) => Err(failed(migration, &report)),
        // It could not even begin, and another could not either.
        Answer::Ended { why, taken: false } if is_first => Err(Stop::Refused(why)),
        Answer::Ended { why, .. } | Answer::Deleted(why) => Ok(Warmed::Died(why)),
        Answer::Unheard(why) => {
            tracing::warn!(%claim, %why, "its warm passes cannot be waited for; the final one may take as long as all of them");
            Ok(Warmed::Enough)
        }
    }
}
