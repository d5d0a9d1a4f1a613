use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, ValidatingWebhook};
use pvmigrate_record::phase::Heading;
use pvmigrate_record::record::{ClaimManifest, ClaimRef, Fence, Freeze, VERSION, Volume, Workload};

use super::*;

pub fn setting() -> Setting {
    let owner = |kind: &str| OwnerReference {
        kind: kind.into(),
        name: "pvmigrate".into(),
        ..OwnerReference::default()
    };
    Setting {
        release: Release {
            namespace: "ops".into(),
            name: "pvmigrate".into(),
        },
        run: "abc".into(),
        destination_class: "b".into(),
        job_user: "system:serviceaccount:ops:pvmigrate".into(),
        webhook_service: "pvmigrate-webhook".into(),
        cluster_owner: Some(owner("ClusterRole")),
        namespaced_owner: Some(owner("Role")),
    }
}

pub fn record(namespace: &str, name: &str, freezing: Vec<Freezing>) -> Record {
    let volume = |of: &str| Volume {
        name: format!("pv-{name}-{of}"),
        uid: format!("{name}-{of}"),
        reclaim_policy: "Delete".into(),
    };
    Record {
        version: VERSION,
        release: setting().release,
        run: "abc".into(),
        epoch: 1,
        job: "pvmigrate-x".into(),
        phase: Phase::Retained,
        heading: Heading::Destination,
        fence: Fence {
            on: true,
            generation: 7,
        },
        outcome: None,
        claim: ClaimRef {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        source_class: "a".into(),
        destination_class: "b".into(),
        source: volume("old"),
        destination: Some(volume("new")),
        manifest: ClaimManifest::default(),
        group: format!("{namespace}/{name}"),
        wave: 0,
        freeze: Freeze {
            workloads: freezing,
        },
        consumers: vec![],
        warm: None,
        pass: None,
        stopped: None,
        ready: None,
        failure: None,
        times: BTreeMap::new(),
    }
}

pub fn freezing(api_version: &str, resource: &str, name: &str, method: Method) -> Freezing {
    Freezing {
        workload: Workload {
            api_version: api_version.into(),
            kind: String::new(),
            resource: resource.into(),
            namespace: "x".into(),
            name: name.into(),
            uid: "u".into(),
        },
        method,
        pod: None,
    }
}

/// A claim with a workload of each method, and two others.
fn records() -> Vec<Record> {
    let workloads = vec![
        freezing("apps/v1", "deployments", "web", Method::Scale),
        freezing("apps/v1", "statefulsets", "db", Method::Hold),
        freezing("batch/v1", "cronjobs", "nightly", Method::Suspend),
        freezing("db.example.com/v2", "clusters", "pg", Method::Scale),
        freezing("v1", "pods", "bare", Method::Recreate),
    ];
    vec![
        record("x", "one", workloads),
        record("x", "two", vec![]),
        record("y", "three", vec![]),
    ]
}

fn scope() -> Scope {
    Scope::of(&setting(), records().iter(), b"ca")
}

fn entries(scope: &Scope) -> Vec<ValidatingWebhook> {
    scope.webhook().webhooks.unwrap()
}

/// Each rule as a line: what, and when.
fn lines(entry: &ValidatingWebhook) -> Vec<String> {
    let line = |rule: &RuleWithOperations| {
        let join = |all: &Option<Vec<String>>| all.clone().unwrap().join(",");
        format!(
            "{} {} {}/{} {}",
            entry.name.trim_end_matches(".fence.pvmigrate.io"),
            join(&rule.operations),
            join(&rule.api_groups),
            join(&rule.api_versions),
            join(&rule.resources)
        )
    };
    entry.rules.iter().flatten().map(line).collect()
}

#[test]
fn this_is_all_that_the_webhook_is_asked_about() {
    let lines: Vec<String> = entries(&scope()).iter().flat_map(lines).collect();
    assert_eq!(
        lines,
        [
            "pods CREATE /v1 pods",
            "templates CREATE apps/v1 deployments,statefulsets,daemonsets",
            "templates CREATE batch/v1 cronjobs",
            "templates CREATE /v1 replicationcontrollers",
            "made-templates CREATE apps/v1 replicasets",
            "made-templates CREATE batch/v1 jobs",
            "claim-templates CREATE apps/v1 statefulsets",
            "names CREATE apps/v1 deployments,statefulsets",
            "names CREATE batch/v1 cronjobs",
            "names CREATE db.example.com/v2 clusters",
            "deletions DELETE apps/v1 deployments,statefulsets",
            "deletions DELETE batch/v1 cronjobs",
            "deletions DELETE db.example.com/v2 clusters",
            "marks UPDATE apps/v1 deployments,deployments/status,statefulsets,statefulsets/status",
            "marks UPDATE batch/v1 cronjobs,cronjobs/status",
            "marks UPDATE db.example.com/v2 clusters,clusters/status",
            "starts UPDATE apps/v1 deployments",
            "starts UPDATE batch/v1 cronjobs",
            "starts UPDATE db.example.com/v2 clusters",
            "scales UPDATE apps/v1 deployments/scale",
            "scales UPDATE db.example.com/v2 clusters/scale",
            "claims CREATE /v1 persistentvolumeclaims",
            "claim-changes UPDATE /v1 persistentvolumeclaims,persistentvolumeclaims/status",
            "claim-deletions DELETE /v1 persistentvolumeclaims",
            "snapshots CREATE snapshot.storage.k8s.io/* volumesnapshots",
            "volumes UPDATE /v1 persistentvolumes,persistentvolumes/status",
            "volume-deletions DELETE /v1 persistentvolumes",
            "namespaces DELETE /v1 namespaces",
            "classes DELETE storage.k8s.io/v1 storageclasses",
        ]
    );
}

#[test]
fn nothing_else_is_ever_asked_about() {
    for entry in entries(&scope()) {
        for rule in entry.rules.iter().flatten() {
            let resources = rule.resources.clone().unwrap();
            let names = resources.iter().all(|r| !r.contains('*'));
            // pods/exec, pods/eviction, pods/ephemeralcontainers and the like are subresources:
            // named by no rule, they are not asked about.
            let mut subresources = resources.iter().filter_map(|r| r.split_once('/'));
            let known = subresources
                .all(|(resource, sub)| ["scale", "status"].contains(&sub) && resource != "pods");
            assert!(names && known, "{}: {resources:?}", entry.name);
            let groups = rule.api_groups.clone().unwrap();
            assert!(groups.iter().all(|group| !group.contains('*')));
            let never = ["leases", "nodes", "events", "secrets", "configmaps"];
            assert!(!resources.iter().any(|r| never.contains(&r.as_str())));
            let operations = rule.operations.clone().unwrap();
            let asked = ["CREATE", "UPDATE", "DELETE"];
            assert!(operations.iter().all(|o| asked.contains(&o.as_str())));
            let pods = resources == ["pods"];
            assert!(
                !pods || operations == ["CREATE"],
                "a pod must be able to end"
            );
        }
    }
}

#[test]
fn only_namespaces_with_a_fenced_claim_are_asked_about() {
    for entry in entries(&scope()) {
        let selector = entry.namespace_selector.unwrap();
        if entry.rules.unwrap()[0].scope.as_deref() == Some("Cluster") {
            assert_eq!(selector, LabelSelector::default());
        } else {
            let expressions = selector.match_expressions.unwrap();
            assert_eq!(expressions[0].values.as_ref().unwrap(), &["x", "y"]);
        }
        let conditions = entry.match_conditions.unwrap();
        assert!(conditions.len() > 1, "{} names nothing", entry.name);
    }
}

fn condition(scope: &Scope, entry: &str, name: &str) -> String {
    let entries = entries(scope);
    let entry = entries
        .iter()
        .find(|e| e.name.starts_with(&format!("{entry}.")))
        .unwrap();
    let conditions = entry.match_conditions.as_ref().unwrap();
    let found = conditions.iter().find(|c| c.name == name).unwrap();
    found.expression.clone()
}

#[test]
fn each_question_names_what_is_fenced() {
    let scope = scope();
    let ours = "n in {'x': ['one', 'pvmigrate-abc-uidone', 'pvmigrate-abc-uidtwo', 'two'], 'y': ['pvmigrate-abc-uidthree', 'three']}[?request.namespace].orValue([])";
    for (entry, name) in [
        ("pods", "mounts-or-is-fenced"),
        ("templates", "its-pods-mount-a-fenced-claim"),
        ("claims", "takes-what-is-fenced"),
        ("claim-changes", "is-ours"),
        ("claim-deletions", "is-ours"),
        ("snapshots", "of-a-fenced-claim"),
    ] {
        let when = condition(&scope, entry, name);
        assert!(when.contains(ours), "{entry}: {when}");
    }
    let bare = "in ['/pods/x/bare']";
    assert!(condition(&scope, "pods", "mounts-or-is-fenced").ends_with(bare));
    let volumes = "in ['pv-one-new', 'pv-one-old', 'pv-three-new', 'pv-three-old', 'pv-two-new', 'pv-two-old']";
    assert!(condition(&scope, "volumes", "is-ours").ends_with(volumes));
    assert!(condition(&scope, "volume-deletions", "is-ours").ends_with(volumes));
    assert!(condition(&scope, "claims", "takes-what-is-fenced").ends_with(volumes));
    assert!(condition(&scope, "namespaces", "is-needed").ends_with("in ['x', 'y', 'ops']"));
    assert!(condition(&scope, "classes", "is-a-destination").ends_with("in ['b']"));
    let frozen = "in ['apps/deployments/x/web', 'apps/statefulsets/x/db', 'batch/cronjobs/x/nightly', 'db.example.com/clusters/x/pg']";
    assert!(condition(&scope, "marks", "is-frozen").ends_with(frozen));
    assert!(condition(&scope, "names", "is-frozen").ends_with(frozen));
    assert!(condition(&scope, "deletions", "is-frozen").ends_with(frozen));
}

#[test]
fn what_is_held_may_scale_and_what_is_stopped_may_not() {
    let scope = scope();
    let stopped =
        "in ['apps/deployments/x/web', 'batch/cronjobs/x/nightly', 'db.example.com/clusters/x/pg']";
    assert!(condition(&scope, "starts", "is-stopped").ends_with(stopped));
    let scaled = "in ['apps/deployments/x/web', 'db.example.com/clusters/x/pg']";
    assert!(condition(&scope, "scales", "is-stopped").ends_with(scaled));
}

#[test]
fn of_a_status_only_a_change_of_our_marks_is_asked_about() {
    let scope = scope();
    let asked: Vec<String> = entries(&scope)
        .into_iter()
        .filter(|entry| {
            let mut rules = entry.rules.iter().flatten();
            rules.any(|rule| {
                rule.resources
                    .iter()
                    .flatten()
                    .any(|r| r.ends_with("/status"))
            })
        })
        .map(|entry| entry.name)
        .collect();
    assert_eq!(
        asked,
        ["marks", "claim-changes", "volumes"].map(|name| format!("{name}.fence.pvmigrate.io"))
    );
    // With a status no spec is written, so of these conditions only the marks can be true there.
    for (entry, name) in [
        ("marks", "changes-a-mark"),
        ("claim-changes", "changes-size-or-mark"),
        ("volumes", "changes-what-we-rely-on"),
    ] {
        let when = condition(&scope, entry, name);
        assert!(!when.contains("status"), "{entry}: {when}");
        for mark in names::MARKS {
            for kind in ["labels", "annotations"] {
                let path = format!("metadata.?{kind}[?'{mark}'].orValue('')");
                let changes = format!("object.{path} != oldObject.{path}");
                assert!(when.contains(&changes), "{entry}: {when}");
            }
        }
    }
}

#[test]
fn where_nothing_is_stopped_nothing_is_asked_about_workloads_that_exist() {
    let scope = Scope::of(&setting(), [record("x", "one", vec![])].iter(), b"ca");
    let names: Vec<String> = entries(&scope).into_iter().map(|e| e.name).collect();
    for gone in ["marks", "starts", "scales", "names", "deletions"] {
        assert!(!names.contains(&format!("{gone}.fence.pvmigrate.io")));
    }
}

#[test]
fn names_that_are_too_many_for_an_expression_are_left_to_the_webhook() {
    let name = |number: usize| format!("{number:0>200}");
    let records: Vec<Record> = (0..500).map(|n| record("x", &name(n), vec![])).collect();
    let scope = Scope::of(&setting(), records.iter(), b"ca");
    assert_eq!(condition(&scope, "pods", "mounts-or-is-fenced"), "true");
}

#[test]
fn only_volumes_of_a_migration_are_looked_at() {
    for entry in entries(&scope()) {
        let on_volumes = entry.name.starts_with("volume");
        let expressions = entry.object_selector.unwrap().match_expressions;
        let keys: Vec<String> = expressions.into_iter().flatten().map(|e| e.key).collect();
        let wanted: &[&str] = if on_volumes { &[names::RUN] } else { &[] };
        assert_eq!(keys, wanted, "{}", entry.name);
    }
}

#[test]
fn the_path_carries_the_generation_and_every_rule_fails_closed() {
    for entry in entries(&scope()) {
        let service = entry.client_config.service.unwrap();
        assert_eq!(service.path.unwrap(), "/fence/7");
        assert_eq!(entry.failure_policy.unwrap(), "Fail");
        assert_eq!(entry.match_policy.unwrap(), "Equivalent");
        assert_eq!(entry.side_effects, "None");
        assert_eq!(entry.timeout_seconds, Some(5));
        assert_eq!(entry.client_config.ca_bundle.unwrap().0, b"ca");
    }
}

#[test]
fn the_parameters_name_what_is_fenced_in_each_namespace() {
    let annotations = scope().parameters().metadata.annotations.unwrap();
    assert_eq!(annotations["fence.pvmigrate.io/x"], "one\ntwo");
    assert_eq!(annotations["fence.pvmigrate.io/y"], "three");
    assert!(annotations["volumes.fence.pvmigrate.io/y"].starts_with("pv-one-new\npv-one-old\n"));
    assert_eq!(
        annotations["stopped.fence.pvmigrate.io/x"],
        "apps/deployments/web\ndb.example.com/clusters/pg"
    );
    assert!(!annotations.contains_key("stopped.fence.pvmigrate.io/y"));
}

#[test]
fn the_probe_mark_of_a_layer_is_what_keeps_the_job_from_being_spared_there() {
    let scope = scope();
    let policy = scope.policy().spec.unwrap().match_conditions.unwrap();
    let job =
        "request.userInfo.username != 'system:serviceaccount:ops:pvmigrate' || (object != null && ";
    assert!(policy[0].expression.starts_with(job));
    assert!(policy[0].expression.ends_with("in ['policy', 'any'])"));
    for entry in entries(&scope) {
        let spared = &entry.match_conditions.unwrap()[0].expression;
        assert!(spared.starts_with(job) && spared.ends_with("in ['webhook', 'any'])"));
    }
}

#[test]
fn nothing_owns_the_fence_while_a_claim_is_missing() {
    let owners = |scope: &Scope| {
        let of = |owners: Option<Vec<OwnerReference>>| owners.unwrap_or_default().len();
        [
            of(scope.webhook().metadata.owner_references),
            of(scope.policy().metadata.owner_references),
            of(scope.binding().metadata.owner_references),
            of(scope.parameters().metadata.owner_references),
        ]
    };
    assert_eq!(owners(&scope()), [1; 4]);
    for (phase, missing) in [
        (Phase::Copied, false),
        (Phase::Verified, true),
        (Phase::Reserved, true),
        (Phase::Vacated, true),
        (Phase::Rebound, false),
    ] {
        let mut records = records();
        records[1].phase = phase;
        let scope = Scope::of(&setting(), records.iter(), b"ca");
        let wanted = if missing { [0; 4] } else { [1; 4] };
        assert_eq!(owners(&scope), wanted, "{phase:?}");
    }
}
