//! Pods, and workloads that would make some.

use pvmigrate_record::{names, refusal};
use serde_json::{Value, json};

use super::super::requests::{Ask, claim_spec, create, job_spec, object, pod_spec, workload_spec};
use super::{Row, Scene};

pub fn rows(scene: &Scene) -> Vec<Row> {
    let (web, db) = (&scene.web, &scene.db);
    let namespace = &scene.halted.test.namespace;
    let pods = |pod: Value| create(scene.at("v1", "pods"), pod);
    let pod = |claim: &str| object("v1", "Pod", "guest", pod_spec(&[claim]));
    let generated = json!({"metadata": {"generateName": "guest-"}, "spec": pod_spec(&["none", "data-my-db-0"])});
    let staging = names::staging_object(&web.run, &web.claim.uid);
    let mut rows = vec![
        ("pods", pods(pod("web")), refusal::pod(web)),
        ("pods", pods(generated), refusal::pod(db)),
        ("pods", pods(pod(&staging)), refusal::staging(web, &staging)),
    ];
    for (rule, group, resource, kind, spec) in templates() {
        let sentence = refusal::template(web, &format!("{kind} {namespace}/guest"));
        let ask = make(scene, (group, resource, kind), "guest", spec);
        rows.push((rule, ask, sentence));
    }
    let mut claiming = workload_spec(&[]);
    claiming["serviceName"] = json!("db");
    let template = claim_spec(&web.source_class, json!({}));
    claiming["volumeClaimTemplates"] = json!([{"metadata": {"name": "data-my"}, "spec": template}]);
    rows.push((
        "claim-templates",
        make(
            scene,
            ("apps/v1", "statefulsets", "StatefulSet"),
            "db",
            claiming,
        ),
        refusal::template(db, &format!("StatefulSet {namespace}/db")),
    ));
    rows
}

/// Each kind with a template whose pods would mount the claim: rule, group, resource, kind, spec.
fn templates() -> [(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Value,
); 7] {
    let plain = || workload_spec(&["web"]);
    let mut set = plain();
    set["serviceName"] = json!("guest");
    let controller =
        json!({"replicas": 1, "selector": {"app": "guest"}, "template": plain()["template"]});
    let job = || job_spec(&["web"]);
    let cron = json!({"schedule": "0 0 * * *", "jobTemplate": {"spec": job()}});
    let (apps, batch) = ("apps/v1", "batch/v1");
    [
        ("templates", apps, "deployments", "Deployment", plain()),
        ("templates", apps, "statefulsets", "StatefulSet", set),
        ("templates", apps, "daemonsets", "DaemonSet", plain()),
        ("templates", batch, "cronjobs", "CronJob", cron),
        (
            "templates",
            "v1",
            "replicationcontrollers",
            "ReplicationController",
            controller,
        ),
        ("made-templates", apps, "replicasets", "ReplicaSet", plain()),
        ("made-templates", batch, "jobs", "Job", job()),
    ]
}

fn make(scene: &Scene, of: (&str, &str, &str), name: &str, spec: Value) -> Ask {
    let (group, resource, kind) = of;
    create(scene.at(group, resource), object(group, kind, name, spec))
}
