use super::*;
use serde_json::Value;

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "m"}, "status": status})).unwrap()
}

#[test]
fn a_mover_is_over_when_its_own_container_is_or_the_pod_was_put_away() {
    let container = |name: &str, state: Value| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let runs = container("mover", json!({"running": {}}));
    let table = [
        (
            json!({"phase": "Running", "containerStatuses": [runs]}),
            false,
        ),
        (json!({"phase": "Pending"}), false),
        (
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}),
            true,
        ),
        (
            json!({"phase": "Running", "containerStatuses": [
            container("proxy", json!({"running": {}})), container("mover", killed.clone())]}),
            true,
        ),
        (
            json!({"phase": "Running", "containerStatuses": [container("proxy", killed.clone()), runs]}),
            false,
        ),
    ];
    for (status, over) in table {
        assert_eq!(is_over(&pod(&status)), over, "{status}");
    }
    let why = |status| causes::of_pod(&pod(&status));
    assert_eq!(
        why(json!({"phase": "Failed", "containerStatuses": [container("mover", killed)]})),
        "pod m ended with exit code 137 (OOMKilled)"
    );
    assert_eq!(
        why(
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."})
        ),
        "pod m is Failed, Evicted: The node was low on memory."
    );
}

#[test]
fn only_a_message_that_echoes_the_order_is_its_report() {
    let order = |sequence| Order {
        pod: "u".into(),
        sequence,
        what: What::Final,
        at_end: false,
    };
    let report = PassReport {
        order: Some(order(7)),
        ok: true,
        ..PassReport::default()
    };
    let ended = pod(&json!({"phase": "Succeeded", "containerStatuses": [
        {"name": "mover", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state":
            {"terminated": {"exitCode": 0, "message": serde_json::to_string(&report).unwrap()}}}]}));
    assert_eq!(final_report(&ended, &order(7)), Some(report));
    assert_eq!(final_report(&ended, &order(8)), None);
}

#[test]
fn a_warm_order_is_done_when_its_passes_settle_or_fail() {
    let report = |ok, settled| PassReport {
        ok,
        settled,
        ..PassReport::default()
    };
    assert!(!is_last(&report(true, false), What::Warm));
    assert!(is_last(&report(true, true), What::Warm));
    assert!(is_last(&report(false, false), What::Warm));
    assert!(is_last(&report(true, false), What::Final));
}
