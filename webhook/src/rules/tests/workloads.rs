use pvmigrate_record::record::Method;

use super::*;

#[test]
fn no_workload_is_created_whose_pods_would_mount_a_fenced_claim() {
    for (review, workload) in [
        ("deployment-create", "Deployment fixtures/web"),
        ("daemonset-create", "DaemonSet fixtures/web"),
        ("replicaset-create", "ReplicaSet fixtures/web-1"),
        (
            "replicationcontroller-create",
            "ReplicationController fixtures/web",
        ),
        ("job-create", "Job fixtures/web"),
        ("cronjob-create", "CronJob fixtures/web"),
    ] {
        let rule = format!("{workload}, whose pods would mount it, may not be created");
        assert_eq!(about(review, &fenced("data", &[])), migrating(&rule));
        assert_eq!(about(review, &fenced("other", &[])), None, "{review}");
    }
}

#[test]
fn a_template_of_claims_mounts_those_of_every_ordinal() {
    for (claim, refused) in [
        ("data-db-0", true),
        ("data-db-12", true),
        ("data-db-", false),
        ("data-db-x", false),
        ("data-db", false),
        ("data-db2-0", false),
        ("data", false),
    ] {
        let verdict = about("statefulset-create", &fenced(claim, &[]));
        assert_eq!(verdict.is_some(), refused, "{claim}: {verdict:?}");
    }
}

#[test]
fn what_a_controller_makes_for_its_own_owner_passes() {
    let record = fenced("data", &[]);
    for review in ["replicaset-create-owned", "job-create-owned"] {
        assert_eq!(about(review, &record), None, "{review}");
    }
    // An owner that is not its controller makes nothing.
    let owned = changed("replicaset-create-owned", |request| {
        let owner = &mut request["object"]["metadata"]["ownerReferences"][0];
        owner["controller"] = json!(false);
    });
    assert!(verdict(&owned, &record).is_some());
    let operated = changed("deployment-create", |request| {
        request["object"]["metadata"]["ownerReferences"] = json!([{"apiVersion": "example.org/v1", "kind": "Widget", "name": "w", "uid": "1", "controller": true}]);
    });
    assert!(verdict(&operated, &record).is_some());
}

#[test]
fn nothing_is_created_under_the_name_of_a_stopped_workload() {
    for (review, workload) in [
        ("deployment-create", "Deployment/web"),
        ("statefulset-create", "StatefulSet/db"),
        ("cronjob-create", "CronJob/web"),
        ("job-create-owned", "Job/web"),
    ] {
        let mut record = fenced("data", &[workload]);
        let kind = workload.split_once('/').unwrap().0;
        let named = workload.replace('/', " fixtures/");
        let rule = format!("no other {kind} may take its name until that is done");
        for method in [Method::Scale, Method::Hold] {
            record.freeze.workloads[0].method = method;
            assert_eq!(about(review, &record), stops(&named, &rule));
        }
    }
}

#[test]
fn a_stopped_workload_gets_no_more_replicas() {
    let rule = "it will be scaled back up by itself when that is done";
    for (review, workload, refused) in [
        ("deployment-up", "Deployment/web", true),
        ("deployment-up", "StatefulSet/web", false),
        ("deployment-up", "Deployment/web2", false),
        ("deployment-labelled", "Deployment/web", false),
        ("deployment-image", "Deployment/frozen", false),
        ("replicaset-up", "ReplicaSet/web-79fffdbf8f", true),
        ("replicaset-up", "Deployment/web", false),
        ("statefulset-scale-up", "StatefulSet/db", true),
        ("statefulset-scale-up", "Deployment/db", false),
        ("statefulset-scale-down", "StatefulSet/db", false),
        ("widget-up", "Widget/frozen", true),
        ("widget-up", "Widget/other", false),
        ("widget-labelled", "Widget/frozen", false),
        ("widget-scale-up", "Widget/frozen", true),
        ("widget-scale-up", "Deployment/frozen", false),
        ("job-parallelism", "Job/frozen", true),
        ("job-parallelism", "CronJob/frozen", false),
    ] {
        let verdict = about(review, &fenced("data", &["Deployment/first", workload]));
        let expected = stops(&workload.replace('/', " fixtures/"), rule);
        assert_eq!(
            verdict,
            expected.filter(|_| refused),
            "{review}, {workload}"
        );
    }
}

#[test]
fn absent_replicas_are_one_in_a_workload_and_zero_in_a_scale() {
    // Workload or Scale, replicas before and after, and whether it is refused.
    let table = [
        ("deployment-up", Some(0), None, true),
        ("deployment-up", Some(1), None, false),
        ("deployment-up", None, Some(1), false),
        ("deployment-up", None, Some(2), true),
        ("statefulset-scale-up", None, Some(1), true),
        ("statefulset-scale-up", Some(1), None, false),
        ("statefulset-scale-up", Some(1), Some(1), false),
        ("statefulset-scale-up", Some(3), Some(2), false),
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
fn a_stopped_workload_is_not_resumed() {
    let rule = "it will be resumed by itself when that is done";
    for (review, workload) in [
        ("cronjob-resumed", "CronJob/frozen"),
        ("job-resumed", "Job/frozen"),
    ] {
        let expected = stops(&workload.replace('/', " fixtures/"), rule);
        assert_eq!(about(review, &fenced("data", &[workload])), expected);
    }
    // (before, after, refused)
    for (before, after, refused) in [
        (json!(true), json!(null), true),
        (json!(true), json!(true), false),
        (json!(false), json!(true), false),
        (json!(null), json!(false), false),
    ] {
        let request = changed("cronjob-resumed", |request| {
            request["oldObject"]["spec"]["suspend"] = before.clone();
            request["object"]["spec"]["suspend"] = after.clone();
        });
        let verdict = verdict(&request, &fenced("data", &["CronJob/frozen"]));
        assert_eq!(verdict.is_some(), refused, "{before} → {after}");
    }
}

#[test]
fn a_held_workload_may_have_as_many_replicas_as_it_likes() {
    for (review, workload) in [
        ("deployment-up", "Deployment/web"),
        ("statefulset-scale-up", "StatefulSet/db"),
        ("widget-up", "Widget/frozen"),
        ("widget-scale-up", "Widget/frozen"),
    ] {
        let mut record = fenced("data", &[workload]);
        record.freeze.workloads[0].method = Method::Hold;
        assert_eq!(about(review, &record), None, "{review}");
    }
    // Nor is its spec looked at: it may look as it likes.
    let mut record = fenced("data", &["Widget/frozen"]);
    record.freeze.workloads[0].method = Method::Hold;
    let strange = changed("widget-up", |request| {
        request["object"]["spec"] = json!({"replicas": {"min": 1}, "suspend": "no"});
    });
    assert_eq!(verdict(&strange, &record), None);
}

#[test]
fn a_stopped_workload_keeps_its_marks() {
    let rule = "its annotation pvmigrate.io/frozen may not change until that is done";
    let expected = stops("Deployment fixtures/frozen", rule);
    for review in ["deployment-unmarked", "deployment-status-unmarked"] {
        let mut record = fenced("data", &["Deployment/frozen"]);
        for method in [Method::Scale, Method::Hold] {
            record.freeze.workloads[0].method = method;
            assert_eq!(about(review, &record), expected, "{review}, {method:?}");
        }
        assert_eq!(about(review, &fenced("data", &[])), None, "{review}");
    }
    // What a user says about the freeze, and what wakes its controller, are no marks.
    let told = changed("deployment-image", |request| {
        let annotations = &mut request["object"]["metadata"]["annotations"];
        annotations["pvmigrate.io/freeze"] = json!("hold");
        annotations["pvmigrate.io/woken"] = json!("now");
    });
    assert_eq!(
        verdict(&told, &fenced("data", &["Deployment/frozen"])),
        None
    );
}

#[test]
fn a_stopped_workload_is_not_deleted() {
    for (review, workload) in [
        ("deployment-delete", "Deployment/frozen"),
        ("statefulset-delete-collection", "StatefulSet/frozen"),
        ("widget-delete", "Widget/frozen"),
    ] {
        let mut record = fenced("data", &[workload]);
        let named = workload.replace('/', " fixtures/");
        let sentence = stops(&named, "it may not be deleted until that is done");
        for method in [Method::Scale, Method::Hold] {
            record.freeze.workloads[0].method = method;
            assert_eq!(
                about(review, &record),
                sentence.clone().map(|s| s + GIVE_UP)
            );
        }
        assert_eq!(about(review, &fenced("data", &["Deployment/other"])), None);
    }
}
