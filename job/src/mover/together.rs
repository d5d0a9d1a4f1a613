//! Movers that have to run on one node, for one pod mounts what they make.
//!
//! Each asks for the node of one of the others. The first that is scheduled finds none, and may run
//! anywhere: Kubernetes lets a pod pass that asks for what it is itself. The scheduler places one
//! pod at a time, so the rest find the first, whatever came when.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodAffinity, PodAffinityTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use pvmigrate_record::names;
use sha2::{Digest, Sha256};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The value of a mover's label by which others find it.
pub fn hash(claim: &str) -> String {
    let hash = Sha256::digest(claim);
    let half = hash.iter().take(16);
    let number = half.fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    format!("{number:032x}")
}

/// None for a claim that is alone.
pub fn affinity(claims: &BTreeSet<String>) -> Option<PodAffinity> {
    if claims.len() < 2 {
        return None;
    }
    let is_one_of_them = LabelSelectorRequirement {
        key: names::CLAIM_HASH.into(),
        operator: "In".into(),
        values: Some(claims.iter().map(|claim| hash(claim)).collect()),
    };
    Some(PodAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
            label_selector: Some(LabelSelector {
                match_expressions: Some(vec![is_one_of_them]),
                match_labels: Some([(names::ROLE.into(), names::ROLE_MOVER.into())].into()),
            }),
            topology_key: HOSTNAME.into(),
            ..PodAffinityTerm::default()
        }]),
        ..PodAffinity::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::tests::config;
    use crate::mover::tests::record;
    use crate::mover::{Placement, mover_pod};
    use crate::plan::tests::from;

    #[test]
    fn movers_of_one_pods_claims_ask_for_each_other_and_for_themselves() {
        let placement = Placement {
            together: ["data".to_string(), "logs".to_string()].into(),
            ..Placement::default()
        };
        let pod = mover_pod(&record("Filesystem"), &config(&[]), &placement);
        let pod = serde_json::to_value(pod).unwrap();
        let own = &pod["metadata"]["labels"][names::CLAIM_HASH];
        assert!(own.as_str().unwrap().len() <= 63);
        let pods = &pod["spec"]["affinity"]["podAffinity"];
        let term = &pods["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(term["topologyKey"], HOSTNAME);
        assert_eq!(
            term["labelSelector"]["matchLabels"],
            json!({names::ROLE: "mover"})
        );
        let asked = &term["labelSelector"]["matchExpressions"][0];
        assert_eq!(asked["values"], json!([hash("data"), hash("logs")]));
        assert!(asked["values"].as_array().unwrap().contains(own));
        assert_eq!(pod["spec"]["affinity"]["nodeAffinity"], Value::Null);

        assert_eq!(affinity(&["data".to_string()].into()), None);
    }

    #[test]
    fn a_placement_is_narrowed_by_each_alternative_of_a_volume() {
        let zones = |zones: &[&str]| -> k8s_openapi::api::core::v1::NodeSelector {
            let terms: Vec<Value> = zones
                .iter()
                .map(|zone| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}))
                .collect();
            from(json!({"nodeSelectorTerms": terms}))
        };
        let mut placement = Placement::default();
        placement.narrow(&zones(&["a", "b"]));
        assert_eq!(placement.node_affinity, Some(zones(&["a", "b"])));
        placement.narrow(&zones(&["b"]));
        let terms = placement.node_affinity.unwrap().node_selector_terms;
        let asked: Vec<Vec<String>> = terms
            .iter()
            .map(|term| {
                let rules = term.match_expressions.iter().flatten();
                rules
                    .flat_map(|rule| rule.values.clone().unwrap())
                    .collect()
            })
            .collect();
        assert_eq!(asked, [["a", "b"], ["b", "b"]]);
    }
}
