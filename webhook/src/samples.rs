//! What the tests talk about: records, volumes, and reviews as a Kubernetes 1.36 sent them
//! (without managedFields).

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::core::admission::AdmissionReview;
use pvmigrate_record::record::{Record, Release};
use serde_json::{Value, json};

use crate::rules::{Request, Reviewed};

pub const CLAIM: &str = include_str!("samples/claim.json");
pub const CLAIM_GENERATED_NAME: &str = include_str!("samples/claim-generated-name.json");
pub const DEPLOYMENT_LABELLED: &str = include_str!("samples/deployment-labelled.json");
pub const DEPLOYMENT_UP: &str = include_str!("samples/deployment-up.json");
pub const POD_EPHEMERAL_VOLUME: &str = include_str!("samples/pod-ephemeral-volume.json");
pub const POD_GENERATED_NAME: &str = include_str!("samples/pod-generated-name.json");
pub const REPLICASET_UP: &str = include_str!("samples/replicaset-up.json");
pub const STATEFULSET_SCALE_DOWN: &str = include_str!("samples/statefulset-scale-down.json");
pub const STATEFULSET_SCALE_UP: &str = include_str!("samples/statefulset-scale-up.json");

/// The namespace that all reviews are about.
pub const NAMESPACE: &str = "fixtures";

pub fn release() -> Release {
    Release {
        namespace: "ops".into(),
        name: "pvmigrate".into(),
    }
}

/// A fenced record of a claim in the reviews' namespace, with workloads given as `Kind/name`.
pub fn fenced(claim: &str, workloads: &[&str]) -> Record {
    let workloads: Vec<Value> = workloads
        .iter()
        .map(|workload| {
            let (kind, name) = workload.split_once('/').unwrap();
            json!({"kind": kind, "namespace": NAMESPACE, "name": name, "uid": "w"})
        })
        .collect();
    serde_json::from_value(json!({
        "version": 1,
        "release": {"namespace": "ops", "name": "pvmigrate"},
        "run": "abc",
        "epoch": 1,
        "job": "pvmigrate-x",
        "phase": "Frozen",
        "fence": {"on": true, "generation": 1},
        "claim": {"namespace": NAMESPACE, "name": claim, "uid": "1"},
        "sourceClass": "a",
        "destinationClass": "b",
        "source": {"name": "pv-1", "uid": "2", "reclaim_policy": "Delete"},
        "manifest": {},
        "group": "g",
        "freeze": {"method": "scale", "workloads": workloads},
    }))
    .unwrap()
}

pub fn volume(name: &str, record: Option<&str>) -> PersistentVolume {
    let annotations = record.map(|record| json!({"pvmigrate.io/record": record}));
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "labels": {"pvmigrate.io/run": "abc"},
            "annotations": annotations,
        },
    }))
    .unwrap()
}

pub fn request(review: &str) -> Request {
    changed(review, |_| {})
}

/// The request of a review, changed on the way.
pub fn changed(review: &str, change: impl FnOnce(&mut Value)) -> Request {
    let mut review: Value = serde_json::from_str(review).unwrap();
    change(&mut review["request"]);
    let review: AdmissionReview<Reviewed> = serde_json::from_value(review).unwrap();
    review.try_into().unwrap()
}
