//! What an anchor is like: a bystander that mounts staging claims, on the node of their movers.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, Pod, PodAffinity, PodAffinityTerm, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::phase::Heading;

use super::Anchor;
use crate::claim::access_modes;
use crate::config::Config;
use crate::migration::{Group, Migration};
use crate::mover::{Mounted, Placement, bystander};
use crate::pods::Pods;

/// A kubelet's labels of where its node is, which an API server copies to the pods there: they say
/// where a pod was, not what it is.
const OF_PLACES: &str = "topology.kubernetes.io/";

/// One anchor for each node that movers of the group are on; not made yet.
///
/// `attaching` are the drivers whose volumes are attached to nodes.
pub fn wanted(
    config: &Config,
    attaching: &BTreeSet<String>,
    group: &Group,
    pods: &Pods,
) -> Vec<Anchor> {
    let mut by_node: BTreeMap<&str, Vec<&Migration>> = BTreeMap::new();
    for claim in &group.claims {
        let mover = pods.movers.get(&claim.staging_name());
        let node = mover.filter(|mover| !mover.deleted && !mover.ended);
        let node = node.and_then(|mover| mover.node.as_deref());
        let is_used = pods.present(&claim.record.claim.name).next().is_some();
        if let Some(node) = node.filter(|_| is_used && is_attached(attaching, claim)) {
            by_node.entry(node).or_default().push(claim);
        }
    }
    let anchors = by_node.into_iter();
    let anchors = anchors.filter_map(|(node, claims)| {
        Some(Anchor {
            pod: anchor(config, node, &claims, pods)?,
            node: node.to_string(),
            claims: claims
                .iter()
                .map(|claim| claim.record.claim.name.clone())
                .collect(),
        })
    });
    anchors.collect()
}

/// Whether the destination is one that is attached to nodes, and may have two pods.
fn is_attached(attaching: &BTreeSet<String>, claim: &Migration) -> bool {
    let spec = claim
        .destination_state
        .as_ref()
        .and_then(|state| state.spec.as_ref());
    let driver = spec
        .and_then(|spec| spec.csi.as_ref())
        .map(|csi| &csi.driver);
    let record = &claim.record;
    let modes = access_modes(&record.manifest, Heading::Destination);
    record.heading == Heading::Destination
        && driver.is_some_and(|driver| attaching.contains(driver))
        && !modes.iter().any(|mode| mode == "ReadWriteOncePod")
}

fn anchor(config: &Config, node: &str, claims: &[&Migration], pods: &Pods) -> Option<Pod> {
    let first = claims.first()?;
    let mover = pods.movers.get(&first.staging_name())?.pod.spec.as_ref()?;
    let record = &first.record;
    let held = claims.iter().map(|claim| claim.record.claim.name.as_str());
    let metadata = ObjectMeta {
        name: Some(first.anchor_name()),
        namespace: Some(record.claim.namespace.clone()),
        labels: Some(BTreeMap::from([
            (names::RUN.into(), record.run.clone()),
            (names::ROLE.into(), names::ROLE_ANCHOR.into()),
            ("sidecar.istio.io/inject".into(), "false".into()),
        ])),
        annotations: Some(BTreeMap::from([
            (names::CLAIM.into(), held.collect::<Vec<_>>().join("\n")),
            ("linkerd.io/inject".into(), "disabled".into()),
        ])),
        ..ObjectMeta::default()
    };
    let placement = Placement {
        node: Some(node.to_string()),
        tolerations: mover.tolerations.clone().unwrap_or_default(),
        ..Placement::default()
    };
    let mounted: Vec<Mounted> = claims
        .iter()
        .map(|claim| Mounted {
            claim: claim.staging_name(),
            is_block: claim.record.manifest.is_block(),
        })
        .collect();
    let mut pod = bystander(config, metadata, &placement, &mounted, "rest");
    let spec = pod.spec.as_mut()?;
    if let Some(own) = &mut spec.security_context {
        // Other ones would make the kubelet mount the volume in another way for each of the two.
        let movers = mover.security_context.as_ref();
        own.se_linux_options = movers.and_then(|movers| movers.se_linux_options.clone());
    }
    let draws = draw(claims, pods);
    if !draws.is_empty() {
        let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
        affinity.pod_affinity = Some(PodAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(draws),
            ..PodAffinity::default()
        });
    }
    Some(pod)
}

/// A scheduler prefers a node for a new pod also by the wishes of pods that run there: so the one that
/// comes back is drawn to its volumes. Not several of them: they may have good reasons to be apart.
fn draw(claims: &[&Migration], pods: &Pods) -> Vec<WeightedPodAffinityTerm> {
    let consumers: BTreeMap<&str, &Pod> = claims
        .iter()
        .flat_map(|claim| pods.present(&claim.record.claim.name))
        .map(|seen| (seen.uid.as_str(), &seen.pod))
        .collect();
    let consumers: Vec<&Pod> = consumers.into_values().collect();
    let [only] = consumers.as_slice() else {
        return Vec::new();
    };
    let mut labels = only.labels().clone();
    labels.retain(|label, _| !label.starts_with(OF_PLACES));
    if labels.is_empty() {
        return Vec::new();
    }
    vec![WeightedPodAffinityTerm {
        weight: 100,
        pod_affinity_term: PodAffinityTerm {
            label_selector: Some(LabelSelector {
                match_labels: Some(labels),
                ..LabelSelector::default()
            }),
            topology_key: "kubernetes.io/hostname".into(),
            ..PodAffinityTerm::default()
        },
    }]
}

#[cfg(test)]
mod tests;
