//! The pods of a namespace, seen without a gap: who mounts a group's claims, and who is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::{Cluster, retried};
use crate::stop::Stop;

/// A pod that mounts, or mounted, a claim of the group.
#[derive(Clone, Debug)]
pub struct SeenPod {
    pub name: String,
    pub uid: String,
    pub node: Option<String>,
    /// The claims that it mounts.
    pub claims: BTreeSet<String>,
    /// Every container had ended when it was last seen, or none had ever been started.
    pub ended: bool,
    pub deleted: bool,
    /// The last state that was seen.
    pub pod: Pod,
}

/// What is known of the pods that mount a group's claims since the watch began.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    pub seen: BTreeMap<String, SeenPod>,
    /// The watch was interrupted in a way that may have hidden a pod.
    pub gap: bool,
}

impl Pods {
    /// Those that exist now and mount this claim.
    pub fn present(&self, claim: &str) -> impl Iterator<Item = &SeenPod> {
        self.seen
            .values()
            .filter(move |pod| !pod.deleted && pod.claims.contains(claim))
    }

    fn take(&mut self, pod: Pod, deleted: bool, wanted: &Wanted) {
        let claims: BTreeSet<String> = mounted_claims(&pod)
            .filter(|claim| wanted.claims.contains(claim))
            .collect();
        if claims.is_empty() || wanted.movers.contains(&pod.name_any()) {
            return;
        }
        let uid = pod.uid().unwrap_or_default();
        let seen = SeenPod {
            name: pod.name_any(),
            uid: uid.clone(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            claims,
            ended: has_ended(&pod),
            deleted,
            pod,
        };
        self.seen.insert(uid, seen);
    }
}

/// What the watch looks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub claims: BTreeSet<String>,
    /// Names of our own pods, which are no consumers.
    pub movers: BTreeSet<String>,
}

/// A running watch. It ends when it is dropped.
pub struct PodWatch {
    state: watch::Receiver<Pods>,
    task: JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    /// Lists, then watches from exactly there.
    pub async fn start(cluster: &Cluster, namespace: &str, wanted: Wanted) -> Result<Self, Stop> {
        let api: Api<Pod> = cluster.namespaced(namespace);
        let everything = ListParams::default();
        let list = retried(|| api.list(&everything)).await?;
        let mut pods = Pods::default();
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        for pod in list.items {
            pods.take(pod, false, &wanted);
        }
        let (sender, state) = watch::channel(pods);
        let task = tokio::spawn(follow(api, wanted, version, sender));
        Ok(Self { state, task })
    }

    pub fn now(&self) -> Pods {
        self.state.borrow().clone()
    }

    /// Waits until what is seen satisfies `look`, which says what is missing as long as not.
    pub async fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Pods) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let mut state = self.state.clone();
        let started = tokio::time::Instant::now();
        loop {
            let missing = match look(&state.borrow_and_update()) {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            let Some(left) = limit.checked_sub(started.elapsed()) else {
                return Err(Stop::Refused(format!(
                    "waited {} s for {what}, in vain: {missing}",
                    limit.as_secs()
                )));
            };
            // A second is enough to notice what is not in a pod: a node, an attachment.
            if tokio::time::timeout(left.min(Duration::from_secs(10)), state.changed())
                .await
                .is_err()
            {
                tracing::info!(waiting_for = what, %missing, "still waiting");
            }
        }
    }
}

/// Keeps the state up to date for as long as anybody holds its other end.
async fn follow(api: Api<Pod>, wanted: Wanted, mut version: String, state: watch::Sender<Pods>) {
    loop {
        let params = WatchParams::default();
        let Ok(events) = retried(|| api.watch(&params, &version)).await else {
            state.send_modify(|pods| pods.gap = true);
            return;
        };
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                    version = pod.resource_version().unwrap_or(version);
                    state.send_modify(|pods| pods.take(pod, false, &wanted));
                }
                Ok(WatchEvent::Deleted(pod)) => {
                    version = pod.resource_version().unwrap_or(version);
                    state.send_modify(|pods| pods.take(pod, true, &wanted));
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                // The history is gone: pods may have come and gone unseen.
                Ok(WatchEvent::Error(status)) if status.code == 410 => {
                    state.send_modify(|pods| pods.gap = true);
                    return;
                }
                Ok(WatchEvent::Error(_)) | Err(_) => break,
            }
        }
    }
}

/// The claims that a pod mounts, those of its generic ephemeral volumes included.
pub fn mounted_claims(pod: &Pod) -> impl Iterator<Item = String> {
    let name = pod.name_any();
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    volumes.iter().filter_map(move |volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            Some(claim.claim_name.clone())
        } else {
            volume
                .ephemeral
                .as_ref()
                .map(|_| format!("{name}-{}", volume.name))
        }
    })
}

/// Whether nothing of a pod is running or will: all its containers are reported as terminated, for
/// good, or it never was on a node. A deletion mark proves nothing, and a container that ended may
/// be started again until the kubelet has put the pod into a final phase.
pub fn has_ended(pod: &Pod) -> bool {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return false;
    };
    if spec.node_name.is_none() {
        return true;
    }
    let statuses: Vec<_> = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .collect();
    let is_terminated = |status: &&k8s_openapi::api::core::v1::ContainerStatus| {
        status
            .state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
    };
    let never_started = |status: &&k8s_openapi::api::core::v1::ContainerStatus| {
        let waits = status
            .state
            .as_ref()
            .is_some_and(|state| state.waiting.is_some());
        waits && status.container_id.is_none() && status.restart_count == 0
    };
    let in_final_phase = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    !statuses.is_empty()
        && statuses
            .iter()
            .all(|status| is_terminated(status) || (in_final_phase && never_started(status)))
        && (in_final_phase || spec.restart_policy.as_deref() == Some("Never"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_pod_that_is_only_marked_for_deletion_has_not_ended() {
        let running = pod(json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": []},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}
            ]}
        }));
        assert!(!has_ended(&running));
    }

    #[test]
    fn a_pod_has_ended_when_its_kubelet_says_so_for_good() {
        let ended = pod(json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [], "restartPolicy": "Always"},
            "status": {"phase": "Succeeded", "containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}
            ]}
        }));
        assert!(has_ended(&ended));
    }

    #[test]
    fn a_crash_looping_pod_between_restarts_has_not_ended() {
        let looping = pod(json!({
            "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "containers": [], "restartPolicy": "Always"},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 3, "state": {"terminated": {"exitCode": 1}}}
            ]}
        }));
        assert!(!has_ended(&looping));
    }

    #[test]
    fn a_pod_that_was_never_on_a_node_has_ended() {
        let pending = pod(json!({
            "metadata": {"name": "p"}, "spec": {"containers": []}, "status": {"phase": "Pending"}
        }));
        assert!(has_ended(&pending));
    }

    #[test]
    fn claims_of_ephemeral_volumes_are_mounted_claims() {
        let pod = pod(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "b", "ephemeral": {}},
                {"name": "c", "emptyDir": {}}
            ]}
        }));
        assert_eq!(mounted_claims(&pod).collect::<Vec<_>>(), ["data", "p-b"]);
    }
}
