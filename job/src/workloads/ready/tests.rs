use super::*;
use serde_json::{Value, json};

fn lacks(kind: &str, spec: &Value, status: &Value) -> Option<String> {
    let state = json!({"metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status});
    missing(kind, &serde_json::from_value(state).unwrap())
}

#[test]
fn each_kind_is_ready_by_its_own_status() {
    let replicas = json!({"replicas": 2});
    for (kind, spec, status, said) in [
        (
            "StatefulSet",
            &replicas,
            json!({"observedGeneration": 1, "readyReplicas": 2}),
            Some("its controller has not seen its last change"),
        ),
        (
            "StatefulSet",
            &replicas,
            json!({"observedGeneration": 2, "readyReplicas": 1}),
            Some("1 of 2 replicas are Ready"),
        ),
        (
            "StatefulSet",
            &replicas,
            json!({"observedGeneration": 2, "readyReplicas": 2}),
            None,
        ),
        (
            "Deployment",
            &replicas,
            json!({"observedGeneration": 2, "readyReplicas": 2, "updatedReplicas": 1}),
            Some("1 of 2 replicas are Ready"),
        ),
        (
            "DaemonSet",
            &json!({}),
            json!({"observedGeneration": 2, "desiredNumberScheduled": 3}),
            Some("0 of 3 pods are Ready"),
        ),
        (
            "Job",
            &json!({}),
            json!({}),
            Some("it has no pod that is Ready"),
        ),
        ("Job", &json!({}), json!({"ready": 1}), None),
        ("Job", &json!({"suspend": true}), json!({}), None),
        (
            "Job",
            &json!({}),
            json!({"conditions": [{"type": "Complete", "status": "True"}]}),
            None,
        ),
    ] {
        assert_eq!(
            lacks(kind, spec, &status).as_deref(),
            said,
            "{kind} {status}"
        );
    }
}

#[test]
fn the_moment_is_the_pods_own_unless_it_was_noticed_in_the_same_second() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [], "volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}]},
        "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}
        ]}
    }))
    .unwrap();
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let claims = ["data".to_string()];
    let moment = |noticed: &str| since([&pod].into_iter(), &claims, at(noticed));
    assert_eq!(
        moment("2026-01-01T00:00:05.3Z"),
        at("2026-01-01T00:00:05.3Z")
    );
    assert_eq!(moment("2026-01-01T00:09:00Z"), at("2026-01-01T00:00:06Z"));
    let other = ["other".to_string()];
    assert_eq!(
        since([&pod].into_iter(), &other, at("2026-01-01T00:09:00Z")),
        at("2026-01-01T00:09:00Z")
    );
}
