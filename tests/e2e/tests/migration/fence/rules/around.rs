//! What an administrator may do, and a user may not: volumes, namespaces and classes, the status
//! of things, and the kinds of add-ons.

use pvmigrate_record::{names, refusal};
use serde_json::{Value, json};

use super::super::requests::{create, delete, object, patch};
use super::{Row, Scene};

pub fn rows(scene: &Scene) -> Vec<Row> {
    let test = scene.halted.test;
    let first = &scene.records[0];
    let namespace = |name: &str| delete(format!("/api/v1/namespaces/{name}"));
    let class = &first.destination_class;
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    let mut rows = volumes(scene);
    rows.extend(statuses(scene));
    for name in [&test.namespace, &scene.halted.of.namespace] {
        let sentence = refusal::namespace(first, name);
        rows.push(("namespaces", namespace(name), sentence));
    }
    rows.push((
        "classes",
        delete(format!("{classes}/{class}")),
        refusal::storage_class(first, class),
    ));
    if test.has_bed() {
        let group = "snapshot.storage.k8s.io/v1";
        let of = json!({"source": {"persistentVolumeClaimName": "web"}});
        let snapshot = object(group, "VolumeSnapshot", "guest", of);
        rows.push((
            "snapshots",
            create(scene.at(group, "volumesnapshots"), snapshot),
            refusal::snapshot(&scene.web),
        ));
    }
    rows
}

fn volumes(scene: &Scene) -> Vec<Row> {
    let web = &scene.web;
    let policy = || json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    let released = || json!([{"op": "remove", "path": "/spec/claimRef"}]);
    let elsewhere = || json!({"spec": {"claimRef": {"name": "guest"}}});
    let (run, record) = (
        format!("label {}", names::RUN),
        format!("annotation {}", names::RECORD),
    );
    let unlabelled = || json!({"metadata": {"labels": {names::RUN: null}}});
    let unmarked = || json!({"metadata": {"annotations": {names::RECORD: null}}});
    // What is changed, of the source and of the destination, and its name in the sentence.
    let changes: [(Value, [bool; 2], &str); 5] = [
        (policy(), [true, true], "reclaim policy"),
        (released(), [true, false], "claimRef"),
        (elsewhere(), [false, true], "claimRef"),
        (unmarked(), [true, false], &record),
        (unlabelled(), [true, true], &run),
    ];
    let both = std::iter::once(&web.source).chain(&web.destination);
    let mut rows = vec![];
    for (which, volume) in both.enumerate() {
        let (name, path) = (&volume.name, at(&volume.name));
        for (change, of, what) in &changes {
            if of[which] {
                let sentence = refusal::volume(web, name, what);
                rows.push(("volumes", patch(path.clone(), change.clone()), sentence));
            }
        }
        let sentence = refusal::volume_delete(web, name);
        rows.push(("volume-deletions", delete(path), sentence));
    }
    rows
}

/// Labels and annotations come with a status, too.
fn statuses(scene: &Scene) -> Vec<Row> {
    let (web, db) = (&scene.web, &scene.db);
    let claim = scene.at("v1", "persistentvolumeclaims/web/status");
    let unmarked = |mark: &str| json!({"metadata": {"annotations": {mark: null}}});
    let label = format!("label {}", names::RUN);
    let mark = |mark: &str| format!("annotation {mark}");
    let mut rows = vec![(
        "claim-changes",
        patch(
            claim,
            json!({"metadata": {"annotations": {names::EPOCH: "99"}}}),
        ),
        refusal::claim_mark(web, &mark(names::EPOCH)),
    )];
    for volume in std::iter::once(&web.source).chain(&web.destination) {
        let unlabelled = json!({"metadata": {"labels": {names::RUN: null}}});
        rows.push((
            "volumes",
            patch(format!("{}/status", at(&volume.name)), unlabelled),
            refusal::volume(web, &volume.name, &label),
        ));
    }
    rows.push((
        "volumes",
        patch(
            format!("{}/status", at(&web.source.name)),
            unmarked(names::RECORD),
        ),
        refusal::volume(web, &web.source.name, &mark(names::RECORD)),
    ));
    for (record, workload) in [(web, &scene.deployment), (db, &scene.set)] {
        let path = format!("{}/{}/status", workload.resource, workload.name);
        rows.push((
            "marks",
            patch(scene.at("apps/v1", &path), unmarked(names::FROZEN)),
            refusal::workload_mark(record, workload, &mark(names::FROZEN)),
        ));
    }
    rows
}

fn at(volume: &str) -> String {
    format!("/api/v1/persistentvolumes/{volume}")
}
