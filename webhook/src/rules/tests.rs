use serde_json::{Value, json};

use super::*;
use crate::samples::{
    CLAIM, CLAIM_GENERATED_NAME, DEPLOYMENT_LABELLED, DEPLOYMENT_UP, POD_EPHEMERAL_VOLUME,
    POD_GENERATED_NAME, REPLICASET_UP, STATEFULSET_SCALE_DOWN, STATEFULSET_SCALE_UP, changed,
    fenced, request,
};

fn verdict(request: &Request, record: &Record) -> Option<String> {
    refuse(request, [record].into_iter())
}

#[test]
fn a_pod_may_not_mount_a_fenced_claim_and_reads_why() {
    let record = fenced("data", &[]);
    assert_eq!(
        verdict(&request(POD_GENERATED_NAME), &record).unwrap(),
        "pvmigrate is migrating claim fixtures/data to StorageClass b (run abc, Frozen): no pod may \
         mount it until that is done; follow it with: kubectl -n ops get configmap pvmigrate-abc \
         -o jsonpath='{.data.status}'"
    );
}

#[test]
fn what_is_refused_and_what_passes() {
    // The review, the fenced claim, the stopped workload, and whether it is refused.
    let table = [
        (POD_GENERATED_NAME, "data", "Deployment/web", true),
        (POD_GENERATED_NAME, "dat", "Deployment/web", false),
        (POD_GENERATED_NAME, "config", "Deployment/web", false),
        (POD_EPHEMERAL_VOLUME, "scratch-tmp", "Deployment/web", true),
        (POD_EPHEMERAL_VOLUME, "scratch", "Deployment/web", false),
        (POD_EPHEMERAL_VOLUME, "tmp", "Deployment/web", false),
        (CLAIM, "data", "Deployment/web", true),
        (CLAIM, "data-bd69b", "Deployment/web", false),
        (CLAIM_GENERATED_NAME, "data-bd69b", "Deployment/web", true),
        (CLAIM_GENERATED_NAME, "data-", "Deployment/web", false),
        (DEPLOYMENT_UP, "data", "Deployment/web", true),
        (DEPLOYMENT_UP, "data", "StatefulSet/web", false),
        (DEPLOYMENT_UP, "data", "Deployment/web2", false),
        (DEPLOYMENT_LABELLED, "data", "Deployment/web", false),
        (REPLICASET_UP, "data", "ReplicaSet/web-79fffdbf8f", true),
        (REPLICASET_UP, "data", "Deployment/web", false),
        (STATEFULSET_SCALE_UP, "data", "StatefulSet/db", true),
        (STATEFULSET_SCALE_UP, "data", "Deployment/db", false),
        (STATEFULSET_SCALE_DOWN, "data", "StatefulSet/db", false),
    ];
    for (review, claim, workload, refused) in table {
        let request = request(review);
        let verdict = verdict(&request, &fenced(claim, &[workload]));
        let resource = &request.resource.resource;
        assert_eq!(
            verdict.is_some(),
            refused,
            "{resource} with {claim}, {workload}: {verdict:?}"
        );
    }
}

#[test]
fn another_namespace_is_not_meant() {
    for review in [
        POD_GENERATED_NAME,
        POD_EPHEMERAL_VOLUME,
        CLAIM,
        DEPLOYMENT_UP,
        STATEFULSET_SCALE_UP,
    ] {
        let elsewhere = changed(review, |request| request["namespace"] = json!("elsewhere"));
        for claim in ["data", "scratch-tmp"] {
            let record = fenced(claim, &["Deployment/web", "StatefulSet/db"]);
            assert_eq!(verdict(&elsewhere, &record), None);
        }
    }
}

#[test]
fn names_are_read_from_the_objects_where_the_request_has_none() {
    let nameless = |request: &mut Value| request["name"] = json!("");
    let record = fenced("data-bd69b", &["StatefulSet/db"]);
    assert!(verdict(&changed(CLAIM_GENERATED_NAME, nameless), &record).is_some());
    assert!(verdict(&changed(STATEFULSET_SCALE_UP, nameless), &record).is_some());
    let record = fenced("scratch-tmp", &[]);
    assert!(verdict(&changed(POD_EPHEMERAL_VOLUME, nameless), &record).is_some());
}

#[test]
fn the_old_object_names_a_workload_as_well() {
    let request = changed(STATEFULSET_SCALE_UP, |request| {
        request["name"] = json!("");
        request["object"]["metadata"]["name"] = json!("other");
    });
    assert!(verdict(&request, &fenced("data", &["StatefulSet/db"])).is_some());
}

#[test]
fn absent_replicas_are_one_in_a_workload_and_zero_in_a_scale() {
    // Workload or Scale, replicas before and after, and whether it is refused.
    let table = [
        (DEPLOYMENT_UP, Some(0), None, true),
        (DEPLOYMENT_UP, Some(1), None, false),
        (DEPLOYMENT_UP, None, Some(1), false),
        (DEPLOYMENT_UP, None, Some(2), true),
        (STATEFULSET_SCALE_UP, None, Some(1), true),
        (STATEFULSET_SCALE_UP, Some(1), None, false),
        (STATEFULSET_SCALE_UP, Some(1), Some(1), false),
        (STATEFULSET_SCALE_UP, Some(3), Some(2), false),
    ];
    let record = fenced("data", &["Deployment/web", "StatefulSet/db"]);
    for (review, before, after, refused) in table {
        let request = changed(review, |request| {
            request["oldObject"]["spec"]["replicas"] = json!(before);
            request["object"]["spec"]["replicas"] = json!(after);
        });
        let verdict = verdict(&request, &record);
        assert_eq!(
            verdict.is_some(),
            refused,
            "{before:?} → {after:?}: {verdict:?}"
        );
    }
}

#[test]
fn a_scale_up_names_the_workload_and_its_claim() {
    let record = fenced("data", &["Deployment/other", "StatefulSet/db"]);
    let sentence = verdict(&request(STATEFULSET_SCALE_UP), &record).unwrap();
    assert!(
        sentence.starts_with(
            "pvmigrate stops StatefulSet fixtures/db while it migrates claim fixtures/data"
        ),
        "{sentence}"
    );
}

#[test]
fn a_probe_is_refused_like_any_other_pod() {
    let probe = changed(POD_GENERATED_NAME, |request| {
        request["object"]["metadata"]["labels"] = json!({"pvmigrate.io/probe": "webhook"});
        request["dryRun"] = json!(true);
        request["userInfo"]["username"] = json!("system:serviceaccount:ops:pvmigrate");
    });
    assert!(verdict(&probe, &fenced("data", &[])).is_some());
}

#[test]
fn deleting_and_unknown_kinds_pass() {
    let record = fenced("data", &["Deployment/web", "StatefulSet/db"]);
    let delete = |request: &mut Value| {
        request["operation"] = json!("DELETE");
        request["oldObject"] = request["object"].take();
    };
    for review in [POD_GENERATED_NAME, CLAIM, DEPLOYMENT_UP] {
        assert_eq!(verdict(&changed(review, delete), &record), None);
    }
    let foreign = changed(DEPLOYMENT_UP, |request| {
        request["resource"]["group"] = json!("example.org");
    });
    assert_eq!(verdict(&foreign, &record), None);
    let status = changed(POD_GENERATED_NAME, |request| {
        request["subResource"] = json!("status");
    });
    assert_eq!(verdict(&status, &record), None);
}

#[test]
fn nothing_is_refused_without_a_record() {
    assert_eq!(
        refuse(&request(POD_GENERATED_NAME), std::iter::empty()),
        None
    );
}
