//! What the tests talk about: records, volumes, and reviews as a Kubernetes 1.36 sent them
//! (without managedFields).

use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::core::admission::AdmissionReview;
use pvmigrate_record::record::{Record, Release};
use serde_json::{Value, json};

use crate::fences::{Fenced, Fences};
use crate::rules::{Request, Reviewed};

pub const DEPLOYMENT_LABELLED: &str = include_str!("samples/deployment-labelled.json");
pub const POD_GENERATED_NAME: &str = include_str!("samples/pod-generated-name.json");

/// The namespace that all reviews are about.
pub const NAMESPACE: &str = "fixtures";

pub fn release() -> Release {
    Release {
        namespace: "ops".into(),
        name: "pvmigrate".into(),
    }
}

/// A fenced record of a claim in the reviews' namespace, from `pv-1` to `pv-2`, with workloads
/// given as `Kind/name`: those of `batch` are suspended, the others scaled.
pub fn fenced(claim: &str, workloads: &[&str]) -> Record {
    let workloads: Vec<Value> = workloads
        .iter()
        .map(|workload| {
            let (kind, name) = workload.split_once('/').unwrap();
            let (group, method) = match kind {
                "CronJob" | "Job" => ("batch/v1", "suspend"),
                "Pod" => ("v1", "recreate"),
                "Widget" => ("example.org/v1", "scale"),
                _ => ("apps/v1", "scale"),
            };
            let resource = format!("{}s", kind.to_lowercase());
            json!({"method": method, "workload": {"apiVersion": group, "kind": kind, "resource": resource, "namespace": NAMESPACE, "name": name, "uid": "w"}})
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
        "destination": {"name": "pv-2", "uid": "3", "reclaim_policy": "Delete"},
        "manifest": {},
        "group": "g",
        "freeze": workloads,
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

/// The fence over the claims of these records.
pub fn fences(records: &[Record]) -> Fences {
    let release = Arc::new(release());
    let mut fences = Fences::default();
    for (number, record) in records.iter().enumerate() {
        let of = Arc::new(Fenced::of(&release, record.clone()));
        fences.insert(&format!("pv-{number}"), of);
    }
    fences
}

/// A review by its file's name.
pub fn text(name: &str) -> String {
    let file = format!("{}/src/samples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

pub fn request(name: &str) -> Request {
    changed(name, |_| {})
}

/// The request of a review, changed on the way.
pub fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Request {
    let mut review: Value = serde_json::from_str(&text(name)).unwrap();
    change(&mut review["request"]);
    let review: AdmissionReview<Reviewed> = serde_json::from_value(review).unwrap();
    review.try_into().unwrap()
}
