use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed};
use crate::preflight::tests::{node, on_node};

/// Claims of 1 GiB each, in groups of their own.
fn of_a_gibibyte(names: &[&str]) -> Observed {
    let mut observed = observed(names);
    for claim in &mut observed.claims {
        let asked = from(json!({"requests": {"storage": "1Gi"}}));
        claim.spec.as_mut().unwrap().resources = Some(asked);
    }
    observed
}

fn quota(hard: &Value, used: &Value) -> ResourceQuota {
    from(
        json!({"metadata": {"namespace": "shop", "name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}}),
    )
}

#[test]
fn what_exists_at_the_same_time_has_to_fit_into_quotas() {
    let class = "b.storageclass.storage.k8s.io";
    let names = ["a", "b", "c", "d", "e", "f"];
    for (what, hard, used, expected) in [
        // Four groups at a time, of six.
        ("requests.storage", "10Gi", "6Gi", None),
        (
            "requests.storage",
            "9Gi",
            "6Gi",
            Some(
                "allows 9Gi of requests.storage, of which 6Gi are used, and the move needs 4Gi more",
            ),
        ),
        ("persistentvolumeclaims", "10", "6", None),
        (
            "persistentvolumeclaims",
            "9",
            "6",
            Some(
                "allows 9 of persistentvolumeclaims, of which 6 are used, and the move needs 4 more",
            ),
        ),
        (
            "pods",
            "3",
            "0",
            Some("allows 3 of pods, of which 0 are used, and the move needs 4 more"),
        ),
        ("services", "0", "0", None),
    ] {
        let mut observed = of_a_gibibyte(&names);
        observed.surroundings.quotas = vec![quota(&json!({what: hard}), &json!({what: used}))];
        assert_eq!(short_of(&observed), sentence(expected));
    }
    // The new claims stay: all six.
    let mut observed = of_a_gibibyte(&names);
    let what = format!("{class}/requests.storage");
    observed.surroundings.quotas = vec![quota(&json!({&what: "5Gi"}), &json!({&what: "0"}))];
    let expected =
        format!("allows 5Gi of {what}, of which 0 are used, and the move needs 6Gi more");
    assert_eq!(short_of(&observed), sentence(Some(&expected)));
}

fn sentence(middle: Option<&str>) -> Vec<String> {
    Vec::from_iter(middle.map(|middle| format!("quota shop/q {middle}: raise it for the time")))
}

fn short_of(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    quotas_allow(observed, &config, &plan(observed, &config))
}

#[test]
fn a_quota_for_some_pods_only_is_left_to_the_dry_run() {
    let mut observed = of_a_gibibyte(&["x"]);
    let mut scoped = quota(&json!({"pods": "0"}), &json!({}));
    scoped.spec.as_mut().unwrap().scopes = Some(vec!["BestEffort".into()]);
    observed.surroundings.quotas = vec![scoped];
    assert_eq!(short_of(&observed), Vec::<String>::new());
}

fn published(observed: &mut Observed, node: &str, capacity: &str) {
    let driver = json!({"metadata": {"name": "p"}, "spec": {"storageCapacity": true}});
    observed
        .surroundings
        .drivers
        .insert("p".into(), from(driver));
    let at =
        json!({"metadata": {"name": node}, "spec": {"drivers": [{"name": "p", "nodeID": node}]}});
    observed
        .surroundings
        .csi_nodes
        .insert(node.into(), from(at));
    observed.surroundings.capacities.push(from(json!({
        "metadata": {"namespace": "csi", "name": node}, "storageClassName": "b",
        "nodeTopology": {"matchLabels": {"node": node}}, "capacity": capacity
    })));
}

fn too_small(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    storage_suffices(observed, &config, &plan(observed, &config))
}

#[test]
fn a_destination_has_to_fit_where_it_may_go() {
    let mut observed = of_a_gibibyte(&["x"]);
    node(&mut observed, "n1", &json!({"node": "n1"}));
    node(&mut observed, "n2", &json!({"node": "n2"}));
    assert_eq!(
        too_small(&observed),
        Vec::<String>::new(),
        "nothing is published"
    );
    published(&mut observed, "n1", "512Mi");
    published(&mut observed, "n2", "1Gi");
    assert_eq!(too_small(&observed), Vec::<String>::new());
    on_node(&mut observed, "x", "n1");
    assert_eq!(
        too_small(&observed),
        [
            "claim shop/x needs 1Gi, and where it may go StorageClass b has room for 512Mi (CSIStorageCapacity)"
        ]
    );
}

#[test]
fn all_destinations_together_have_to_fit() {
    let mut observed = of_a_gibibyte(&["x", "y"]);
    node(&mut observed, "n1", &json!({"node": "n1"}));
    published(&mut observed, "n1", "1536Mi");
    assert_eq!(
        too_small(&observed),
        [
            "all claims together need 2Gi, and StorageClass b has room for 1536Mi (CSIStorageCapacity)"
        ]
    );
}
