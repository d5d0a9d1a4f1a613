//! Replicas that do not run beside each other, and whose new volumes stay where they are made: each
//! gets a place of its own before the first of them is moved. Pure.
//!
//! ```text
//! the nodes that each pod can reach  →  places: nodes that share a label of the anti-affinity
//!     →  a place for each pod, lower ordinals first  →  its movers run there
//! ```

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, NodeSelector, PersistentVolume, PodAffinityTerm};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::phase::Heading;

use crate::config::Config;
use crate::observe::{Observed, ObservedWorkload, record_of};
use crate::preflight::consumers::{Consumer, Name, future_pods};
use crate::preflight::{nodes, placement, provisioner};

mod places;

use places::{Seat, places, seats};

/// A StatefulSet whose pods keep apart, and where each of them goes.
#[derive(Debug)]
pub struct Spread<'a> {
    set: &'a ObservedWorkload,
    class: &'a str,
    /// The topology keys of its anti-affinity.
    keys: BTreeSet<String>,
    replicas: Vec<(Replica<'a>, Seat)>,
}

#[derive(Debug)]
struct Replica<'a> {
    pod: Consumer,
    /// Those that no other replica mounts.
    own: BTreeSet<String>,
    is_moved: bool,
    /// The node where it, or its mover, is already.
    at: Option<&'a str>,
    nodes: Vec<&'a Node>,
}

/// The sets of which claims are moved, or are on their way since an earlier Job.
pub fn spreads<'a>(
    observed: &'a Observed,
    config: &'a Config,
    moved: &BTreeSet<Name>,
) -> Vec<Spread<'a>> {
    let Some(class) = observed.classes.get(&config.dest_sc) else {
        return Vec::new();
    };
    let destinations = destinations(observed);
    let mut all = Vec::new();
    for set in &observed.workloads {
        let terms = set
            .apart
            .iter()
            .filter(|term| is_about_own(term, set, observed));
        let keys = terms.map(|term| term.topology_key.clone());
        let keys: BTreeSet<String> = keys
            .filter(|key| provisioner::keeps_to(class, key, observed))
            .collect();
        if keys.is_empty() || set.claim_templates.is_empty() {
            continue;
        }
        let namespace = &set.workload.namespace;
        let names = names(observed, namespace, &destinations);
        let replicas: Vec<Replica> = future_pods(set, &names)
            .into_iter()
            .map(|pod| replica(observed, config, set, pod, moved, &destinations))
            .collect();
        if replicas.iter().any(|replica| replica.is_moved) {
            let reached: Vec<_> = replicas.iter().map(|r| r.nodes.clone()).collect();
            let seats = seats(&reached, &places(observed, &keys), &keys);
            all.push(Spread {
                set,
                class: &config.dest_sc,
                replicas: replicas.into_iter().zip(seats).collect(),
                keys,
            });
        }
    }
    all
}

impl Spread<'_> {
    /// Where the movers of these claims have to run.
    pub fn selectors(&self) -> impl Iterator<Item = (Name, NodeSelector)> {
        let namespace = &self.set.workload.namespace;
        let seated = self.replicas.iter().filter_map(|(replica, seat)| {
            let selector = seat.selector(&self.keys)?;
            Some((&replica.own, selector))
        });
        seated.flat_map(move |(own, selector)| {
            let claims = own.iter();
            claims.map(move |claim| ((namespace.clone(), claim.clone()), selector.clone()))
        })
    }

    /// What stands against moving replicas that get no place. Of a set at 0 nobody knows how many it
    /// will have, so each that has claims counts.
    pub fn refusals(&self) -> Vec<String> {
        let end = self.set.first_ordinal.saturating_add(self.set.replicas);
        let counts = |replica: &Replica| {
            let ordinal = replica.pod.ordinal.and_then(|o| i32::try_from(o).ok());
            self.set.replicas == 0 || ordinal.is_some_and(|ordinal| ordinal < end)
        };
        let without = self
            .replicas
            .iter()
            .filter(|(_, seat)| *seat == Seat::Nowhere)
            .map(|(replica, _)| replica)
            // Where no node is left at all, that is said by itself.
            .filter(|replica| replica.is_moved && !replica.nodes.is_empty());
        let said = without.filter(|r| r.at.is_none() && counts(r)).map(|replica| {
            let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
            format!(
                "no node is left for {} after the move: its pods keep apart by {} (required podAntiAffinity), volumes of StorageClass {} stay where they are made, and others of its pods need {}; leave its claims out (excludeClaims)",
                replica.pod.words,
                keys.join(", "),
                self.class,
                placement::named(&replica.nodes),
            )
        });
        said.collect()
    }
}

fn replica<'a>(
    observed: &'a Observed,
    config: &Config,
    set: &ObservedWorkload,
    pod: Consumer,
    moved: &BTreeSet<Name>,
    destinations: &BTreeMap<Name, &PersistentVolume>,
) -> Replica<'a> {
    let own: BTreeSet<String> = pod.claims.difference(&set.claims).cloned().collect();
    let name = |claim: &String| (pod.namespace.clone(), claim.clone());
    let is_moved = |claim: Name| moved.contains(&claim) || destinations.contains_key(&claim);
    let is_moved = own.iter().map(name).any(is_moved);
    let at = own
        .iter()
        .find_map(|claim| observed.node_of(&pod.namespace, claim));
    let mut reached = match at {
        Some(node) => observed.surroundings.nodes.get(node).into_iter().collect(),
        None => placement::reached(observed, config, &pod, is_moved),
    };
    for claim in &own {
        let destination = destinations.get(&name(claim));
        if let Some(affinity) = destination.and_then(|volume| super::required(volume)) {
            reached.retain(|node| nodes::is_selected(node, affinity));
        }
    }
    Replica {
        own,
        is_moved,
        at,
        nodes: reached,
        pod,
    }
}

/// Whether a term keeps pods of the set from each other.
fn is_about_own(term: &PodAffinityTerm, set: &ObservedWorkload, observed: &Observed) -> bool {
    let own = &set.workload.namespace;
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let in_own = match &term.namespace_selector {
        None => listed.is_empty() || listed.contains(own),
        Some(selector) => {
            let labels = observed.namespaces.get(own).map(|n| n.labels().clone());
            listed.contains(own) || nodes::do_fit(&labels.unwrap_or_default(), selector)
        }
    };
    let selector = term.label_selector.as_ref();
    in_own
        && term.mismatch_label_keys.as_ref().is_none_or(Vec::is_empty)
        && selector.is_some_and(|selector| nodes::do_fit(&set.pod_labels, selector))
}

/// The new volumes that an earlier Job has had made, by their claims.
fn destinations(observed: &Observed) -> BTreeMap<Name, &PersistentVolume> {
    let around = &observed.surroundings;
    let records = observed.volumes.values().filter_map(record_of).flatten();
    let begun =
        records.filter(|record| record.heading == Heading::Destination && !record.is_finished());
    let found = begun.filter_map(|record| {
        let staging = names::staging_object(&record.run, &record.claim.uid);
        let staged = around
            .bindings
            .get(&(record.claim.namespace.clone(), staging));
        // One that was provisioned last may not be in the record yet.
        let known = record.destination.as_ref().map(|volume| &volume.name);
        let volume = around.volumes.get(known.or(staged)?)?;
        Some(((record.claim.namespace, record.claim.name), volume))
    });
    found.collect()
}

/// The names of all claims of a namespace, of any class, and those that are away for the moment.
fn names(
    observed: &Observed,
    namespace: &str,
    destinations: &BTreeMap<Name, &PersistentVolume>,
) -> BTreeSet<String> {
    let bound = observed.surroundings.bindings.keys();
    let mut all: BTreeSet<String> = bound
        .chain(destinations.keys())
        .filter(|(of, _)| of == namespace)
        .map(|(_, name)| name.clone())
        .collect();
    let seen = observed.claims.iter();
    let here = seen.filter(|claim| claim.metadata.namespace.as_deref() == Some(namespace));
    all.extend(here.map(ResourceExt::name_any));
    all
}

#[cfg(test)]
mod tests;
