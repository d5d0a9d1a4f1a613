//! Giving a mover its orders, and hearing what it answers.
//!
//! An order is an annotation of the mover's pod. The answer is in its log, a line a pass; that of a
//! final pass is in its termination message too, for when the log cannot be read.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::names;
use pvmigrate_record::order::{Order, PassReport, What};
use pvmigrate_record::record::Record;
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
pub use log::Kept;
use log::log;

mod listener;
mod log;

/// How long a mover may say nothing during a pass: it reports its progress every second.
const SILENCE: Duration = Duration::from_secs(120);
/// For how long a log that cannot be read may be a passing thing.
pub const WITHOUT_A_LOG: Duration = Duration::from_secs(15);
pub const BETWEEN_TRIES: Duration = Duration::from_millis(200);

/// What became of an order.
pub enum Answer {
    /// The last of its passes; each was seen by whoever gave the order.
    Done(Box<PassReport>),
    /// The mover has ended, and did not say how the order did; nor, perhaps, that it took it.
    Ended { why: String, taken: bool },
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
        Given::Order(order) => {
            let listener = Listener::new(run, &pods, &name, &order);
            hear(listener, &migration.log, &mut seen).await
        }
        Given::Deleted(why) => Ok(Answer::Deleted(why)),
    }
}

/// The order that a mover can be made with: the first of this epoch, for whichever pod it is.
pub fn first(record: &Record, what: What) -> Result<Order, Stop> {
    let sequence = Order::sequence_after(None, record.epoch);
    let sequence = sequence.ok_or_else(|| Stop::Superseded(format!("claim {}", record.claim)))?;
    Ok(Order {
        pod: String::new(),
        sequence,
        what,
        at_end: false,
    })
}

pub fn text(order: &Order) -> Result<String, Stop> {
    serde_json::to_string(order).map_err(|error| Stop::Api(error.to_string()))
}

/// Waits for the report of the last pass of the order that a mover was made with.
pub async fn carry_out_first(
    run: &Run,
    migration: &Migration,
    order: &Order,
    mut seen: impl FnMut(&PassReport),
) -> Result<Answer, Stop> {
    let (pods, name) = (migration.pods(&run.cluster), migration.staging_name());
    let listener = Listener::of_the_first(run, &pods, &name, order);
    hear(listener, &migration.log, &mut seen).await
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
    let text = text(&order)?;
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

/// Whether a mover has taken an order.
pub enum Taken {
    Yes,
    /// Its log ended before it said so, or cannot be read.
    No,
    /// It has, but the last pass that it made while it waited failed.
    Failed(Box<PassReport>),
}

/// Waits until the mover says that it has taken an order.
pub async fn is_taken(run: &Run, migration: &Migration, order: &Order) -> Result<Taken, Stop> {
    let (pods, name) = (migration.pods(&run.cluster), migration.staging_name());
    let mut listener = Listener::new(run, &pods, &name, order);
    if let Some(mut log) = migration.log.take(&order.pod) {
        match listener.hears_it_taken(&mut log).await? {
            Taken::No => {}
            heard => return Ok(heard),
        }
    }
    match log(&pods, &name).await {
        Ok(mut log) => listener.hears_it_taken(&mut log).await,
        Err(error) => {
            tracing::debug!(mover = name, %error, "its log cannot be read");
            Ok(Taken::No)
        }
    }
}

/// Reads the mover's lines until the last report that echoes the order.
async fn hear(
    mut listener: Listener<'_>,
    kept: &Kept,
    seen: &mut impl FnMut(&PassReport),
) -> Result<Answer, Stop> {
    let Listener {
        run,
        pods,
        name,
        order,
        ..
    } = listener;
    loop {
        let open = match kept.take(&order.pod) {
            Some(log) => Ok(log),
            None => log(pods, name).await,
        };
        let why = match open {
            Ok(mut log) => match listener.listen(&mut log, seen).await? {
                Some(report) => {
                    kept.keep(&order.pod, log);
                    return Ok(Answer::Done(report));
                }
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
                    None => Answer::Ended {
                        why: causes::of_pod(&pod),
                        taken: listener.taken,
                    },
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
mod tests;
