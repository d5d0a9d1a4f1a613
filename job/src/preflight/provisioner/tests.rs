use serde_json::json;

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed};

fn refused(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    is_alive(observed, &config, &plan(observed, &config))
}

#[test]
fn a_csi_driver_has_to_be_registered_somewhere() {
    let mut observed = observed(&["x"]);
    assert_eq!(
        refused(&observed),
        Vec::<String>::new(),
        "not known to be CSI"
    );
    let driver = from(json!({"metadata": {"name": "p"}, "spec": {}}));
    observed.surroundings.drivers.insert("p".into(), driver);
    assert_eq!(
        refused(&observed),
        [
            "destSC: CSI driver p of StorageClass b is registered on no node: its node plugin does not run"
        ]
    );
    let node = from(
        json!({"metadata": {"name": "n"}, "spec": {"drivers": [{"name": "p", "nodeID": "n"}]}}),
    );
    observed.surroundings.csi_nodes.insert("n".into(), node);
    assert_eq!(refused(&observed), Vec::<String>::new());
}

#[test]
fn where_volumes_are_made_by_hand_they_have_to_be_there() {
    let mut observed = observed(&["x"]);
    observed.classes.get_mut("b").unwrap().provisioner = "kubernetes.io/no-provisioner".into();
    assert_eq!(
        refused(&observed),
        [
            "destSC: StorageClass b has no provisioner, and 0 volumes of it are Available for 1 claims: make more"
        ]
    );
    for (modes, expected) in [
        (
            "ReadOnlyMany",
            Some(
                "destSC: StorageClass b has no provisioner, and none of its Available volumes has size, access modes and volumeMode of claim shop/x: make one",
            ),
        ),
        ("ReadWriteOnce", None),
    ] {
        let volume = json!({
            "metadata": {"name": "made"}, "status": {"phase": "Available"},
            "spec": {"storageClassName": "b", "capacity": {"storage": "1Gi"}, "accessModes": [modes]}
        });
        observed.volumes.insert("made".into(), from(volume));
        assert_eq!(refused(&observed).first().map(String::as_str), expected);
    }
}
