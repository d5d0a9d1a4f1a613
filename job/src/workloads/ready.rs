//! When a workload runs as it did, whatever its kind is.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject};
use pvmigrate_record::record::{Freezing, Method, Workload};

use super::rolling::{min_ready, ordinal_is_wanted};
use super::{api, find, is_custom, is_job};
use crate::causes;
use crate::cluster::Cluster;
use crate::pods::{PodWatch, Pods, Wanted, mounted_claims};
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// Waits until a workload is Ready; fails with what is missing if it is not in time. `claims` are
/// those that its group's consumers mounted when they were stopped, `watch` sees who mounts them.
pub async fn wait_ready(
    cluster: &Cluster,
    freezing: &Freezing,
    (claims, watch): (&[String], Option<&PodWatch>),
    limit: Duration,
) -> Result<(), Stop> {
    let workload = &freezing.workload;
    if let Some(pod) = &freezing.pod {
        return one_of_a_set(cluster, workload, (pod, watch), limit).await;
    }
    match (freezing.method, workload.kind.as_str()) {
        (Method::Recreate, _) => {
            pod(cluster, watch, &workload.namespace, &workload.name, limit).await?;
            Ok(())
        }
        // It starts its next Job when it is time.
        (_, "CronJob") => Ok(()),
        _ if is_custom(workload) => by_claims(cluster, workload, claims, limit).await,
        (_, kind) => by_status(cluster, workload, kind, limit).await,
    }
}

async fn by_status(
    cluster: &Cluster,
    workload: &Workload,
    kind: &str,
    limit: Duration,
) -> Result<(), Stop> {
    let what = format!("{workload} to be Ready");
    let api = api(cluster, workload);
    wait_for(&api, &workload.name, &what, limit, |state| match state {
        None if is_job(workload) => Seen::Reached(()),
        None => Seen::Never(format!("{workload} was deleted")),
        Some(state) => match missing(kind, state) {
            None => Seen::Reached(()),
            Some(missing) => Seen::NotYet(missing),
        },
    })
    .await
}

/// What a workload lacks to be Ready, by its status; none if nothing. Pure.
fn missing(kind: &str, state: &DynamicObject) -> Option<String> {
    let status = |field: &str| state.data["status"][field].as_i64().unwrap_or(0);
    if kind != "Job" && !is_observed(state) {
        return Some("its controller has not seen its last change".into());
    }
    let (ready, wanted, what) = match kind {
        "DaemonSet" => (
            status("numberReady"),
            status("desiredNumberScheduled"),
            "pods",
        ),
        "Job" => return job_is_idle(state),
        "Deployment" => (
            status("readyReplicas").min(status("updatedReplicas")),
            replicas(state),
            "replicas",
        ),
        _ => (status("readyReplicas"), replicas(state), "replicas"),
    };
    (ready < wanted).then(|| format!("{ready} of {wanted} {what} are Ready"))
}

/// A Job runs again when it has a pod that is Ready, unless it wants none.
fn job_is_idle(state: &DynamicObject) -> Option<String> {
    let (spec, status) = (&state.data["spec"], &state.data["status"]);
    let has_ended = job_has_ended(state);
    let is_suspended = spec["suspend"].as_bool() == Some(true);
    let wanted =
        spec["completions"].as_i64().unwrap_or(1) - status["succeeded"].as_i64().unwrap_or(0);
    let runs = status["ready"].as_i64().unwrap_or(0) > 0;
    (!has_ended && !is_suspended && wanted > 0 && !runs)
        .then(|| "it has no pod that is Ready".into())
}

/// Whether a Job has ended, or is about to: it makes no more pods.
pub fn job_has_ended(state: &DynamicObject) -> bool {
    let conditions = state.data["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        let ends = ["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"];
        conditions.iter().any(|condition| {
            condition["status"] == "True" && ends.iter().any(|end| condition["type"] == *end)
        })
    })
}

pub fn replicas(state: &DynamicObject) -> i64 {
    state.data["spec"]["replicas"].as_i64().unwrap_or(1)
}

pub fn is_observed(state: &DynamicObject) -> bool {
    state.data["status"]["observedGeneration"].as_i64() >= state.metadata.generation
}

/// The pods are all that is known of a custom resource: each claim that was mounted is again.
async fn by_claims(
    cluster: &Cluster,
    workload: &Workload,
    claims: &[String],
    limit: Duration,
) -> Result<(), Stop> {
    // No mover has such a name: every pod is looked at.
    let wanted = claims
        .iter()
        .map(|claim| (format!("/{claim}"), claim.clone()));
    let wanted = Wanted {
        movers: wanted.collect(),
        shared: BTreeSet::new(),
    };
    let watch = PodWatch::start(cluster, &workload.namespace, wanted).await?;
    let what = format!("{workload} to be Ready");
    watch
        .wait_until(&what, limit, |pods| {
            let mut missing = claims.iter().filter(|claim| {
                let mut mounting = pods.present(claim);
                !mounting.any(|seen| ready_since(&seen.pod).is_some())
            });
            match missing.next() {
                None => Ok(()),
                Some(claim) => Err(format!("no Ready pod mounts claim {claim}")),
            }
        })
        .await
}

/// One pod of a StatefulSet, which must also have been Ready for as long as its set demands.
async fn one_of_a_set(
    cluster: &Cluster,
    workload: &Workload,
    (name, watch): (&str, Option<&PodWatch>),
    limit: Duration,
) -> Result<(), Stop> {
    let Some(set) = find(cluster, workload).await? else {
        return Err(Stop::refused(format!("{workload} was deleted")));
    };
    if !ordinal_is_wanted(&set, name) {
        tracing::warn!(%workload, pod = name, "somebody has scaled it down meanwhile; this pod stays away");
        return Ok(());
    }
    let started = tokio::time::Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let since = pod(cluster, watch, &workload.namespace, name, left).await?;
        let enough = since + min_ready(&set);
        let pause = Timestamp::now().duration_until(enough);
        let Ok(pause) = Duration::try_from(pause) else {
            return Ok(());
        };
        if pause.is_zero() {
            return Ok(());
        }
        tracing::info!(
            pod = name,
            seconds = pause.as_secs(),
            "it has to stay Ready for a while"
        );
        tokio::time::sleep(pause).await;
    }
}

/// Waits until a pod of this name is Ready; returns since when.
async fn pod(
    cluster: &Cluster,
    watch: Option<&PodWatch>,
    namespace: &str,
    name: &str,
    limit: Duration,
) -> Result<Timestamp, Stop> {
    let api: Api<Pod> = cluster.namespaced(namespace);
    let what = format!("pod {namespace}/{name} to be Ready");
    let look = |pod: Option<&Pod>| match pod {
        None => Err("it does not exist".into()),
        Some(pod) => ready_since(pod).ok_or_else(|| causes::of_pod(pod)),
    };
    let started = tokio::time::Instant::now();
    if let Some(watch) = watch {
        let mut ready = None;
        let seen = |pods: &Pods| {
            if pods.gap {
                return Ok(());
            }
            let pod = pods.named(name);
            ready = Some(look(pod.map(|seen| &seen.pod))?);
            Ok(())
        };
        watch.wait_until(&what, limit, seen).await?;
        if let Some(since) = ready {
            return Ok(since);
        }
    }
    let left = limit.saturating_sub(started.elapsed());
    wait_for(&api, name, &what, left, |pod| match look(pod) {
        Ok(since) => Seen::Reached(since),
        Err(missing) => Seen::NotYet(missing),
    })
    .await
}

/// Since when a pod is Ready; none if it is not, or is on its way out.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

/// The latest moment at which one of the Ready pods that mount these claims may have become so,
/// where that is before `noticed`. Conditions have whole seconds: it was within the one they say.
pub fn since<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    claims: &[String],
    noticed: Timestamp,
) -> Timestamp {
    pods.filter(|pod| mounted_claims(pod).any(|claim| claims.contains(&claim)))
        .filter_map(ready_since)
        .max()
        .map_or(noticed, |ready| {
            (ready + SignedDuration::from_secs(1)).min(noticed)
        })
}

#[cfg(test)]
mod tests;
