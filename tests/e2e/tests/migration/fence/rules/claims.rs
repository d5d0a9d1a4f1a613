//! Claims under migration, and their staging claims.

use pvmigrate_record::{names, refusal};
use serde_json::{Value, json};

use super::super::requests::{claim_spec, create, delete, object, patch};
use super::{Row, Scene};

pub fn rows(scene: &Scene) -> Vec<Row> {
    let web = &scene.web;
    let claims = scene.at("v1", "persistentvolumeclaims");
    let make = |name: &str, more: Value| {
        let spec = claim_spec(&web.source_class, more);
        create(
            claims.clone(),
            object("v1", "PersistentVolumeClaim", name, spec),
        )
    };
    let clone = || json!({"kind": "PersistentVolumeClaim", "name": "web"});
    let epoch = json!({"metadata": {"annotations": {names::EPOCH: "99"}}});
    let mark = format!("annotation {}", names::EPOCH);
    let staging = names::staging_object(&web.run, &web.claim.uid);
    let mut rows = vec![
        ("claims", make("web", json!({})), refusal::claim(web)),
        (
            "claims",
            make("guest", json!({"dataSource": clone()})),
            refusal::clone(web),
        ),
        (
            "claims",
            make("guest", json!({"dataSourceRef": clone()})),
            refusal::clone(web),
        ),
        (
            "claim-changes",
            patch(format!("{claims}/web"), epoch),
            refusal::claim_mark(web, &mark),
        ),
        (
            "claim-deletions",
            delete(format!("{claims}/web")),
            refusal::claim_delete(web),
        ),
        (
            "claim-deletions",
            delete(format!("{claims}?fieldSelector=metadata.name%3Dweb")),
            refusal::claim_delete(web),
        ),
        (
            "claim-deletions",
            delete(format!("{claims}/{staging}")),
            refusal::staging(web, &staging),
        ),
    ];
    for volume in std::iter::once(&web.source).chain(&web.destination) {
        rows.push((
            "claims",
            make("guest", json!({"volumeName": volume.name})),
            refusal::volume_name(web, &volume.name),
        ));
    }
    rows
}
