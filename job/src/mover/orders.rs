//! Giving a mover its orders, and hearing what it answers.
//!
//! An order is an annotation of the mover's pod. The answer is in its log, a line a pass; that of a
//! final pass is in its termination message too, for when the log cannot be read.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use pvmigrate_record::names;
use pvmigrate_record::order::{Order, PassReport, What};
use serde_json::json;
use tokio::time::timeout;

use crate::causes;
use crate::migration::Migration;
use crate::mover::NAME;
use crate::pods::PodWatch;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};
use listener::Listener;

mod listener;

/// How long a mover may say nothing during a pass: it reports its progress every second.
const SILENCE: Duration = Duration::from_secs(120);
/// For how long a log that cannot be read may be a passing thing.
pub const WITHOUT_A_LOG: Duration = Duration::from_secs(15);
pub const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// What became of an order.
pub enum Answer {
    /// The last of its passes; each was seen by whoever gave the order.
    Done(Box<PassReport>),
    /// The mover has ended, and did not say how the order did.
    Ended(String),
    /// The mover was deleted by somebody else.
    Deleted(String),
    /// Its log cannot be read, and what was ordered leaves no other trace.
    Unheard(String),
}

/// The order that a mover was given last.
pub fn last_order(mover: &Pod) -> Option<Order> {
    let text = mover.annotations().get(names::ORDER)?;
    serde_json::from_str(text).ok()
}

/// What became of giving one.
pub enum Given {
    Order(Order),
    /// The mover was deleted by somebody else.
    Deleted(String),
}

/// Gives an order, and waits for the report of its last pass. `seen` is told each pass once.
pub async fn carry_out(
    run: &Run,
    migration: &Migration,
    watch: &PodWatch,
    what: What,
    mut seen: impl FnMut(&PassReport),
) -> Result<Answer, Stop> {
    let (pods, name) = (migration.pods(&run.cluster), migration.staging_name());
    match give(run, migration, watch, (what, false)).await? {
        Given::Order(order) => hear(run, &pods, &name, &order, &mut seen).await,
        Given::Deleted(why) => Ok(Answer::Deleted(why)),
    }
}

/// Writes an order into the mover's pod: the next one, for now or `at_end`.
pub async fn give(
    run: &Run,
    migration: &Migration,
    watch: &PodWatch,
    (what, at_end): (What, bool),
) -> Result<Given, Stop> {
    let (pods, name) = (migration.pods(&run.cluster), migration.staging_name());
    let Some(pod) = watch.mover(&name) else {
        return Ok(Given::Deleted(deleted(&name)));
    };
    let last = last_order(&pod).map(|order| order.sequence);
    let superseded = || Stop::Superseded(format!("mover {name}"));
    let order = Order {
        pod: pod.uid().unwrap_or_default(),
        sequence: Order::sequence_after(last, migration.record.epoch).ok_or_else(superseded)?,
        what,
        at_end,
    };
    let text = serde_json::to_string(&order).map_err(|error| Stop::Api(error.to_string()))?;
    let given = run.cluster.update(&pods, pod, |pod| match last_order(pod) {
        Some(last) if last == order => Ok(None),
        Some(last) if last.sequence >= order.sequence => Err(superseded()),
        _ => Ok(Some(
            json!({"metadata": {"annotations": {names::ORDER: text}}}),
        )),
    });
    match given.await {
        Ok(_) => Ok(Given::Order(order)),
        // It may have gone between the two requests.
        Err(stop) => match run.cluster.get(&pods, &name).await? {
            Some(pod) if pod.uid().as_deref() == Some(order.pod.as_str()) => Err(stop),
            _ => Ok(Given::Deleted(deleted(&name))),
        },
    }
}

/// Waits until the mover says that it has taken an order; not if its log ends before that, or
/// cannot be read.
pub async fn is_taken(run: &Run, migration: &Migration, order: &Order) -> Result<bool, Stop> {
    let (pods, name) = (migration.pods(&run.cluster), migration.staging_name());
    match pods.log_stream(&name, &following()).await {
        Ok(log) => {
            Listener::new(run, &pods, &name, order)
                .hears_it_taken(log)
                .await
        }
        Err(error) => {
            tracing::debug!(mover = name, %error, "its log cannot be read");
            Ok(false)
        }
    }
}

fn following() -> LogParams {
    LogParams {
        follow: true,
        ..LogParams::default()
    }
}

/// Reads the mover's lines until the last report that echoes the order.
async fn hear(
    run: &Run,
    pods: &Api<Pod>,
    name: &str,
    order: &Order,
    seen: &mut impl FnMut(&PassReport),
) -> Result<Answer, Stop> {
    let mut listener = Listener::new(run, pods, name, order);
    loop {
        let why = match pods.log_stream(name, &following()).await {
            Ok(log) => match listener.listen(log, seen).await? {
                Some(report) => return Ok(Answer::Done(report)),
                None => "its log ended".to_string(),
            },
            Err(error) => format!("its log cannot be read: {error}"),
        };
        // The mover has ended, or only the connection to its log.
        if let Ok(over) = timeout(BETWEEN_TRIES, wait_over(run, pods, name, &order.pod)).await {
            return Ok(match over? {
                Some(pod) => match final_report(&pod, order) {
                    Some(report) => {
                        seen(&report);
                        Answer::Done(Box::new(report))
                    }
                    None => Answer::Ended(causes::of_pod(&pod)),
                },
                None => Answer::Deleted(deleted(name)),
            });
        }
        if order.what == What::Warm && listener.silence() > WITHOUT_A_LOG {
            return Ok(Answer::Unheard(why));
        }
        if listener.silence() > SILENCE {
            return Err(Stop::Refused(format!(
                "mover {name} has said nothing for {} s: {why}",
                SILENCE.as_secs(),
            )));
        }
    }
}

/// Whether a mover waits for its next order after this pass.
fn is_last(report: &PassReport, what: What) -> bool {
    what == What::Final || report.settled || !report.ok
}

/// Waits until the mover with this UID has ended; none if it was deleted.
pub async fn wait_over(
    run: &Run,
    pods: &Api<Pod>,
    name: &str,
    uid: &str,
) -> Result<Option<Pod>, Stop> {
    let what = format!("mover {name} to end");
    wait_for(
        pods,
        name,
        &what,
        run.config.freeze_limit(),
        |pod| match pod {
            Some(pod) if pod.uid().as_deref() != Some(uid) => Seen::Reached(None),
            Some(pod) if is_over(pod) => Seen::Reached(Some(pod.clone())),
            Some(_) => Seen::NotYet("it runs".into()),
            None => Seen::Reached(None),
        },
    )
    .await
}

/// Whether a mover works no more, whatever else runs in its pod. One that was evicted may say
/// nothing of its container.
pub fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || ended(pod).is_some()
}

fn ended(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let mover = containers.iter().find(|container| container.name == NAME)?;
    mover.state.as_ref()?.terminated.as_ref()
}

/// The termination message of a mover that has ended, if it is the report of this order.
pub fn final_report(pod: &Pod, order: &Order) -> Option<PassReport> {
    let report: PassReport = serde_json::from_str(ended(pod)?.message.as_deref()?).ok()?;
    (report.order.as_ref() == Some(order)).then_some(report)
}

pub fn deleted(name: &str) -> String {
    format!("mover {name} was deleted by somebody else")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "m"}, "status": status})).unwrap()
    }

    #[test]
    fn a_mover_is_over_when_its_own_container_is_or_the_pod_was_put_away() {
        let container = |name: &str, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let runs = container("mover", json!({"running": {}}));
        let table = [
            (
                json!({"phase": "Running", "containerStatuses": [runs]}),
                false,
            ),
            (json!({"phase": "Pending"}), false),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}),
                true,
            ),
            (
                json!({"phase": "Running", "containerStatuses": [
                container("proxy", json!({"running": {}})), container("mover", killed.clone())]}),
                true,
            ),
            (
                json!({"phase": "Running", "containerStatuses": [container("proxy", killed.clone()), runs]}),
                false,
            ),
        ];
        for (status, over) in table {
            assert_eq!(is_over(&pod(&status)), over, "{status}");
        }
        let why = |status| causes::of_pod(&pod(&status));
        assert_eq!(
            why(json!({"phase": "Failed", "containerStatuses": [container("mover", killed)]})),
            "pod m ended with exit code 137 (OOMKilled)"
        );
        assert_eq!(
            why(
                json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."})
            ),
            "pod m is Failed, Evicted: The node was low on memory."
        );
    }

    #[test]
    fn only_a_message_that_echoes_the_order_is_its_report() {
        let order = |sequence| Order {
            pod: "u".into(),
            sequence,
            what: What::Final,
            at_end: false,
        };
        let report = PassReport {
            order: Some(order(7)),
            ok: true,
            ..PassReport::default()
        };
        let ended = pod(&json!({"phase": "Succeeded", "containerStatuses": [
            {"name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state":
                {"terminated": {"exitCode": 0, "message": serde_json::to_string(&report).unwrap()}}}]}));
        assert_eq!(final_report(&ended, &order(7)), Some(report));
        assert_eq!(final_report(&ended, &order(8)), None);
    }

    #[test]
    fn a_warm_order_is_done_when_its_passes_settle_or_fail() {
        let report = |ok, settled| PassReport {
            ok,
            settled,
            ..PassReport::default()
        };
        assert!(!is_last(&report(true, false), What::Warm));
        assert!(is_last(&report(true, true), What::Warm));
        assert!(is_last(&report(false, false), What::Warm));
        assert!(is_last(&report(true, false), What::Final));
    }
}
