//! The pods that mount the claims of a plan, as they are or as their workloads would make them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::phase::Heading;

use super::{claims, provisioner};
use crate::claim::{access_modes, wanted};
use crate::config::Config;
use crate::mover::Placement;
use crate::observe::{Observed, ObservedWorkload};
use crate::plan::Plan;

/// A claim, by namespace and name.
pub type Name = (String, String);

/// A pod with the claims that it mounts, of which at least one is to be moved.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// What people call it.
    pub words: String,
    pub namespace: String,
    pub placement: Placement,
    /// All claims of it, by name, moved or not.
    pub claims: BTreeSet<String>,
    /// Which pod of a StatefulSet it would be.
    pub ordinal: Option<u32>,
}

impl Consumer {
    pub fn mounts(&self, claim: &PersistentVolumeClaim) -> bool {
        claim.metadata.namespace.as_ref() == Some(&self.namespace)
            && self.claims.contains(&claim.name_any())
    }
}

/// Pods that are on a node, and for claims that none of those mounts the pods that the workloads of
/// their groups would make.
pub fn consumers(observed: &Observed, plan: &Plan) -> Vec<Consumer> {
    let mut moved: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for claim in claims(plan) {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        moved.entry(namespace).or_default().insert(claim.name_any());
    }
    let mut all = Vec::new();
    for pod in &observed.pods {
        let namespace = pod.workload.namespace.as_str();
        let is_consumer = moved
            .get(namespace)
            .is_some_and(|moved| !pod.claims.is_disjoint(moved));
        if pod.completed
            || pod.labels.contains_key(names::ROLE)
            || pod.node.is_none()
            || !is_consumer
        {
            continue;
        }
        all.push(Consumer {
            words: format!("pod {namespace}/{}", pod.workload.name),
            namespace: namespace.to_string(),
            placement: pod.placement.clone(),
            claims: pod.claims.clone(),
            ordinal: None,
        });
    }
    for consumer in &all {
        if let Some(names) = moved.get_mut(consumer.namespace.as_str()) {
            names.retain(|name| !consumer.claims.contains(name));
        }
    }
    let frozen: BTreeSet<&str> = plan
        .groups
        .iter()
        .flat_map(|group| &group.freeze)
        .map(|freezing| freezing.workload.uid.as_str())
        .collect();
    for seen in &observed.workloads {
        let names = moved.get(seen.workload.namespace.as_str());
        // A set that has no pod is not frozen, and makes them again one day.
        let makes_pods = frozen.contains(seen.workload.uid.as_str())
            || (seen.workload.kind == "StatefulSet" && !seen.claim_templates.is_empty());
        if let Some(names) = names.filter(|_| makes_pods) {
            all.extend(future_pods(seen, names));
        }
    }
    all
}

/// The pods that a workload would make, and that mount one of these claims: one, or one for each
/// ordinal of a StatefulSet that has such a claim.
pub fn future_pods(seen: &ObservedWorkload, names: &BTreeSet<String>) -> Vec<Consumer> {
    let own = |template: &String| format!("{template}-{}-", seen.workload.name);
    let ordinals: BTreeSet<u32> = seen
        .claim_templates
        .iter()
        .flat_map(|template| {
            names
                .iter()
                .filter_map(move |n| n.strip_prefix(&own(template)))
        })
        .filter_map(|ordinal| ordinal.parse().ok())
        .collect();
    let consumer = |words: String, claims: BTreeSet<String>, ordinal: Option<u32>| Consumer {
        words,
        namespace: seen.workload.namespace.clone(),
        placement: seen.placement.clone(),
        claims,
        ordinal,
    };
    if seen.claim_templates.is_empty() {
        let is_used = !seen.claims.is_disjoint(names);
        let one = is_used.then(|| consumer(seen.workload.to_string(), seen.claims.clone(), None));
        return one.into_iter().collect();
    }
    let pods = ordinals.into_iter().map(|ordinal| {
        let of_it = seen
            .claim_templates
            .iter()
            .map(|t| format!("{}{ordinal}", own(t)));
        let claims = seen.claims.iter().cloned().chain(of_it).collect();
        let words = format!("pod {ordinal} of {}", seen.workload);
        consumer(words, claims, Some(ordinal))
    });
    pods.collect()
}

/// The claims whose new volumes are each on one node, so that all their consumers have to be there:
/// by namespace and name.
pub fn on_one_node<'a>(
    claims: impl Iterator<Item = &'a PersistentVolumeClaim>,
    observed: &Observed,
    config: &Config,
) -> BTreeSet<Name> {
    let class = observed.classes.get(&config.dest_sc);
    if !class.is_some_and(|c| provisioner::keeps_to(c, provisioner::HOSTNAME, observed)) {
        return BTreeSet::new();
    }
    // What many nodes may mount is on none of them.
    let is_shared = |claim: &PersistentVolumeClaim| {
        let manifest = wanted(claim, config);
        let mut modes = access_modes(&manifest, Heading::Destination).iter();
        modes.any(|mode| mode.ends_with("Many"))
    };
    let alone = claims.filter(|claim| !is_shared(claim));
    alone
        .map(|claim| (claim.namespace().unwrap_or_default(), claim.name_any()))
        .collect()
}

/// Joins consumers that have one of these claims in common, however many are between them.
pub fn parties(consumers: Vec<Consumer>, shared: &BTreeSet<Name>) -> Vec<Vec<Consumer>> {
    let tied = |consumer: &Consumer| -> Vec<Name> {
        let claims = consumer.claims.iter();
        let names = claims.map(|claim| (consumer.namespace.clone(), claim.clone()));
        names.filter(|name| shared.contains(name)).collect()
    };
    let mut all: Vec<Vec<Consumer>> = Vec::new();
    let mut party_of: BTreeMap<Name, usize> = BTreeMap::new();
    for consumer in consumers {
        let claims = tied(&consumer);
        let known: BTreeSet<usize> = claims
            .iter()
            .filter_map(|claim| party_of.get(claim).copied())
            .collect();
        let home = known.first().copied().unwrap_or(all.len());
        if home == all.len() {
            all.push(Vec::new());
        }
        for other in known.into_iter().skip(1) {
            let joining = std::mem::take(&mut all[other]);
            let theirs = joining.iter().flat_map(tied);
            party_of.extend(theirs.map(|claim| (claim, home)));
            all[home].extend(joining);
        }
        party_of.extend(claims.into_iter().map(|claim| (claim, home)));
        all[home].push(consumer);
    }
    all.retain(|party| !party.is_empty());
    all
}
