//! The final pass as the mover's last act: it is ordered before anybody is stopped, begins when the
//! mover's pod is deleted, and is reported by that pod's end.
//!
//! ```text
//! order "at your end"  →  taken  →  (fresh passes)  │  group Frozen  →  mover deleted  →  preStop hook: pass  →  ended, with its report
//! ```
//!
//! An order that is given after the freeze costs two rounds of the kubelet: one that shows it to the
//! mover, and one that has to pass before the kubelet ends a pod that it has just looked at, a second
//! in the mean. So only where the pass itself is short: a mover that is asked to end can be killed.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pvmigrate_record::order::{Order, PassReport, What};
use pvmigrate_record::phase::Heading;
use tokio::time::timeout;

use super::orders::{self, Given, Taken, final_report, is_over, last_order};
use crate::causes;
use crate::migration::{Group, Migration};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::copy::failed;
use crate::stop::Stop;

/// A pass that would take longer is ordered when it is time.
const SHORT: f64 = 10.0;
/// How long a mover that is asked to end may take for its pass, seconds.
const GRACE: u32 = 120;
/// How much longer its kubelet may take to say that it has ended.
const TO_SAY_SO: Duration = Duration::from_secs(30);
/// How long an order may take to reach its mover, beside the proof of the fence. One that has not
/// is replaced by another after the freeze.
const TO_REACH_IT: Duration = Duration::from_secs(5);

/// Orders the movers of a group to make their last pass when they end, where that is worth it.
pub async fn give(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let watch = group.watch()?;
    let worth = group.claims.iter_mut().filter(|claim| is_worth_it(claim));
    let all = worth.map(async |migration| {
        let given = orders::give(run, migration, &watch, (What::Final, true)).await?;
        // If the mover is gone, its pass is ordered again when it is time, or it is made again.
        migration.parting = match given {
            Given::Order(order) => Some(order),
            Given::Deleted(_) => None,
        };
        Ok::<(), Stop>(())
    });
    try_join_all(all).await?;
    Ok(())
}

/// Waits until the movers say that they have taken that order; from one that does not nothing is
/// expected at its end. Fails if a mover could not keep its copy fresh while it waited.
pub async fn taken(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let given = group.claims.iter_mut();
    let given = given.filter_map(|migration| Some((migration.parting.take()?, migration)));
    let all = given.map(async |(order, migration)| {
        let heard = timeout(TO_REACH_IT, orders::is_taken(run, migration, &order)).await;
        let taken = heard.unwrap_or(Ok(Taken::No))?;
        migration.parting = match taken {
            Taken::Yes => Some(order),
            Taken::No => None,
            Taken::Failed(report) => return Err(failed(migration, &report)),
        };
        Ok::<(), Stop>(())
    });
    try_join_all(all).await?;
    Ok(())
}

fn is_worth_it(migration: &Migration) -> bool {
    let record = &migration.record;
    let warm = record.warm.as_ref();
    record.heading == Heading::Destination
        && migration.parting.is_none()
        && warm.is_some_and(|warm| warm.next_seconds.is_some_and(|next| next <= SHORT))
}

/// Deletes a mover that was prepared, for its group is frozen, and waits for the report that it
/// leaves. `Stop::Repeat` where it leaves none, or may have begun before it was deleted by us.
pub async fn carry_out(
    run: &Run,
    migration: &Migration,
    order: &Order,
    watch: &PodWatch,
) -> Result<PassReport, Stop> {
    let (pods, name) = (migration.pods(&run.cluster), migration.staging_name());
    let again = |why: String| Err(Stop::Repeat(why));
    let Some(mover) = watch.mover(&name) else {
        return again(orders::deleted(&name));
    };
    // Whoever else has asked it to end may have done so before the group was frozen.
    let by_another = || format!("mover {name} was ended by somebody else");
    let deleted = run.cluster.delete_ourselves(&pods, mover, GRACE, |now| {
        if now.metadata.deletion_timestamp.is_some() || is_over(now) || reason(now).is_some() {
            return Err(Stop::Repeat(by_another()));
        }
        match last_order(now) {
            Some(last) if last == *order => Ok(()),
            _ => Err(Stop::Superseded(format!("mover {name}"))),
        }
    });
    if !deleted.await? {
        return again(by_another());
    }
    let what = format!("mover {name} to make its last pass and end");
    let limit = Duration::from_secs(GRACE.into()) + TO_SAY_SO;
    watch
        .wait_until(&what, limit, |pods| match pods.movers.get(&name) {
            Some(mover) if !mover.deleted && !mover.ended && !pods.gap => {
                Err("its kubelet reports it running".into())
            }
            _ => Ok(()),
        })
        .await?;
    let Some(ended) = watch.now().movers.remove(&name).filter(|mover| mover.ended) else {
        return again(format!("mover {name} was not seen to end"));
    };
    match reported(&ended.pod, order) {
        Ok(report) => Ok(report),
        Err(why) => again(why),
    }
}

/// The report that an ended mover left, if nothing but its deletion has begun its pass. Pure.
fn reported(mover: &Pod, order: &Order) -> Result<PassReport, String> {
    let name = mover.name_any();
    if mover.uid().as_deref() != Some(order.pod.as_str()) {
        return Err(orders::deleted(&name));
    }
    // A kubelet that ends a pod by itself, for want of memory or because its node shuts down, runs
    // the hook as well, and says why it did.
    if let Some(reason) = reason(mover) {
        return Err(format!("mover {name} was ended by its kubelet: {reason}"));
    }
    final_report(mover, order).ok_or_else(|| {
        format!(
            "mover {name} ended without a report: {}",
            causes::of_pod(mover)
        )
    })
}

fn reason(mover: &Pod) -> Option<&str> {
    mover.status.as_ref()?.reason.as_deref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn order() -> Order {
        Order {
            pod: "u".into(),
            sequence: 7,
            what: What::Final,
            at_end: true,
        }
    }

    fn ended(uid: &str, reason: &Value, order: &Order) -> Pod {
        let report = PassReport {
            order: Some(order.clone()),
            ok: true,
            ..PassReport::default()
        };
        let message = serde_json::to_string(&report).unwrap();
        serde_json::from_value(json!({"metadata": {"name": "m", "uid": uid}, "status": {
            "phase": "Failed", "reason": reason, "containerStatuses": [
                {"name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0, "message": message}}}]}}))
        .unwrap()
    }

    #[test]
    fn a_report_counts_if_only_its_deletion_can_have_begun_the_pass() {
        let before = Order {
            sequence: 6,
            ..order()
        };
        let now = Order {
            at_end: false,
            ..order()
        };
        assert!(
            reported(&ended("u", &Value::Null, &order()), &order())
                .unwrap()
                .ok
        );
        let table = [
            (
                ended("v", &Value::Null, &order()),
                "mover m was deleted by somebody else",
            ),
            (
                ended("u", &json!("Evicted"), &order()),
                "mover m was ended by its kubelet: Evicted",
            ),
            (
                ended("u", &Value::Null, &before),
                "mover m ended without a report: pod m ended with exit code 0",
            ),
            (
                ended("u", &Value::Null, &now),
                "mover m ended without a report: pod m ended with exit code 0",
            ),
        ];
        for (mover, why) in table {
            let said = reported(&mover, &order()).unwrap_err();
            assert!(said.starts_with(why), "{said}");
        }
    }
}
