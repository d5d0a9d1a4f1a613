use serde_json::json;

use super::*;
use crate::config::tests::config;
use crate::observe::HostPath;
use crate::plan::plan;
use crate::plan::tests::{from, observed};
use crate::preflight::tests::{node, on_node};

#[test]
fn an_ordinary_claim_needs_no_note() {
    let (observed, config) = (observed(&["x"]), config(&[]));
    assert!(notes(&observed, &config, &plan(&observed, &config)).is_empty());
}

#[test]
fn what_is_not_carried_over_is_noted_with_the_reason() {
    let mut observed = observed(&["x"]);
    node(&mut observed, "n1", &json!({}));
    on_node(&mut observed, "x", "n1");
    let volume = observed
        .volumes
        .get_mut("pv-x")
        .unwrap()
        .spec
        .as_mut()
        .unwrap();
    volume.persistent_volume_reclaim_policy = Some("Retain".into());
    volume.mount_options = Some(vec!["noatime".into()]);
    volume.local = Some(from(json!({"path": "/srv/disks/x"})));
    let claim = &mut observed.claims[0];
    claim.metadata.annotations = Some(from(json!({
        "volume.kubernetes.io/storage-resizer": "r", "pv.kubernetes.io/bind-completed": "yes", "example.com/kept": "1"
    })));
    let spec = claim.spec.as_mut().unwrap();
    spec.data_source = Some(from(json!({"kind": "VolumeSnapshot", "name": "s"})));
    spec.resources = Some(from(json!({"requests": {"storage": "1Gi"}})));
    claim.status = Some(from(
        json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}),
    ));
    observed.surroundings.host_paths = [
        host_path("backup/agent", "n1", "/srv/disks/"),
        host_path("backup/elsewhere", "n2", "/srv/disks"),
        host_path("backup/other", "n1", "/srv/dis"),
    ]
    .into();
    let config = config(&[]);
    let all = notes(&observed, &config, &plan(&observed, &config));
    assert_eq!(
        all["shop/x"],
        [
            "reclaim policy Retain is kept: somebody had changed it from its class's Delete",
            "the node affinity of volume pv-x is not carried over: the new volume has its own provisioner's",
            "mount options noatime are not carried over: they are of another file system; StorageClass b gives none",
            "annotations volume.kubernetes.io/storage-resizer are not carried over: they are about the volume behind the claim, or kubectl's own",
            "dataSource of the claim is not carried over: it is about how the old volume was found or made; the destination is made with 2Gi, which the volume has; the claim asks for 1Gi",
            "folder /srv/disks/x of its volume can also be reached by pods that mount a folder of the node: backup/agent (/srv/disks/); whether they write there cannot be seen, and nothing keeps them from it",
        ]
    );
}

fn host_path(pod: &str, node: &str, path: &str) -> HostPath {
    HostPath {
        pod: pod.into(),
        node: Some(node.into()),
        path: path.into(),
    }
}

#[test]
fn another_policy_of_the_destinations_class_is_noted() {
    let mut observed = observed(&["x"]);
    let volume = observed
        .volumes
        .get_mut("pv-x")
        .unwrap()
        .spec
        .as_mut()
        .unwrap();
    volume.persistent_volume_reclaim_policy = Some("Delete".into());
    observed.classes.get_mut("b").unwrap().reclaim_policy = Some("Retain".into());
    let config = config(&[]);
    assert_eq!(
        notes(&observed, &config, &plan(&observed, &config))["shop/x"],
        ["reclaim policy Delete becomes Retain, as StorageClass b has it"]
    );
}
