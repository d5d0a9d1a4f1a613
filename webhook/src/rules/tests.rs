mod around;
mod claims;
mod pods;
mod volumes;
mod workloads;

use pvmigrate_record::record::Record;
use serde_json::{Value, json};

use super::*;
use crate::samples::{changed, fenced, fences, request};

fn verdict(request: &Request, record: &Record) -> Option<String> {
    judge(request, &fences(std::slice::from_ref(record))).unwrap()
}

/// The verdict about a review as it was sent.
fn about(review: &str, record: &Record) -> Option<String> {
    verdict(&request(review), record)
}

/// What a refusal begins and ends with, where the claim is `fixtures/data`.
#[expect(clippy::unnecessary_wraps, reason = "compared with verdicts")]
fn migrating(rule: &str) -> Option<String> {
    Some(format!(
        "pvmigrate is migrating claim fixtures/data to StorageClass b (run abc, Frozen): {rule} \
         until that is done; {FOLLOW}"
    ))
}

const FOLLOW: &str = "follow it with: kubectl -n ops get configmap pvmigrate-abc \
                      -o jsonpath='{.data.status}'";
const GIVE_UP: &str = "; give it up with: helm -n ops uninstall pvmigrate";

fn migrating_or_given_up(rule: &str) -> Option<String> {
    migrating(rule).map(|sentence| sentence + GIVE_UP)
}

#[expect(clippy::unnecessary_wraps, reason = "compared with verdicts")]
fn stops(workload: &str, rule: &str) -> Option<String> {
    Some(format!(
        "pvmigrate stops {workload} while it migrates claim fixtures/data to StorageClass b \
         (run abc, Frozen): {rule}; {FOLLOW}"
    ))
}

#[test]
fn of_other_namespaces_nothing_is_meant() {
    let workloads = [
        "Deployment/web",
        "StatefulSet/db",
        "Deployment/frozen",
        "StatefulSet/frozen",
        "CronJob/frozen",
        "Job/frozen",
        "Widget/frozen",
    ];
    let record = fenced("data", &workloads);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/samples");
    let mut refused = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        let review = file.trim_end_matches(".json");
        if review.starts_with("volume-") || review == "claim-volume-name" {
            continue;
        }
        refused += usize::from(about(review, &record).is_some());
        let elsewhere = changed(review, |request| {
            request["namespace"] = json!("elsewhere");
            if review == "namespace-delete" {
                request["name"] = json!("elsewhere");
                request["oldObject"]["metadata"]["name"] = json!("elsewhere");
            }
        });
        assert_eq!(verdict(&elsewhere, &record), None, "{review}");
    }
    assert!(refused > 25, "{refused}");
}

#[test]
fn names_are_read_from_the_objects_where_the_request_has_none() {
    let nameless = |request: &mut Value| request["name"] = json!("");
    let record = fenced("data-bd69b", &["StatefulSet/db"]);
    assert!(verdict(&changed("claim-generated-name", nameless), &record).is_some());
    assert!(verdict(&changed("statefulset-scale-up", nameless), &record).is_some());
    let record = fenced("scratch-tmp", &[]);
    assert!(verdict(&changed("pod-ephemeral-volume", nameless), &record).is_some());
    let record = fenced("data", &[]);
    assert!(verdict(&changed("claim-delete", nameless), &record).is_some());
    assert!(verdict(&changed("volume-delete", nameless), &record).is_some());
    assert!(verdict(&changed("namespace-delete", nameless), &record).is_some());
}

#[test]
fn what_nobody_needs_to_be_asked_about_passes() {
    let record = fenced("data", &["Deployment/web", "Pod/web", "StatefulSet/db"]);
    for (review, subresource, operation) in [
        ("pod-generated-name", "status", "UPDATE"),
        ("pod-generated-name", "ephemeralcontainers", "UPDATE"),
        ("pod-generated-name", "eviction", "CREATE"),
        ("pod-generated-name", "exec", "CONNECT"),
        ("pod-generated-name", "binding", "CREATE"),
        ("pod-generated-name", "", "DELETE"),
        ("pod-generated-name", "", "UPDATE"),
        ("claim-unmarked", "finalize", "UPDATE"),
        ("volume-unlabelled", "proxy", "UPDATE"),
        ("namespace-delete", "", "UPDATE"),
        ("namespace-delete", "finalize", "UPDATE"),
        ("storageclass-delete", "", "UPDATE"),
        ("snapshot-create", "", "DELETE"),
    ] {
        let request = changed(review, |request| {
            request["subResource"] = json!(subresource);
            request["operation"] = json!(operation);
        });
        let verdict = verdict(&request, &record);
        assert_eq!(verdict, None, "{review} {subresource} {operation}");
    }
}

#[test]
fn without_a_record_nothing_is_refused() {
    let verdict = judge(&request("pod-generated-name"), &Fences::default());
    assert_eq!(verdict.unwrap(), None);
}

type Change = fn(&mut Value);

#[test]
fn what_cannot_be_read_is_an_error_and_never_passes() {
    let record = fenced(
        "data",
        &["Deployment/frozen", "Deployment/web", "Widget/frozen"],
    );
    let fences = fences(&[record]);
    let table: [(&str, Change, &str); 9] = [
        (
            "pod-generated-name",
            |r| r["object"] = json!(null),
            "the review has no object",
        ),
        (
            "pod-generated-name",
            |r| r["object"]["spec"]["volumes"] = json!("data"),
            "the review's object cannot be read: ",
        ),
        (
            "claim",
            |r| r["object"]["spec"] = json!(7),
            "the review's object cannot be read: ",
        ),
        (
            "claim-resized",
            |r| r["oldObject"] = json!(null),
            "the review has no oldObject",
        ),
        (
            "volume-policy",
            |r| r["oldObject"] = json!(null),
            "the review has no oldObject",
        ),
        (
            "widget-up",
            |r| r["object"]["spec"]["replicas"] = json!("many"),
            "the review's object cannot be read: ",
        ),
        (
            "deployment-up",
            |r| r["oldObject"] = json!(null),
            "the review has no oldObject",
        ),
        (
            "statefulset-delete-collection",
            |r| r["oldObject"] = json!(null),
            "the review has no name",
        ),
        (
            "snapshot-create",
            |r| r["object"]["spec"]["source"] = json!(null),
            "the review's object cannot be read: ",
        ),
    ];
    for (review, change, why) in table {
        let error = judge(&changed(review, change), &fences)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(why), "{review}: {error}");
    }
}
