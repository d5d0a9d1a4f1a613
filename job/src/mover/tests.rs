use super::*;
use crate::config::tests::config;
use serde_json::json;

#[test]
fn a_pinned_mover_keeps_every_term_of_its_consumer() {
    let spec: PodSpec = serde_json::from_value(json!({
        "containers": [], "nodeName": "n1", "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "db", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
        ]}}}
    }))
    .unwrap();
    let placement = Placement::of(&spec);
    let affinity = serde_json::to_value(placement.affinity()).unwrap();
    let terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].as_array().unwrap().clone();
    assert_eq!(terms.len(), 2);
    for (term, zone) in terms.iter().zip(["a", "b"]) {
        assert_eq!(term["matchExpressions"][0]["values"][0], zone);
        assert_eq!(
            term["matchFields"][0],
            json!({"key": "metadata.name", "operator": "In", "values": ["n1"]})
        );
    }
    assert_eq!(placement.node_selector["disk"], "ssd");
    assert_eq!(placement.tolerations.len(), 1);
}

/// Of a claim of this volume mode.
pub fn record(volume_mode: &str) -> Record {
    serde_json::from_value(json!({
        "version": 1, "release": {"namespace": "ops", "name": "r"}, "run": "0", "epoch": 1,
        "job": "j", "phase": "Planned", "fence": {"on": false, "generation": 0},
        "claim": {"namespace": "shop", "name": "data", "uid": "u"},
        "sourceClass": "a", "destinationClass": "b",
        "source": {"name": "pv", "uid": "v", "reclaim_policy": "Delete"},
        "manifest": {"volumeMode": volume_mode},
        "group": "g", "freeze": []
    }))
    .unwrap()
}

#[test]
fn a_block_volume_is_a_device_and_its_source_read_only() {
    let pod = mover_pod(&record("Block"), &config(&[]), &Placement::default());
    let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
    assert_eq!(
        spec["volumes"][0]["persistentVolumeClaim"],
        json!({"claimName": "data", "readOnly": true})
    );
    assert_eq!(
        spec["volumes"][1]["persistentVolumeClaim"]["readOnly"],
        json!(null)
    );
    let container = &spec["containers"][0];
    assert_eq!(
        container["volumeDevices"],
        json!([
            {"name": "source", "devicePath": "/dev/source"},
            {"name": "destination", "devicePath": "/dev/destination"}
        ])
    );
    assert_eq!(container["volumeMounts"].as_array().unwrap().len(), 1);

    let pod = mover_pod(&record("Filesystem"), &config(&[]), &Placement::default());
    let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["readOnly"], true);
    // A volume that is read-only as a whole would be attached, or mounted, in another way than
    // the consumer's is.
    assert_eq!(
        spec["volumes"][0]["persistentVolumeClaim"],
        json!({"claimName": "data"})
    );
}

#[test]
fn what_provisions_a_destination_mounts_nothing_else() {
    for mode in ["Filesystem", "Block"] {
        let pod = provisioning_pod(&record(mode), &config(&[]), &Placement::default());
        assert!(is_told_otherwise(&pod, &record(mode), &config(&[])));
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        let volumes = spec["volumes"].as_array().unwrap();
        assert_eq!(volumes.len(), 1);
        assert_eq!(volumes[0]["name"], "destination");
        let container = &spec["containers"][0];
        let kinds = ["volumeMounts", "volumeDevices"].map(|kind| &container[kind]);
        let names: Vec<_> = kinds
            .iter()
            .flat_map(|all| all.as_array().unwrap())
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["destination"]);
    }
}

#[test]
fn a_mover_of_an_unused_claim_is_not_pinned() {
    assert_eq!(Placement::default().affinity(), None);
}
