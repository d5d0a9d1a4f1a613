use serde_json::json;

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed, workload};

fn refused(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    refusals(observed, &config, &plan(observed, &config))
}

#[test]
fn an_ordinary_cluster_is_not_refused() {
    assert_eq!(refused(&observed(&["x"])), Vec::<String>::new());
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut observed = observed(&["x", "y"]);
    observed.version = (1, 29);
    observed.classes.remove("b");
    observed.claims[0].metadata.finalizers = Some(vec!["example/keep".into()]);
    observed.claims[1].spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteOncePod".into()]);
    assert_eq!(
        refused(&observed),
        [
            "the API server is version 1.29: the fence needs Kubernetes 1.30 or newer",
            "destSC: StorageClass b does not exist; there are a",
            "claim shop/y is ReadWriteOncePod: no mover can stand ready beside its consumer, and this version copies in no other way",
            "claim shop/x has the finalizer example/keep: it would not go while its owner wants to keep it",
        ]
    );
}

#[test]
fn a_claim_and_a_volume_that_disagree_are_refused() {
    let mut observed = observed(&["x"]);
    let reference = from(json!({"namespace": "shop", "name": "x", "uid": "another"}));
    observed
        .volumes
        .get_mut("pv-x")
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .claim_ref = Some(reference);
    assert_eq!(
        refused(&observed),
        ["claim shop/x says it is bound to volume pv-x, which holds another claim"]
    );
}

#[test]
fn a_workload_that_another_release_has_stopped_is_respected() {
    let mut observed = observed(&["x"]);
    let mut web = workload("Deployment", "web", &["x"]);
    web.frozen = Some(
        json!({"release": {"namespace": "n", "name": "other"}, "run": "r", "epoch": 1, "replicas": 2, "at": "2026-01-01T00:00:00Z"})
            .to_string(),
    );
    observed.workloads = vec![web];
    assert_eq!(
        refused(&observed),
        ["Deployment shop/web is stopped by release n/other (run r): wait for it"]
    );
}
