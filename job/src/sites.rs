//! Where the pods of workloads that have none now would run, and which claims each of them would
//! mount. Their new volumes have to end where each pod can reach its own, and where pods that keep
//! apart still can. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use crate::config::Config;
use crate::mover::Placement;
use crate::observe::Observed;
use crate::preflight::consumers::{Consumer, Name, future_pods, on_one_node, parties};

mod apart;

pub use apart::{Spread, spreads};

#[derive(Debug, Default)]
pub struct Sites {
    /// By namespace and name of a claim: as the templates have it whose pods need it on one node,
    /// on nodes that reach the volumes of all claims of those templates.
    placements: BTreeMap<Name, Placement>,
    /// The claims whose new volumes are on one node each.
    on_one_node: BTreeSet<Name>,
}

impl Sites {
    pub fn of(observed: &Observed, config: &Config) -> Self {
        let mut apart = BTreeMap::new();
        let moved: BTreeSet<_> = asked_for(observed, config).map(key).collect();
        for spread in spreads(observed, config, &moved) {
            apart.extend(spread.selectors());
        }
        let mut sites = Self {
            on_one_node: on_one_node(asked_for(observed, config), observed, config),
            ..Self::default()
        };
        for party in parties(pods(observed), &sites.on_one_node) {
            let mut placement = party[0].placement.clone();
            party[1..]
                .iter()
                .for_each(|other| placement.join(&other.placement));
            let claims: BTreeSet<Name> = party.iter().flat_map(keys).collect();
            for (namespace, claim) in &claims {
                let volume = observed.volume_named(namespace, claim);
                if let Some(affinity) = volume.and_then(required) {
                    placement.narrow(affinity);
                }
            }
            // Pods that share a node have none of their own.
            let one = claims.iter().find_map(|claim| apart.get(claim));
            if let (Some(selector), [_]) = (one, party.as_slice()) {
                placement.narrow(selector);
            }
            placement.together = claims.iter().map(|(_, claim)| claim.clone()).collect();
            for claim in claims {
                let known = sites
                    .placements
                    .entry(claim)
                    .or_insert_with(|| placement.clone());
                known.together.extend(placement.together.clone());
            }
        }
        sites
    }

    pub fn at(&self, namespace: &str, claim: &str) -> Option<&Placement> {
        self.placements
            .get(&(namespace.to_string(), claim.to_string()))
    }

    /// Whether all consumers of a claim have to be on one node after the move.
    pub fn is_on_one_node(&self, namespace: &str, claim: &str) -> bool {
        let name = (namespace.to_string(), claim.to_string());
        self.on_one_node.contains(&name)
    }
}

/// The pods that workloads would make, and that mount a claim that is seen.
fn pods(observed: &Observed) -> Vec<Consumer> {
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for claim in &observed.claims {
        let namespace = claim.namespace().unwrap_or_default();
        names.entry(namespace).or_default().insert(claim.name_any());
    }
    // A Deployment keeps ReplicaSets of templates that it has no longer.
    let own = observed
        .workloads
        .iter()
        .filter(|seen| seen.controller.is_none() || seen.workload.kind != "ReplicaSet");
    own.filter_map(|seen| Some(future_pods(seen, names.get(&seen.workload.namespace)?)))
        .flatten()
        .collect()
}

fn asked_for<'a>(
    observed: &'a Observed,
    config: &Config,
) -> impl Iterator<Item = &'a PersistentVolumeClaim> {
    observed.claims.iter().filter(|claim| {
        config.selects_claim(claim, observed.volume_of(claim)) && !config.excludes(claim)
    })
}

fn key(claim: &PersistentVolumeClaim) -> Name {
    (claim.namespace().unwrap_or_default(), claim.name_any())
}

fn keys(pod: &Consumer) -> impl Iterator<Item = Name> {
    let claims = pod.claims.iter();
    claims.map(|claim| (pod.namespace.clone(), claim.clone()))
}

/// The nodes that a volume can be reached from, where those are not all.
fn required(volume: &PersistentVolume) -> Option<&NodeSelector> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    affinity.required.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::config;
    use crate::plan::tests::{from, observed, owner, workload};
    use crate::preflight::tests::{on_node, stays_where_it_is_made};

    fn together(sites: &Sites, claim: &str) -> Vec<String> {
        let site = sites.at("shop", claim).unwrap();
        site.together.iter().cloned().collect()
    }

    fn terms(sites: &Sites, claim: &str) -> Value {
        let affinity = &sites.at("shop", claim).unwrap().node_affinity;
        let affinity = serde_json::to_value(affinity).unwrap();
        affinity["nodeSelectorTerms"].clone()
    }

    fn on(node: &str) -> Value {
        json!({"key": "metadata.name", "operator": "In", "values": [node]})
    }

    #[test]
    fn claims_of_one_template_are_together_where_all_their_volumes_can_be_reached() {
        let mut observed = observed(&["x", "y", "z"]);
        let mut old = workload("ReplicaSet", "web-1", &["x", "z"]);
        old.controller = Some(owner("apps/v1", "Deployment", "web"));
        observed.workloads = vec![workload("Deployment", "web", &["x", "y"]), old];
        on_node(&mut observed, "y", "n2");
        let sites = Sites::of(&observed, &config(&[]));
        for claim in ["x", "y"] {
            assert_eq!(together(&sites, claim), ["x", "y"], "{claim}");
            let expected = json!([{"matchFields": [on("n2")]}]);
            assert_eq!(terms(&sites, claim), expected, "{claim}");
        }
        assert!(sites.at("shop", "z").is_none());
    }

    #[test]
    fn what_two_templates_need_on_one_node_is_together_with_all_that_either_has() {
        let mut observed = observed(&["x", "y", "z", "alone"]);
        let (mut one, mut other) = (
            workload("Deployment", "one", &["x", "y"]),
            workload("Deployment", "other", &["y", "z"]),
        );
        let spec = |selector: &str, tolerated: &[&str]| {
            let tolerated: Vec<Value> = tolerated.iter().map(|key| json!({"key": key})).collect();
            let spec = json!({"containers": [], "nodeSelector": {selector: "1"}, "tolerations": tolerated});
            Placement::of(&from(spec))
        };
        one.placement = spec("ssd", &["a", "b"]);
        other.placement = spec("gpu", &["b", "c"]);
        let last = workload("Deployment", "last", &["alone"]);
        observed.workloads = vec![one, last, other];
        on_node(&mut observed, "x", "n1");
        on_node(&mut observed, "z", "n1");

        // Each needs only what its own template says, where a volume can be reached from anywhere.
        let sites = Sites::of(&observed, &config(&[]));
        assert_eq!(together(&sites, "z"), ["y", "z"]);

        stays_where_it_is_made(&mut observed);
        let sites = Sites::of(&observed, &config(&[]));
        for claim in ["x", "y", "z"] {
            assert_eq!(together(&sites, claim), ["x", "y", "z"], "{claim}");
            let expected = json!([{"matchExpressions": [], "matchFields": [on("n1"), on("n1")]}]);
            assert_eq!(terms(&sites, claim), expected, "{claim}");
            let site = sites.at("shop", claim).unwrap();
            let labels: Vec<&str> = site.node_selector.keys().map(String::as_str).collect();
            assert_eq!(labels, ["gpu", "ssd"], "{claim}");
            let tolerated: Vec<_> = site.tolerations.iter().map(|t| t.key.as_deref()).collect();
            assert_eq!(tolerated, [Some("b")], "{claim}");
        }
        assert_eq!(together(&sites, "alone"), ["alone"]);

        // What many nodes may mount is on none of them, and what stays where it is decides alone.
        let mut shared = observed.clone();
        let spec = shared.claims[1].spec.get_or_insert_default();
        spec.access_modes = Some(vec!["ReadWriteMany".into()]);
        let sites = Sites::of(&shared, &config(&[]));
        assert_eq!(together(&sites, "x"), ["x", "y"]);
        let sites = Sites::of(
            &observed,
            &config(&[("PVMIGRATE_EXCLUDE_CLAIMS", "shop/y")]),
        );
        assert_eq!(together(&sites, "z"), ["y", "z"]);
    }

    #[test]
    fn an_ordinal_of_a_set_has_its_own_claims_together() {
        let names = ["data-db-0", "data-db-1", "logs-db-0", "logs-db-1"];
        let mut observed = observed(&names);
        let mut set = workload("StatefulSet", "db", &[]);
        set.claim_templates = vec!["data".into(), "logs".into()];
        set.replicas = 0;
        observed.workloads = vec![set];
        let sites = Sites::of(&observed, &config(&[]));
        assert_eq!(together(&sites, "logs-db-1"), ["data-db-1", "logs-db-1"]);
    }
}
