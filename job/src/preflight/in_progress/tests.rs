use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed};

fn refused(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    nothing_is_in_progress(observed, &config, &plan(observed, &config))
}

fn snapshot(status: &Value) -> DynamicObject {
    from(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"namespace": "shop", "name": "nightly"},
        "spec": {"source": {"persistentVolumeClaimName": "x"}}, "status": status
    }))
}

#[test]
fn a_snapshot_that_is_not_ready_is_waited_for() {
    let mut observed = observed(&["x"]);
    let sentence = "VolumeSnapshot nightly of claim shop/x is not ready to use: wait until it is, or delete it";
    for (status, expected) in [
        (json!({"readyToUse": true}), vec![]),
        (json!({"readyToUse": false}), vec![sentence]),
        (json!(null), vec![sentence]),
    ] {
        observed.surroundings.snapshots = vec![snapshot(&status)];
        assert_eq!(refused(&observed), expected);
    }
}

#[test]
fn a_clone_that_is_not_bound_is_waited_for() {
    let mut observed = observed(&["x"]);
    for (phase, count) in [("Pending", 1), ("Bound", 0)] {
        let copy = from(json!({
            "metadata": {"namespace": "shop", "name": "copy"}, "status": {"phase": phase},
            "spec": {"storageClassName": "c", "dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}}
        }));
        let key = ("shop".into(), "copy".into());
        observed.surroundings.clones.insert(key, copy);
        let said = refused(&observed);
        assert_eq!(said.len(), count, "{said:?}");
        assert!(said.iter().all(|said| said
            == "claim shop/copy is to become a clone of claim shop/x and is not Bound: wait until it is, or delete it"));
    }
}

#[test]
fn a_resize_is_waited_for() {
    for (requests, status, how) in [
        ("1Gi", json!({"capacity": {"storage": "1Gi"}}), None),
        ("1Gi", json!({"capacity": {"storage": "2Gi"}}), None),
        (
            "2Gi",
            json!({"capacity": {"storage": "1Gi"}}),
            Some("it has 1Gi and asks for 2Gi"),
        ),
        (
            "2Gi",
            json!({"capacity": {"storage": "2Gi"}, "conditions": [{"type": "FileSystemResizePending", "status": "True"}]}),
            Some("FileSystemResizePending"),
        ),
        (
            "2Gi",
            json!({"capacity": {"storage": "2Gi"}, "conditions": [{"type": "Resizing", "status": "False"}]}),
            None,
        ),
    ] {
        let mut observed = observed(&["x"]);
        let claim = &mut observed.claims[0];
        claim.spec.as_mut().unwrap().resources =
            Some(from(json!({"requests": {"storage": requests}})));
        claim.status = Some(from(status));
        let expected = how.map(|how| format!("claim shop/x is being resized ({how}): wait until that has ended; one that waits for the file system needs a pod that mounts it"));
        assert_eq!(refused(&observed), Vec::from_iter(expected));
    }
}
