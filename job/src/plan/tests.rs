use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::observe::ObservedWorkload;

/// A cluster of one namespace, `shop`, with a bound claim of class `a` for each name.
pub fn observed(claims: &[&str]) -> Observed {
    let mut observed = Observed {
        version: (1, 36),
        ..Observed::default()
    };
    for (name, class) in claims
        .iter()
        .map(|name| (*name, "a"))
        .chain([("other", "c")])
    {
        observed.claims.push(from(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"),
                "finalizers": ["kubernetes.io/pvc-protection"]},
            "spec": {"storageClassName": class, "volumeName": format!("pv-{name}"), "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound"}
        })));
        observed.volumes.insert(
            format!("pv-{name}"),
            from(json!({
                "metadata": {"name": format!("pv-{name}"), "uid": format!("uid-pv-{name}")},
                "spec": {"claimRef": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")}}
            })),
        );
    }
    for class in ["a", "b"] {
        observed.classes.insert(
            class.into(),
            from(
                json!({"metadata": {"name": class}, "provisioner": "p", "reclaimPolicy": "Delete"}),
            ),
        );
    }
    observed
}

pub fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn workload(kind: &'static str, name: &str, claims: &[&str]) -> ObservedWorkload {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}))
        .collect();
    ObservedWorkload {
        kind,
        namespace: "shop".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        controller: None,
        template: from(json!({"spec": {"containers": [], "volumes": volumes}})),
        claim_templates: Vec::new(),
        frozen: None,
    }
}

fn pod(name: &str, owner: Option<(&str, &str)>, claims: &[&str]) -> Pod {
    let volumes: Vec<Value> = claims
        .iter()
        .map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}}))
        .collect();
    let owners: Vec<Value> = owner
        .iter()
        .map(|(kind, name)| json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}))
        .collect();
    from(json!({
        "metadata": {"namespace": "shop", "name": name, "ownerReferences": owners},
        "spec": {"containers": [], "volumes": volumes}
    }))
}

fn shape(plan: &Plan) -> Vec<(String, Vec<String>, Vec<String>)> {
    plan.groups
        .iter()
        .map(|group| {
            let claims = group.claims.iter().map(ResourceExt::name_any).collect();
            (
                group.name.clone(),
                claims,
                group.workloads.iter().map(|w| w.name.clone()).collect(),
            )
        })
        .collect()
}

fn group(name: &str, claims: &[&str], workloads: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    (name.into(), owned(claims), owned(workloads))
}

#[test]
fn a_claim_that_nobody_uses_is_a_group_of_its_own() {
    let plan = plan(&observed(&["x", "y"]), &config(&[]));
    assert_eq!(
        shape(&plan),
        [
            group("shop/claim/x", &["x"], &[]),
            group("shop/claim/y", &["y"], &[])
        ]
    );
    assert_eq!(plan.refusals, Vec::<String>::new());
}

#[test]
fn claims_of_other_classes_are_not_touched() {
    let plan = plan(&observed(&[]), &config(&[]));
    assert!(plan.groups.is_empty() && plan.left.is_empty());
}

#[test]
fn workloads_that_share_a_claim_are_one_group_with_all_their_claims() {
    let mut observed = observed(&["shared", "x", "y", "apart"]);
    observed.workloads = vec![
        workload("Deployment", "one", &["shared", "x"]),
        workload("Deployment", "two", &["shared", "y"]),
    ];
    let plan = plan(&observed, &config(&[]));
    assert_eq!(
        shape(&plan),
        [
            group("shop/claim/apart", &["apart"], &[]),
            group(
                "shop/deployment/one",
                &["shared", "x", "y"],
                &["one", "two"]
            ),
        ]
    );
}

#[test]
fn a_set_at_zero_still_owns_the_claims_of_its_ordinals() {
    let mut observed = observed(&["data-db-0", "data-db-1", "data-db-x", "data-dbx-0"]);
    observed.workloads = vec![ObservedWorkload {
        claim_templates: vec!["data".into()],
        ..workload("StatefulSet", "db", &[])
    }];
    let plan = plan(&observed, &config(&[]));
    assert_eq!(
        shape(&plan),
        [
            group("shop/statefulset/db", &["data-db-0", "data-db-1"], &["db"]),
            group("shop/claim/data-db-x", &["data-db-x"], &[]),
            group("shop/claim/data-dbx-0", &["data-dbx-0"], &[]),
        ]
    );
}

#[test]
fn a_pod_leads_to_the_deployment_above_its_replica_set() {
    let mut observed = observed(&["x"]);
    let above = Some(("Deployment".to_string(), "web".to_string()));
    observed.workloads = vec![
        workload("Deployment", "web", &["x"]),
        ObservedWorkload {
            controller: above,
            ..workload("ReplicaSet", "web-1", &["x"])
        },
    ];
    observed.pods = vec![pod("web-1-p", Some(("ReplicaSet", "web-1")), &["x"])];
    assert_eq!(
        shape(&plan(&observed, &config(&[]))),
        [group("shop/deployment/web", &["x"], &["web"])]
    );
}

#[test]
fn a_bare_pod_and_an_operators_set_are_refused_by_name() {
    let mut observed = observed(&["x", "y"]);
    observed.pods = vec![pod("lonely", None, &["x"])];
    let operator = Some(("Postgres".to_string(), "main".to_string()));
    observed.workloads = vec![ObservedWorkload {
        controller: operator,
        ..workload("StatefulSet", "pg", &["y"])
    }];
    let plan = plan(&observed, &config(&[]));
    assert_eq!(plan.refusals.len(), 2);
    assert!(
        plan.refusals[0]
            .starts_with("StatefulSet shop/pg mounts claim y, and is controlled by Postgres main")
    );
    assert!(plan.refusals[1].starts_with("pod shop/lonely mounts claim x and has no owner"));
}

#[test]
fn what_cannot_be_moved_is_left_and_named() {
    let mut observed = observed(&["x", "y"]);
    observed.claims[0].spec.as_mut().unwrap().volume_name = None;
    observed.claims[1].metadata.owner_references = Some(vec![from(json!(
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}
    ))]);
    let plan = plan(&observed, &config(&[]));
    assert!(plan.groups.is_empty());
    assert!(plan.left[0].1.starts_with("it is not bound to a volume"));
    assert_eq!(
        plan.left[1].1,
        "it belongs to pod p (a generic ephemeral volume) and goes with it"
    );
}

#[test]
fn our_own_movers_are_no_consumers() {
    let mut observed = observed(&["x"]);
    let mut mover = pod("pvmigrate-r1-abc", None, &["x"]);
    mover.metadata.labels = Some(
        [("pvmigrate.io/role", "mover"), ("pvmigrate.io/run", "r1")]
            .map(|(k, v)| (k.into(), v.into()))
            .into(),
    );
    observed.pods = vec![mover.clone()];
    assert_eq!(plan(&observed, &config(&[])).refusals, Vec::<String>::new());
    // A mark alone makes nobody ours: the name has to carry the run.
    mover.metadata.name = Some("disguised".into());
    observed.pods = vec![mover];
    assert_eq!(plan(&observed, &config(&[])).refusals.len(), 1);
}
