//! One pod of a StatefulSet at a time: what must hold before the next one goes.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use pvmigrate_record::record::{Freezing, Workload};
use tokio::time::Instant;

use super::ready::{is_observed, ready_since, replicas};
use super::{api, mark_of, owners};
use crate::causes;
use crate::cluster::Cluster;
use crate::pods::PodWatch;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// How long a wait goes on before it is looked again whether the pod in question still runs.
const SLICE: Duration = Duration::from_secs(2);

/// Waits until a set is as a rolling update would leave it before its next pod: its controller has
/// seen its last change, all its pods are of one revision, and Ready for as long as it demands.
///
/// Once the fence is up, or the set is held, a pod that is gone cannot come back: then only the
/// others count.
pub async fn wait_settled(
    cluster: &Cluster,
    freezing: &Freezing,
    watch: Option<&PodWatch>,
    is_fenced: bool,
    limit: Duration,
) -> Result<(), Stop> {
    let (Some(own), workload) = (&freezing.pod, &freezing.workload) else {
        return Ok(());
    };
    let api = api(cluster, workload);
    let pods: Api<Pod> = cluster.namespaced(&workload.namespace);
    let what =
        format!("all pods of {workload} to be Ready and of one revision before {own} is held");
    let started = Instant::now();
    loop {
        let seen = watch.map(PodWatch::now).filter(|pods| !pods.gap);
        let runs = if let Some(pods) = seen {
            let pod = pods.named(own);
            pod.is_some_and(|seen| ready_since(&seen.pod).is_some())
        } else {
            let pod = cluster.get(&pods, own).await?;
            pod.is_some_and(|pod| ready_since(&pod).is_some())
        };
        let mut without_own = is_fenced && !runs;
        let settled = wait_for(&api, &workload.name, &what, SLICE, |state| {
            let same = state.filter(|state| state.uid().as_deref() == Some(&workload.uid));
            let Some(state) = same else {
                return Seen::Never(format!("{workload} was deleted"));
            };
            match mark_of(state, workload) {
                Ok(mark) => without_own = (is_fenced || mark.is_some()) && !runs,
                Err(stop) => return Seen::Never(stop.to_string()),
            }
            match unsettled(state, without_own) {
                None => Seen::Reached(()),
                Some(why) => Seen::NotYet(why),
            }
        })
        .await;
        let Err(Stop::Refused(why)) = settled else {
            return settled;
        };
        if started.elapsed() >= limit {
            let others = not_ready(cluster, workload, own, without_own).await;
            let waited = started.elapsed().as_secs();
            return Err(Stop::Refused(format!(
                "{own} was not held for {waited} s: {why}{others}"
            )));
        }
        tracing::info!(pod = %own, %why, "it is not held yet");
    }
}

/// Why the next pod of a set may not go yet; none if it may. Pure.
fn unsettled(set: &DynamicObject, held: bool) -> Option<String> {
    let status = &set.data["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if !is_observed(set) {
        return Some("its controller has not seen its last change".into());
    }
    let (current, update) = (&status["currentRevision"], &status["updateRevision"]);
    if current != update && !held {
        return Some(format!(
            "it has pods of two revisions, {} and {}",
            current.as_str().unwrap_or("none"),
            update.as_str().unwrap_or("none")
        ));
    }
    let wanted = replicas(set) - i64::from(held);
    let ready = number("readyReplicas").min(number("availableReplicas"));
    (ready < wanted).then(|| format!("{ready} of {} replicas are Ready", replicas(set)))
}

/// The pods that are not Ready, by name.
async fn not_ready(cluster: &Cluster, workload: &Workload, own: &str, held: bool) -> String {
    let api: Api<Pod> = cluster.namespaced(&workload.namespace);
    let Ok(pods) = cluster.list(&api).await else {
        return String::new();
    };
    let texts: Vec<String> = pods
        .iter()
        .filter(|pod| owners::controller_of(*pod).is_some_and(|owner| owner.uid == workload.uid))
        .filter(|pod| ready_since(pod).is_none() && !(held && pod.name_any() == own))
        .map(|pod| format!("; {}", causes::of_pod(pod)))
        .collect();
    texts.concat()
}

/// How long a pod of a set must be Ready before the next one may go.
pub fn min_ready(set: &DynamicObject) -> SignedDuration {
    SignedDuration::from_secs(set.data["spec"]["minReadySeconds"].as_i64().unwrap_or(0))
}

/// Whether a set wants the pod of this name at all: it may have been scaled down.
pub fn ordinal_is_wanted(set: &DynamicObject, pod: &str) -> bool {
    let first = set.data["spec"]["ordinals"]["start"].as_i64().unwrap_or(0);
    let ordinal = pod
        .strip_prefix(&set.name_any())
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|ordinal| ordinal.parse::<i64>().ok());
    ordinal.is_some_and(|ordinal| (first..first + replicas(set)).contains(&ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(status: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "generation": 3},
            "spec": {"replicas": 3, "ordinals": {"start": 5}},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_next_pod_goes_only_from_a_set_that_is_whole() {
        let whole = json!({"observedGeneration": 3, "currentRevision": "a", "updateRevision": "a",
            "readyReplicas": 3, "availableReplicas": 3});
        let with = |changes: Value| {
            let mut status = whole.clone();
            status
                .as_object_mut()
                .unwrap()
                .extend(changes.as_object().unwrap().clone());
            set(&status)
        };
        let said = |changes: Value| unsettled(&with(changes), false);
        assert_eq!(said(json!({})), None);
        assert_eq!(
            said(json!({"observedGeneration": 2})).unwrap(),
            "its controller has not seen its last change"
        );
        assert_eq!(
            said(json!({"updateRevision": "b"})).unwrap(),
            "it has pods of two revisions, a and b"
        );
        // Ready, but not yet for minReadySeconds.
        assert_eq!(
            said(json!({"availableReplicas": 2})).unwrap(),
            "2 of 3 replicas are Ready"
        );
        let one_is_held = json!({"readyReplicas": 2, "availableReplicas": 2});
        assert_eq!(unsettled(&with(one_is_held), true), None);
    }

    #[test]
    fn a_pod_that_was_scaled_away_is_not_waited_for() {
        let set = set(&json!({}));
        let wanted = |pod: &str| ordinal_is_wanted(&set, pod);
        assert!(wanted("db-5") && wanted("db-7"));
        assert!(!wanted("db-8") && !wanted("db-0") && !wanted("web-5") && !wanted("db-x"));
    }
}
