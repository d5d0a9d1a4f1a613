//! Why a pod or a claim waits, in the words of those who make it wait: conditions and events.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use crate::cluster::Cluster;
use crate::stop::Stop;

/// The last warnings about an object, newest last; empty if there are none. An explanation is
/// never worth an error of its own.
pub async fn of_object(cluster: &Cluster, namespace: &str, kind: &str, name: &str) -> String {
    let api: Api<Event> = cluster.namespaced(namespace);
    let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
    let Ok(events) = api.list(&ListParams::default().fields(&fields)).await else {
        return String::new();
    };
    let mut warnings: Vec<_> = events
        .items
        .into_iter()
        .filter(|event| event.type_.as_deref() == Some("Warning"))
        .collect();
    warnings.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    let mut texts: Vec<String> = warnings
        .into_iter()
        .filter_map(|event| Some(format!("{}: {}", event.reason?, event.message?)))
        .collect();
    texts.dedup();
    texts.split_off(texts.len().saturating_sub(3)).join("; ")
}

/// Why a pod is not running: what the scheduler or the kubelet say in its status.
pub fn of_pod(pod: &Pod) -> String {
    let Some(status) = &pod.status else {
        return "it has no status yet".into();
    };
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(message) = unscheduled.and_then(|condition| condition.message.clone()) {
        return format!("pod {} is not scheduled: {message}", pod.name_any());
    }
    // A pod that was put away as a whole: evicted, or refused by its kubelet.
    if let Some(reason) = &status.reason {
        let message = status.message.as_deref().unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or("in no phase");
        return format!("pod {} is {phase}, {reason}: {message}", pod.name_any());
    }
    for container in status.container_statuses.iter().flatten() {
        let state = container.state.clone().unwrap_or_default();
        if let Some(waiting) = state.waiting {
            let reason = waiting.reason.unwrap_or_default();
            let message = waiting
                .message
                .map(|m| format!(": {m}"))
                .unwrap_or_default();
            return format!("pod {} waits, {reason}{message}", pod.name_any());
        }
        if let Some(ended) = state.terminated {
            // Where it is the end of a log, it has several lines.
            let lines = ended.message.iter().flat_map(|text| text.lines());
            let said: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
            let message = if said.is_empty() {
                String::new()
            } else {
                format!(": {}", said.join("; "))
            };
            // `OOMKilled`, for example; the others only say what the exit code says.
            let reason = ended.reason.unwrap_or_default();
            let reason = match reason.as_str() {
                "" | "Completed" | "Error" => String::new(),
                other => format!(" ({other})"),
            };
            return format!(
                "pod {} ended with exit code {}{reason}{message}",
                pod.name_any(),
                ended.exit_code
            );
        }
    }
    format!(
        "pod {} is {}",
        pod.name_any(),
        status.phase.as_deref().unwrap_or("in no phase")
    )
}

/// Adds the warnings about objects to a wait that was in vain.
pub async fn explain(
    cluster: &Cluster,
    namespace: &str,
    stop: Stop,
    objects: &[(&str, &str)],
) -> Stop {
    let Stop::Refused(mut text) = stop else {
        return stop;
    };
    for (kind, name) in objects {
        let why = of_object(cluster, namespace, kind, name).await;
        if !why.is_empty() {
            text = format!("{text} ({kind} {name}: {why})");
        }
    }
    Stop::Refused(text)
}
