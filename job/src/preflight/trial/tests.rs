use serde_json::json;

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed};
use crate::preflight::tests::node;

#[test]
fn a_volume_that_somebody_has_made_is_not_taken_by_a_trial() {
    let mut observed = observed(&["x"]);
    let class = observed.classes["b"].clone();
    assert_eq!(untried(&observed, &class), None);
    let spare = from(json!({
        "metadata": {"name": "spare"}, "spec": {"storageClassName": "b"}, "status": {"phase": "Available"}
    }));
    observed.volumes.insert("spare".into(), spare);
    let why = untried(&observed, &class).unwrap();
    assert_eq!(
        why,
        "volume spare of StorageClass b is Available, and a trial could take it"
    );
    let mut class = class;
    class.provisioner = "kubernetes.io/no-provisioner".into();
    assert_eq!(
        untried(&observed, &class).unwrap(),
        "StorageClass b has no provisioner"
    );
}

#[test]
fn a_trial_is_allowed_where_pods_must_be_restricted() {
    let mut observed = observed(&["x"]);
    node(&mut observed, "n1", &json!({}));
    let config = config(&[]);
    let trials = trials(&observed, &config, &plan(&observed, &config), &[]).by_pods;
    let metadata = objects::metadata(&config, &trials[0], 0, None);
    assert!(pvmigrate_record::names::is_trial(
        metadata.name.as_deref().unwrap(),
        metadata.labels.as_ref().unwrap()
    ));
    let pod = serde_json::to_value(objects::pod(&config, &trials[0], metadata)).unwrap();
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["command"],
        json!(["/pvmigrate-mover", "--version"])
    );
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true})
    );
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        pod["spec"]["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
}
