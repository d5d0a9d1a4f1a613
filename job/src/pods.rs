//! What pods say: who mounts a group's claims, where, and who is gone. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

mod watch;

pub use watch::PodWatch;

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

impl SeenPod {
    fn of(pod: Pod, deleted: bool, claims: BTreeSet<String>) -> Self {
        Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            claims,
            ended: has_ended(&pod),
            deleted,
            pod,
        }
    }
}

/// What is known of the pods that mount a group's claims since the watch began.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    pub seen: BTreeMap<String, SeenPod>,
    /// The group's movers, by their names.
    pub movers: BTreeMap<String, SeenPod>,
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

    /// The pod of this name, if it exists.
    pub fn named(&self, name: &str) -> Option<&SeenPod> {
        let mut there = self.seen.values().filter(|pod| !pod.deleted);
        there.find(|pod| pod.name == name)
    }

    fn take(&mut self, pod: Pod, deleted: bool, wanted: &Wanted) {
        let name = pod.name_any();
        if wanted.movers.contains_key(&name) {
            let seen = SeenPod::of(pod, deleted, BTreeSet::new());
            self.movers.insert(name, seen);
            return;
        }
        let claims: BTreeSet<String> = mounted_claims(&pod)
            .filter(|claim| wanted.movers.values().any(|wanted| wanted == claim))
            .collect();
        if claims.is_empty() {
            return;
        }
        let seen = SeenPod::of(pod, deleted, claims);
        self.seen.insert(seen.uid.clone(), seen);
    }
}

/// What the watch looks for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The claims, by the names of their movers: our own pods are no consumers.
    pub movers: BTreeMap<String, String>,
    /// Claims that many nodes may mount: no mover stands in a consumer's way there.
    pub shared: BTreeSet<String>,
}

/// Why a consumer cannot reach its claim for a mover's sake: it is on another node, or finds none.
fn moved(pods: &Pods, wanted: &Wanted) -> Option<String> {
    pods.movers.values().find_map(|mover| {
        let (claim, node) = (wanted.movers.get(&mover.name)?, mover.node.as_ref()?);
        if mover.deleted {
            return None;
        }
        if wanted.shared.contains(claim) {
            return None;
        }
        let mut active = pods.present(claim).filter(|pod| {
            !pod.ended || pod.node.is_none() && pod.pod.metadata.deletion_timestamp.is_none()
        });
        let elsewhere = active.find(|pod| match &pod.node {
            Some(other) => other != node,
            None => is_unschedulable(&pod.pod),
        })?;
        Some(match &elsewhere.node {
            Some(other) => format!(
                "pod {} is on node {other}, the mover of claim {claim} on {node}",
                elsewhere.name
            ),
            None => format!(
                "pod {} finds no node while the mover of claim {claim} is on {node}",
                elsewhere.name
            ),
        })
    })
}

fn is_unschedulable(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.type_ == "PodScheduled" && c.status == "False")
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
mod tests;
