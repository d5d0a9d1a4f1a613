//! The removal of a group's consumers, each as its workload's method says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::record::{Freezing, Method};
use tokio::time::Instant;

use crate::cluster::Evicted;
use crate::migration::Group;
use crate::pods::{PodWatch, Pods, SeenPod};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::SAY_EVERY;
use crate::workloads::{controller_of, freezing_of};

/// How long after a budget's refusal an eviction is asked for again.
const EVICT_AGAIN: Duration = Duration::from_millis(200);

/// The pods that mount a group's claims, and what is known of their workloads.
pub struct Consumers<'a> {
    run: &'a Run,
    api: Api<Pod>,
    watch: Arc<PodWatch>,
    claims: BTreeSet<String>,
    freezings: &'a [Freezing],
    /// By the UID of what controls a pod, or of a pod that nothing controls.
    workloads: BTreeMap<String, Option<&'a Freezing>>,
}

/// How a pod comes to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Delete,
    Evict,
    /// By itself, or by what controls it.
    Wait(&'static str),
}

/// What is to be done about a pod that exists. One that has ended runs nothing, but holds its
/// claims' protection finalizer. Pure.
fn due(pod: &SeenPod, freezing: Option<&Freezing>, ignore_budgets: bool) -> Due {
    if pod.pod.metadata.deletion_timestamp.is_some() {
        return Due::Wait("Terminating");
    }
    if is_completed(pod) {
        return Due::Delete;
    }
    let Some(freezing) = freezing else {
        return Due::Wait("of no workload of the group");
    };
    match (freezing.method, &freezing.pod) {
        (Method::Hold, _) if is_of_a_job(pod) => Due::Wait("to run to its end"),
        (Method::Scale, _) => Due::Wait("to be ended by its controller"),
        (Method::Suspend, _) => Due::Wait("to run to its end"),
        (Method::Hold, Some(only)) if *only != pod.name => {
            Due::Wait("another pod of its set, which goes on running")
        }
        (Method::Hold, Some(_)) if !ignore_budgets => Due::Evict,
        (Method::Hold | Method::Recreate, _) => Due::Delete,
    }
}

/// A pod that is deleted counts against its Job's `backoffLimit`.
fn is_of_a_job(pod: &SeenPod) -> bool {
    controller_of(&pod.pod)
        .is_some_and(|owner| owner.kind == "Job" && owner.api_version.starts_with("batch/"))
}

fn is_completed(pod: &SeenPod) -> bool {
    let status = pod.pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    pod.ended && matches!(phase, Some("Succeeded" | "Failed"))
}

impl<'a> Consumers<'a> {
    /// Finds out whose the present pods are, before anything is stopped.
    pub async fn of(run: &'a Run, group: &Group, freezings: &'a [Freezing]) -> Result<Self, Stop> {
        let claims = group.claims.iter();
        let mut consumers = Self {
            run,
            api: run.cluster.namespaced(&group.namespace),
            watch: group.watch()?,
            claims: claims
                .map(|claim| claim.record.claim.name.clone())
                .collect(),
            freezings,
            workloads: BTreeMap::new(),
        };
        for pod in consumers.present(&consumers.watch.now()) {
            consumers.freezing(&pod).await?;
        }
        Ok(consumers)
    }

    /// Removes all, and waits until none exists. Returns the moment before the first one was asked
    /// to go; none if none had to be.
    pub async fn remove(mut self) -> Result<Option<Timestamp>, Stop> {
        let limit = self.run.config.freeze_limit();
        let started = Instant::now();
        let watch = self.watch.clone();
        // What was decided about each pod, and whether it was completed then.
        let mut decided: BTreeMap<String, (bool, Due)> = BTreeMap::new();
        let mut first = None;
        loop {
            let mut undecided = Vec::new();
            let left = limit.saturating_sub(started.elapsed());
            let what = "the group's consumers to be gone";
            let seen = watch.wait_until(what, left, |pods| {
                let present = self.present(pods);
                let is_decided = |pod: &SeenPod| {
                    let decision = decided.get(&pod.uid);
                    decision.is_some_and(|(completed, _)| *completed == is_completed(pod))
                };
                undecided = present
                    .iter()
                    .filter(|pod| !is_decided(pod))
                    .cloned()
                    .collect();
                match present.first() {
                    Some(pod) if undecided.is_empty() => {
                        Err(still_exists(pod, decided.get(&pod.uid).map(|(_, due)| due)))
                    }
                    _ => Ok(()),
                }
            });
            seen.await?;
            if undecided.is_empty() {
                return Ok(first);
            }
            let mut deleted = Vec::new();
            for pod in undecided {
                let freezing = self.freezing(&pod).await?;
                let due = due(&pod, freezing, self.run.config.hold_ignore_budgets);
                decided.insert(pod.uid.clone(), (is_completed(&pod), due.clone()));
                match due {
                    Due::Wait(_) => {}
                    Due::Delete => {
                        if !is_completed(&pod) {
                            first.get_or_insert_with(Timestamp::now);
                        }
                        deleted.push(pod);
                    }
                    Due::Evict => {
                        let asked = self.evict(&pod).await?;
                        first.get_or_insert(asked);
                    }
                }
            }
            try_join_all(deleted.into_iter().map(|pod| self.delete(pod))).await?;
        }
    }

    fn present(&self, pods: &Pods) -> Vec<SeenPod> {
        let mut all: BTreeMap<&str, &SeenPod> = BTreeMap::new();
        for claim in &self.claims {
            all.extend(pods.present(claim).map(|pod| (pod.uid.as_str(), pod)));
        }
        all.into_values().cloned().collect()
    }

    /// How a pod's workload is frozen; none if it belongs to none of the group's.
    async fn freezing(&mut self, pod: &SeenPod) -> Result<Option<&'a Freezing>, Stop> {
        let by = controller_of(&pod.pod).map_or_else(|| pod.uid.clone(), |owner| owner.uid.clone());
        if let Some(known) = self.workloads.get(&by) {
            return Ok(*known);
        }
        let found = freezing_of(&self.run.cluster, &pod.pod, self.freezings).await?;
        self.workloads.insert(by, found);
        Ok(found)
    }

    async fn delete(&self, pod: SeenPod) -> Result<(), Stop> {
        let owner = controller_of(&pod.pod).map(|owner| owner.uid.clone());
        self.run
            .cluster
            .delete(&self.api, pod.pod, None, |now| {
                // Nothing would make one again that has lost its controller.
                if controller_of(now).map(|owner| owner.uid.clone()) == owner {
                    return Ok(());
                }
                Err(Stop::refused(format!(
                    "pod {} got another owner while it was about to be deleted",
                    now.name_any()
                )))
            })
            .await
    }

    /// Asks until the pod's budgets allow its eviction; returns the moment before that.
    async fn evict(&self, pod: &SeenPod) -> Result<Timestamp, Stop> {
        let limit = self.run.config.freeze_limit();
        let started = Instant::now();
        let mut said: Option<Instant> = None;
        loop {
            let asked = Timestamp::now();
            let why = match self.run.cluster.evict(&self.api, &pod.pod).await? {
                Evicted::Yes => return Ok(asked),
                Evicted::NotNow(why) => why,
            };
            if started.elapsed() > limit {
                return Err(Stop::refused(format!(
                    "waited {} s for the eviction of pod {}, in vain: {why}",
                    limit.as_secs(),
                    pod.name
                )));
            }
            if said.is_none_or(|last| last.elapsed() > SAY_EVERY) {
                said = Some(Instant::now());
                tracing::info!(pod = %pod.name, %why, "its budget does not allow its eviction yet");
            }
            tokio::time::sleep(EVICT_AGAIN).await;
        }
    }
}

fn still_exists(pod: &SeenPod, due: Option<&Due>) -> String {
    let why = match due {
        _ if pod.pod.metadata.deletion_timestamp.is_some() => ", Terminating".into(),
        Some(Due::Wait(why)) => format!(", {why}"),
        _ => String::new(),
    };
    format!(
        "pod {} on node {} still exists{why}",
        pod.name,
        pod.node.as_deref().unwrap_or("none")
    )
}

#[cfg(test)]
mod tests;
