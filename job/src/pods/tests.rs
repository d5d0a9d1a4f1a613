use super::*;
use serde_json::json;

fn pod(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_pod_that_is_only_marked_for_deletion_has_not_ended() {
    let running = pod(json!({
        "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": []},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}
        ]}
    }));
    assert!(!has_ended(&running));
}

#[test]
fn a_pod_has_ended_when_its_kubelet_says_so_for_good() {
    let ended = pod(json!({
        "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": [], "restartPolicy": "Always"},
        "status": {"phase": "Succeeded", "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}
        ]}
    }));
    assert!(has_ended(&ended));
}

#[test]
fn a_crash_looping_pod_between_restarts_has_not_ended() {
    let looping = pod(json!({
        "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n", "containers": [], "restartPolicy": "Always"},
        "status": {"phase": "Running", "containerStatuses": [
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 3, "state": {"terminated": {"exitCode": 1}}}
        ]}
    }));
    assert!(!has_ended(&looping));
}

#[test]
fn a_pod_that_was_never_on_a_node_has_ended() {
    let pending = pod(json!({
        "metadata": {"name": "p"}, "spec": {"containers": []}, "status": {"phase": "Pending"}
    }));
    assert!(has_ended(&pending));
}

fn seen(pods: &[serde_json::Value]) -> (Pods, Wanted) {
    let wanted = Wanted {
        movers: [("mover".to_string(), "data".to_string())].into(),
        shared: BTreeSet::new(),
    };
    let mut all = Pods::default();
    for value in pods {
        all.take(pod(value.clone()), false, &wanted);
    }
    (all, wanted)
}

fn consumer(name: &str, node: Option<&str>, unschedulable: bool) -> serde_json::Value {
    let status = if unschedulable { "False" } else { "True" };
    json!({
        "metadata": {"name": name, "uid": name},
        "spec": {"nodeName": node, "containers": [], "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}}
        ]},
        "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": status}]}
    })
}

#[test]
fn a_mover_makes_way_for_a_consumer_on_another_node_or_on_none() {
    let mover = json!({
        "metadata": {"name": "mover", "uid": "m"}, "spec": {"nodeName": "n1", "containers": []}
    });
    let why = |consumer| {
        let (pods, wanted) = seen(&[mover.clone(), consumer]);
        moved(&pods, &wanted)
    };
    assert_eq!(why(consumer("p", Some("n1"), false)), None);
    assert_eq!(
        why(consumer("p", Some("n2"), false)).unwrap(),
        "pod p is on node n2, the mover of claim data on n1"
    );
    assert_eq!(
        why(consumer("p", None, true)).unwrap(),
        "pod p finds no node while the mover of claim data is on n1"
    );
    assert_eq!(
        why(consumer("p", None, false)),
        None,
        "it was not looked at yet"
    );
    let (pods, mut wanted) = seen(&[mover.clone(), consumer("p", Some("n2"), false)]);
    wanted.shared.insert("data".into());
    assert_eq!(moved(&pods, &wanted), None, "many nodes may mount it");
}

#[test]
fn claims_of_ephemeral_volumes_are_mounted_claims() {
    let pod = pod(json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [], "volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {}},
            {"name": "c", "emptyDir": {}}
        ]}
    }));
    assert_eq!(mounted_claims(&pod).collect::<Vec<_>>(), ["data", "p-b"]);
}
