use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::observe::ObservedWorkload;
use crate::plan::plan;
use crate::plan::tests::{from, observed, owner, pod, workload};
use crate::preflight::tests::{node, on_node, stays_where_it_is_made};

/// A cluster of `n1` in zone a and `n2` in zone b.
fn two_zones(claims: &[&str]) -> Observed {
    let mut observed = observed(claims);
    node(&mut observed, "n1", &json!({"zone": "a"}));
    node(&mut observed, "n2", &json!({"zone": "b"}));
    observed
}

fn refused(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    is_possible(observed, &config, &plan(observed, &config))
}

/// A Deployment of claim x whose pods have this in their spec.
fn web(spec: &Value) -> ObservedWorkload {
    let mut spec = spec.clone();
    spec["containers"] = json!([]);
    ObservedWorkload {
        placement: Placement::of(&from(spec)),
        ..workload("Deployment", "web", &["x"])
    }
}

fn allow(observed: &mut Observed, zone: &str) {
    let class = observed.classes.get_mut("b").unwrap();
    class.allowed_topologies = Some(from(
        json!([{"matchLabelExpressions": [{"key": "zone", "values": [zone]}]}]),
    ));
}

#[test]
fn the_constraint_that_leaves_no_node_is_named_after_those_before_it() {
    let mut observed = two_zones(&["x"]);
    on_node(&mut observed, "x", "n1");
    assert_eq!(refused(&observed), Vec::<String>::new());
    allow(&mut observed, "a");
    assert_eq!(refused(&observed), Vec::<String>::new());
    allow(&mut observed, "b");
    assert_eq!(
        refused(&observed),
        [
            "no node is left for claim shop/x after the move: of n1, n2, volume pv-x (nodeAffinity) leaves n1, StorageClass b (allowedTopologies) leaves none"
        ]
    );
}

#[test]
fn a_workload_at_zero_counts_by_its_template() {
    for (spec, expected) in [
        (json!({}), None),
        (json!({"nodeSelector": {"zone": "b"}}), None),
        (
            json!({"nodeSelector": {"zone": "a"}}),
            Some("Deployment shop/web (nodeSelector zone=a) leaves none"),
        ),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}}}}),
            Some("Deployment shop/web (required node affinity) leaves none"),
        ),
    ] {
        let mut observed = two_zones(&["x"]);
        allow(&mut observed, "b");
        observed.workloads = vec![web(&spec)];
        let said = refused(&observed);
        assert_eq!(said.len(), usize::from(expected.is_some()), "{said:?}");
        assert!(
            said.iter().all(|said| said.ends_with(expected.unwrap())),
            "{said:?}"
        );
    }
}

#[test]
fn a_cordoned_or_tainted_node_is_no_place_unless_it_is_tolerated() {
    let mut observed = two_zones(&["x"]);
    on_node(&mut observed, "x", "n1");
    let taint = json!([{"key": "db", "effect": "NoSchedule"}]);
    let spec = observed.surroundings.nodes.get_mut("n1").unwrap();
    spec.spec.as_mut().unwrap().taints = Some(from(taint));
    assert_eq!(
        refused(&observed),
        [
            "no node is left for claim shop/x after the move: of n1, n2, volume pv-x (nodeAffinity) leaves n1, what no mover tolerates (taints, cordons) leaves none"
        ]
    );
    observed.workloads = vec![web(
        &json!({"tolerations": [{"key": "db", "operator": "Exists"}]}),
    )];
    assert_eq!(refused(&observed), Vec::<String>::new());
}

#[test]
fn all_claims_of_one_pod_have_to_be_reached_from_one_node() {
    let mut observed = two_zones(&["x", "y"]);
    on_node(&mut observed, "x", "n1");
    on_node(&mut observed, "y", "n2");
    assert_eq!(refused(&observed), Vec::<String>::new());
    observed.workloads = vec![workload("Deployment", "web", &["x", "y"])];
    assert_eq!(
        refused(&observed),
        [
            "no node is left for Deployment shop/web after the move: of n1, n2, volume pv-x (nodeAffinity) leaves n1, volume pv-y (nodeAffinity) leaves none"
        ]
    );
}

#[test]
fn what_pods_share_on_one_node_brings_them_there_with_all_that_they_mount() {
    let mut observed = two_zones(&["x", "y", "z"]);
    on_node(&mut observed, "x", "n1");
    on_node(&mut observed, "z", "n2");
    observed.workloads = vec![
        workload("Deployment", "one", &["x", "y"]),
        workload("Deployment", "other", &["y", "z"]),
    ];
    assert_eq!(refused(&observed), Vec::<String>::new());
    stays_where_it_is_made(&mut observed);
    assert_eq!(
        refused(&observed),
        [
            "no node is left for Deployment shop/one, Deployment shop/other after the move: of n1, n2, volume pv-x (nodeAffinity) leaves n1, volume pv-z (nodeAffinity) leaves none"
        ]
    );
    // A pod that runs has decided for those that do not.
    on_node(&mut observed, "x", "n2");
    assert_eq!(refused(&observed), Vec::<String>::new());
    let web = owner("apps/v1", "Deployment", "one");
    observed.pods = vec![pod("one-1", web, &["y"])];
    assert_eq!(
        refused(&observed),
        [
            "no node is left for pod shop/one-1, Deployment shop/one, Deployment shop/other after the move: of n1, n2, volume pv-x (nodeAffinity) leaves n2, pod shop/one-1 (it runs on n1) leaves none"
        ]
    );
}

#[test]
fn ordinals_of_a_set_need_no_node_in_common() {
    let mut observed = two_zones(&["data-db-0", "data-db-1"]);
    on_node(&mut observed, "data-db-0", "n1");
    on_node(&mut observed, "data-db-1", "n2");
    observed.workloads = vec![ObservedWorkload {
        claim_templates: vec!["data".into()],
        ..workload("StatefulSet", "db", &[])
    }];
    assert_eq!(refused(&observed), Vec::<String>::new());
    allow(&mut observed, "a");
    assert_eq!(
        refused(&observed),
        [
            "no node is left for pod 1 of StatefulSet shop/db after the move: of n1, n2, volume pv-data-db-1 (nodeAffinity) leaves n2, StorageClass b (allowedTopologies) leaves none"
        ]
    );
}

#[test]
fn a_driver_that_is_not_registered_where_a_pod_runs_is_named() {
    let mut observed = two_zones(&["x"]);
    let registered =
        json!({"metadata": {"name": "n2"}, "spec": {"drivers": [{"name": "p", "nodeID": "n2"}]}});
    observed
        .surroundings
        .csi_nodes
        .insert("n2".into(), from(registered));
    observed.pods = vec![pod("web-1", owner("apps/v1", "Deployment", "web"), &["x"])];
    observed.workloads = vec![workload("Deployment", "web", &["x"])];
    assert_eq!(
        refused(&observed),
        [
            "no node is left for pod shop/web-1 after the move: of n1, n2, CSI driver p of StorageClass b leaves n2, pod shop/web-1 (it runs on n1) leaves none"
        ]
    );
}
