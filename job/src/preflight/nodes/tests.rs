use serde_json::{Value, json};

use super::*;
use crate::plan::tests::from;

fn node(labels: &Value, spec: &Value) -> Node {
    from(json!({"metadata": {"name": "n1", "labels": labels}, "spec": spec}))
}

#[test]
fn requirements_are_met_as_the_scheduler_has_it() {
    let node = node(&json!({"zone": "a", "cores": "8"}), &json!({}));
    for (key, operator, values, expected) in [
        ("zone", "In", vec!["a", "b"], true),
        ("zone", "In", vec!["b"], false),
        ("disk", "In", vec!["ssd"], false),
        ("zone", "NotIn", vec!["a"], false),
        ("disk", "NotIn", vec!["ssd"], true),
        ("zone", "Exists", vec![], true),
        ("disk", "Exists", vec![], false),
        ("disk", "DoesNotExist", vec![], true),
        ("cores", "Gt", vec!["4"], true),
        ("cores", "Gt", vec!["8"], false),
        ("cores", "Lt", vec!["9"], true),
        ("zone", "Gt", vec!["4"], false),
        ("zone", "Like", vec!["a"], false),
    ] {
        let selector = from(json!({"nodeSelectorTerms": [
            {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}
        ]}));
        assert_eq!(
            is_selected(&node, &selector),
            expected,
            "{key} {operator} {values:?}"
        );
    }
}

#[test]
fn terms_are_alternatives_and_an_empty_one_is_none() {
    let node = node(&json!({"zone": "a"}), &json!({}));
    let selector = |terms: Value| from::<NodeSelector>(json!({"nodeSelectorTerms": terms}));
    let of_zone = |zone: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
    let by_name =
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
    assert!(is_selected(
        &node,
        &selector(json!([of_zone("b"), of_zone("a")]))
    ));
    assert!(!is_selected(&node, &selector(json!([{}]))));
    assert!(is_selected(&node, &selector(json!([by_name]))));
    let mut both = of_zone("b");
    both["matchFields"] = by_name["matchFields"].clone();
    assert!(!is_selected(&node, &selector(json!([both]))));
}

#[test]
fn a_taint_that_is_not_tolerated_is_named() {
    let tainted = json!({"taints": [{"key": "db", "value": "yes", "effect": "NoSchedule"},
        {"key": "soft", "effect": "PreferNoSchedule"}]});
    let cordoned = json!({"unschedulable": true});
    for (spec, tolerations, expected) in [
        (&tainted, json!([]), Some("db=yes:NoSchedule")),
        (&tainted, json!([{"key": "db", "value": "yes"}]), None),
        (
            &tainted,
            json!([{"key": "db", "value": "no"}]),
            Some("db=yes:NoSchedule"),
        ),
        (
            &tainted,
            json!([{"key": "db", "operator": "Exists", "effect": "NoExecute"}]),
            Some("db=yes:NoSchedule"),
        ),
        (&tainted, json!([{"operator": "Exists"}]), None),
        (
            &cordoned,
            json!([]),
            Some("node.kubernetes.io/unschedulable:NoSchedule"),
        ),
        (
            &cordoned,
            json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]),
            None,
        ),
    ] {
        let tolerations: Vec<Toleration> = from(tolerations);
        let found = intolerable(&node(&json!({}), spec), &tolerations);
        assert_eq!(found.as_deref(), expected, "{tolerations:?}");
    }
}
