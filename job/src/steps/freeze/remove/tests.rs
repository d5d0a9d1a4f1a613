use super::*;
use crate::pods::has_ended;
use pvmigrate_record::record::Workload;
use serde_json::{Value, json};

fn seen(metadata: &Value, phase: &str) -> SeenPod {
    let state = if phase == "Running" {
        json!({"running": {}})
    } else {
        json!({"terminated": {"exitCode": 0}})
    };
    let pod: Pod = serde_json::from_value(json!({
        "metadata": metadata, "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": phase, "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}
        ]}
    }))
    .unwrap();
    SeenPod {
        name: pod.name_any(),
        uid: "u".into(),
        node: Some("n".into()),
        claims: BTreeSet::new(),
        ended: has_ended(&pod),
        deleted: false,
        pod,
    }
}

fn freezing(method: Method, pod: Option<&str>) -> Freezing {
    Freezing {
        workload: Workload {
            api_version: "apps/v1".into(),
            kind: "StatefulSet".into(),
            resource: "statefulsets".into(),
            namespace: "n".into(),
            name: "db".into(),
            uid: "set".into(),
        },
        method,
        pod: pod.map(Into::into),
    }
}

#[test]
fn each_pod_goes_as_its_workload_is_frozen() {
    let pod = seen(&json!({"name": "db-1"}), "Running");
    let due_by = |method, only, ignore| due(&pod, Some(&freezing(method, only)), ignore);
    assert_eq!(due_by(Method::Hold, None, false), Due::Delete);
    assert_eq!(due_by(Method::Hold, Some("db-1"), false), Due::Evict);
    assert_eq!(due_by(Method::Hold, Some("db-1"), true), Due::Delete);
    assert!(matches!(
        due_by(Method::Hold, Some("db-0"), true),
        Due::Wait(_)
    ));
    assert_eq!(due_by(Method::Recreate, None, false), Due::Delete);
    assert!(matches!(due_by(Method::Scale, None, false), Due::Wait(_)));
    assert!(matches!(due_by(Method::Suspend, None, false), Due::Wait(_)));
    assert!(matches!(due(&pod, None, false), Due::Wait(_)));
}

#[test]
fn a_jobs_pod_is_waited_for_however_its_workload_is_frozen() {
    for (version, kind, due_then) in [
        ("batch/v1", "Job", Due::Wait("to run to its end")),
        ("flow.example/v1", "Job", Due::Delete),
        ("apps/v1", "ReplicaSet", Due::Delete),
    ] {
        let owner = json!({"apiVersion": version, "kind": kind, "name": "o", "uid": "o", "controller": true});
        let pod = seen(&json!({"name": "p", "ownerReferences": [owner]}), "Running");
        let held = freezing(Method::Hold, None);
        assert_eq!(due(&pod, Some(&held), false), due_then, "{version} {kind}");
    }
}

#[test]
fn one_that_has_ended_is_deleted_and_one_that_is_ending_is_not_touched() {
    let job = freezing(Method::Suspend, None);
    let ended = seen(&json!({"name": "p"}), "Succeeded");
    assert_eq!(due(&ended, Some(&job), false), Due::Delete);
    let held = freezing(Method::Hold, None);
    let ending = json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert_eq!(
        due(&seen(&ending, "Running"), Some(&held), false),
        Due::Wait("Terminating")
    );
}
