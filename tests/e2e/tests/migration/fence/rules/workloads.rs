//! Workloads that are stopped.

use pvmigrate_record::{names, refusal};
use serde_json::json;

use super::super::requests::{create, delete, object, orphan, patch, workload_spec};
use super::{Row, Scene};

pub fn rows(scene: &Scene) -> Vec<Row> {
    let up = || json!({"spec": {"replicas": 1}});
    let unmarked = || json!({"metadata": {"annotations": {names::FROZEN: null}}});
    let mark = format!("annotation {}", names::FROZEN);
    let mut set_spec = workload_spec(&[]);
    set_spec["serviceName"] = json!("my-db");
    let mut rows = vec![];
    for (record, workload, spec, selector) in [
        (&scene.web, &scene.deployment, workload_spec(&[]), None),
        (&scene.db, &scene.set, set_spec, Some("app%3Dmy-db")),
    ] {
        let all = scene.at("apps/v1", &workload.resource);
        let path = format!("{all}/{}", workload.name);
        // One is deleted by its name, the other as one of many.
        let deleted = match selector {
            Some(selector) => delete(format!("{all}?labelSelector={selector}")),
            None => delete(path.clone()),
        };
        let again = object("apps/v1", &workload.kind, &workload.name, spec);
        rows.extend([
            (
                "names",
                create(all, again),
                refusal::workload_create(record, workload),
            ),
            (
                "deletions",
                deleted,
                refusal::workload_delete(record, workload),
            ),
            (
                "deletions",
                orphan(path.clone()),
                refusal::workload_delete(record, workload),
            ),
            (
                "marks",
                patch(path.clone(), unmarked()),
                refusal::workload_mark(record, workload, &mark),
            ),
            (
                "starts",
                patch(path.clone(), up()),
                refusal::scale_up(record, workload),
            ),
            (
                "scales",
                patch(format!("{path}/scale"), up()),
                refusal::scale_up(record, workload),
            ),
        ]);
    }
    rows
}
