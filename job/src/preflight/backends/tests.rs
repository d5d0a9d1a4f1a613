use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed};
use crate::preflight::tests::{node, on_node};

/// Two volumes, that of claim x and that of a claim of another class.
fn both(source: &Value, other: &Value) -> Observed {
    let mut observed = observed(&["x"]);
    for (name, fields) in [("pv-x", source), ("pv-other", other)] {
        let volume = observed.volumes.get_mut(name).unwrap();
        let mut spec = serde_json::to_value(&volume.spec).unwrap();
        for (key, value) in fields.as_object().unwrap() {
            spec[key] = value.clone();
        }
        volume.spec = Some(from(spec));
    }
    observed
}

fn refused(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    nobody_else_has_the_data(observed, &config, &plan(observed, &config))
}

#[test]
fn the_other_volume_of_the_same_data_is_named() {
    let csi = |handle: &str| json!({"csi": {"driver": "d", "volumeHandle": handle}});
    let nfs = |path: &str| json!({"nfs": {"server": "s", "path": path}});
    let disk = |fs: &str| json!({"awsElasticBlockStore": {"volumeID": "v", "fsType": fs}});
    for (source, other, what) in [
        (csi("1"), csi("1"), Some("volumeHandle 1 of CSI driver d")),
        (csi("1"), csi("2"), None),
        (nfs("/data"), nfs("/data/"), Some("/data of NFS server s")),
        (nfs("/data"), nfs("/data/sub"), None),
        (
            json!({"hostPath": {"path": "/srv/x"}}),
            json!({"local": {"path": "/srv//x/"}}),
            Some("folder /srv/x of a node"),
        ),
        (
            disk("ext4"),
            disk("xfs"),
            Some("the same awsElasticBlockStore"),
        ),
        (json!({}), json!({}), None),
    ] {
        let expected = what.map(|what| format!(
            "the data of claim shop/x is also that of volume pv-other of claim shop/other: {what}; delete one of the two volume objects (policy Retain keeps the data), or leave the claim out"
        ));
        assert_eq!(refused(&both(&source, &other)), Vec::from_iter(expected));
    }
}

#[test]
fn the_same_folder_of_different_nodes_is_different_data() {
    let folder = json!({"local": {"path": "/srv/x"}});
    let mut observed = both(&folder, &folder);
    node(&mut observed, "n1", &json!({}));
    node(&mut observed, "n2", &json!({}));
    on_node(&mut observed, "x", "n1");
    on_node(&mut observed, "other", "n2");
    assert_eq!(refused(&observed), Vec::<String>::new());
    on_node(&mut observed, "other", "n1");
    assert_eq!(refused(&observed).len(), 1);
}
