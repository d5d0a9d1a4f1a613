use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use pvmigrate_record::record::Workload;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::config::tests::config;
use crate::mover::Placement;
use crate::observe::{Budget, ObservedPod, ObservedWorkload, Scaler};

/// A cluster of one namespace, `shop`, with a bound claim of class `a` for each name.
pub fn observed(claims: &[&str]) -> Observed {
    let mut observed = Observed {
        version: (1, 36),
        ..Observed::default()
    };
    for (name, class) in claims
        .iter()
        .map(|name| (*name, "a"))
        .chain([("other", "c")])
    {
        observed.claims.push(from(json!({
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"),
                "finalizers": ["kubernetes.io/pvc-protection"]},
            "spec": {"storageClassName": class, "volumeName": format!("pv-{name}"), "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": "Bound"}
        })));
        observed.volumes.insert(
            format!("pv-{name}"),
            from(json!({
                "metadata": {"name": format!("pv-{name}"), "uid": format!("uid-pv-{name}")},
                "spec": {"claimRef": {"namespace": "shop", "name": name, "uid": format!("uid-{name}")}}
            })),
        );
    }
    for class in ["a", "b"] {
        observed.classes.insert(
            class.into(),
            from(
                json!({"metadata": {"name": class}, "provisioner": "p", "reclaimPolicy": "Delete"}),
            ),
        );
    }
    observed
}

pub fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn workload(kind: &str, name: &str, claims: &[&str]) -> ObservedWorkload {
    let api_version = match kind {
        "Job" | "CronJob" => "batch/v1",
        "ReplicationController" => "v1",
        _ => "apps/v1",
    };
    ObservedWorkload {
        workload: Workload {
            api_version: api_version.into(),
            kind: kind.into(),
            resource: format!("{}s", kind.to_lowercase()),
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        claims: claims.iter().map(ToString::to_string).collect(),
        replicas: 1,
        has_scale: true,
        pod_labels: [("app".into(), name.into())].into(),
        ..ObservedWorkload::default()
    }
}

/// A set of so many replicas, with a claim template `data`.
fn set(name: &str, replicas: i32) -> ObservedWorkload {
    ObservedWorkload {
        claim_templates: vec!["data".into()],
        replicas,
        ..workload("StatefulSet", name, &[])
    }
}

pub fn owner(api_version: &str, kind: &str, name: &str) -> OwnerReference {
    from(json!({
        "apiVersion": api_version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true
    }))
}

pub fn pod(
    name: &str,
    controller: impl Into<Option<OwnerReference>>,
    claims: &[&str],
) -> ObservedPod {
    ObservedPod {
        workload: Workload {
            api_version: "v1".into(),
            kind: "Pod".into(),
            resource: "pods".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
        },
        node: Some("n1".into()),
        placement: Placement {
            node: Some("n1".into()),
            ..Placement::default()
        },
        claims: claims.iter().map(ToString::to_string).collect(),
        labels: [("app".into(), name.into())].into(),
        controller: controller.into(),
        completed: false,
        wave: None,
    }
}

fn shape(plan: &Plan) -> Vec<(String, Vec<String>, Vec<String>)> {
    plan.groups
        .iter()
        .map(|group| {
            let claims = group.claims.iter().map(ResourceExt::name_any).collect();
            (
                group.name.clone(),
                claims,
                group
                    .freeze
                    .iter()
                    .map(|f| f.workload.name.clone())
                    .collect(),
            )
        })
        .collect()
}

fn group(name: &str, claims: &[&str], workloads: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    (name.into(), owned(claims), owned(workloads))
}

#[test]
fn a_claim_that_nobody_uses_is_a_group_of_its_own() {
    let plan = plan(&observed(&["x", "y"]), &config(&[]));
    assert_eq!(
        shape(&plan),
        [
            group("shop/claim/x", &["x"], &[]),
            group("shop/claim/y", &["y"], &[])
        ]
    );
    assert_eq!(plan.refusals, Vec::<String>::new());
}

#[test]
fn claims_of_other_classes_are_not_touched() {
    let plan = plan(&observed(&[]), &config(&[]));
    assert!(plan.groups.is_empty() && plan.left.is_empty());
}

#[test]
fn workloads_that_share_a_claim_are_one_group_with_all_their_claims() {
    let mut observed = observed(&["shared", "x", "y", "apart"]);
    observed.workloads = vec![
        workload("Deployment", "one", &["shared", "x"]),
        workload("Deployment", "two", &["shared", "y"]),
    ];
    let plan = plan(&observed, &config(&[]));
    assert_eq!(
        shape(&plan),
        [
            group("shop/claim/apart", &["apart"], &[]),
            group(
                "shop/deployment/one",
                &["shared", "x", "y"],
                &["one", "two"]
            ),
        ]
    );
}

/// Each group, with how its workloads are frozen: `shop/web: hold web`.
fn methods(observed: &Observed, config: &Config) -> Vec<String> {
    let plan = plan(observed, config);
    assert_eq!(plan.refusals, Vec::<String>::new());
    let all = plan.groups.iter().map(|group| {
        let freeze = group.freeze.iter().map(|freezing| {
            let what = freezing.pod.as_ref().unwrap_or(&freezing.workload.name);
            format!(" {:?} {what}", freezing.method)
        });
        format!("{}:{}", group.name, freeze.collect::<String>())
    });
    all.collect()
}

#[test]
fn each_pod_of_a_set_is_a_group_and_those_it_has_not_need_no_freeze() {
    let claims = [
        "data-db-0",
        "data-db-1",
        "data-db-7",
        "data-db-x",
        "data-db-01",
        "data-dbx-0",
    ];
    let mut observed = observed(&claims);
    observed.workloads = vec![set("db", 2)];
    let rolling = [
        "shop/statefulset/db/0: Hold db-0",
        "shop/claim/data-db-01:",
        "shop/statefulset/db/1: Hold db-1",
        "shop/statefulset/db/7:",
        "shop/claim/data-db-x:",
        "shop/claim/data-dbx-0:",
    ];
    assert_eq!(methods(&observed, &config(&[])), rolling);
    // At 0 none of its claims has a pod.
    observed.workloads[0].replicas = 0;
    assert_eq!(
        methods(&observed, &config(&[]))[..2],
        ["shop/statefulset/db/0:", "shop/claim/data-db-01:"]
    );
    // Ordinals may begin elsewhere.
    observed.workloads[0].replicas = 1;
    observed.workloads[0].first_ordinal = 7;
    assert_eq!(
        methods(&observed, &config(&[]))[3],
        "shop/statefulset/db/7: Hold db-7"
    );
    // By value it stops as a whole.
    observed.workloads[0] = set("db", 2);
    assert_eq!(
        methods(&observed, &config(&[("PVMIGRATE_FREEZE", "scale")]))[0],
        "shop/statefulset/db: Scale db"
    );
}

#[test]
fn the_claims_of_one_ordinal_move_as_one() {
    let mut observed = observed(&["data-db-0", "data-db-1", "log-db-0", "log-db-1"]);
    let mut db = set("db", 1);
    db.claim_templates.push("log".into());
    observed.workloads = vec![db];
    observed.pods = vec![pod(
        "db-0",
        owner("apps/v1", "StatefulSet", "db"),
        &["data-db-0", "log-db-0"],
    )];
    assert_eq!(
        shape(&plan(&observed, &config(&[]))),
        [
            group("shop/statefulset/db/0", &["data-db-0", "log-db-0"], &["db"]),
            group("shop/statefulset/db/1", &["data-db-1", "log-db-1"], &[]),
        ]
    );
}

#[test]
fn a_set_that_shares_claims_stops_as_a_whole() {
    let base = || {
        let mut observed = observed(&["data-db-0", "data-db-1", "shared"]);
        observed.workloads = vec![set("db", 2)];
        observed
    };
    let mut templates = base();
    templates.workloads[0].claims.insert("shared".into());
    let mut reader = base();
    reader
        .workloads
        .push(workload("Deployment", "reader", &["data-db-1"]));
    let mut steered = base();
    steered.workloads[0].claims.insert("shared".into());
    steered.workloads[0].tracked_by = Some("Flux");
    for (observed, expected) in [
        (templates, vec!["shop/statefulset/db: Scale db"]),
        (
            reader,
            vec![
                "shop/deployment/reader: Scale reader Scale db",
                "shop/claim/shared:",
            ],
        ),
        (steered, vec!["shop/statefulset/db: Hold db"]),
    ] {
        assert_eq!(methods(&observed, &config(&[])), expected);
    }
}

#[test]
fn a_claim_that_is_not_moved_shares_nothing() {
    let mut observed = observed(&["data-db-0"]);
    observed.workloads = vec![set("db", 1)];
    observed.workloads[0].claims.insert("other".into());
    assert_eq!(
        methods(&observed, &config(&[])),
        ["shop/statefulset/db/0: Hold db-0"]
    );
}

#[test]
fn a_pod_leads_to_what_is_above_it_as_far_as_templates_go() {
    for (above, below, expected) in [
        (
            ("apps/v1", "Deployment"),
            ("apps/v1", "ReplicaSet"),
            "shop/deployment/top: Scale top",
        ),
        (
            ("batch/v1", "CronJob"),
            ("batch/v1", "Job"),
            "shop/cronjob/top: Suspend top",
        ),
        // An operator's resource is not known: what it makes is held.
        (
            ("db.example/v1", "Postgres"),
            ("apps/v1", "StatefulSet"),
            "shop/statefulset/below: Hold below",
        ),
        (
            ("db.example/v1", "Postgres"),
            ("apps/v1", "Deployment"),
            "shop/deployment/below: Hold below",
        ),
        (
            ("flow.example/v1", "Workflow"),
            ("batch/v1", "Job"),
            "shop/job/below: Suspend below",
        ),
    ] {
        let mut observed = observed(&["x"]);
        observed.workloads = vec![ObservedWorkload {
            controller: Some(owner(above.0, above.1, "top")),
            ..workload(below.1, "below", &["x"])
        }];
        if above.0 == below.0 {
            observed.workloads.push(workload(above.1, "top", &[]));
        }
        observed.pods = vec![pod("p", owner(below.0, below.1, "below"), &["x"])];
        assert_eq!(methods(&observed, &config(&[])), [expected]);
        // A template that names the claim is enough, but not one that a Deployment has no longer.
        observed.pods.clear();
        let expected = if below.1 == "ReplicaSet" {
            "shop/claim/x:"
        } else {
            expected
        };
        assert_eq!(methods(&observed, &config(&[])), [expected]);
    }
}

#[test]
fn each_kind_is_frozen_as_suits_it() {
    for (kind, auto, scale, hold) in [
        ("Deployment", "Scale", "Scale", "Hold"),
        ("StatefulSet", "Scale", "Scale", "Hold"),
        ("ReplicaSet", "Scale", "Scale", "Hold"),
        ("ReplicationController", "Scale", "Scale", "Hold"),
        ("DaemonSet", "Hold", "Hold", "Hold"),
        ("CronJob", "Suspend", "Suspend", "Hold"),
        ("Job", "Suspend", "Suspend", "Suspend"),
    ] {
        let mut observed = observed(&["x"]);
        observed.workloads = vec![workload(kind, "w", &["x"])];
        for (value, expected) in [("auto", auto), ("scale", scale), ("hold", hold)] {
            let config = config(&[("PVMIGRATE_FREEZE", value)]);
            let expected = format!("shop/{}/w: {expected} w", kind.to_lowercase());
            assert_eq!(methods(&observed, &config), [expected], "{kind} by {value}");
        }
    }
}

#[test]
fn an_annotation_wins_over_the_value_and_the_topmost_over_those_below() {
    for (kind, above, below, expected) in [
        ("Deployment", Some("hold"), None, "Hold"),
        ("Deployment", None, Some("hold"), "Hold"),
        ("Deployment", Some("hold"), Some("scale"), "Hold"),
        ("Deployment", Some("auto"), None, "Scale"),
        ("CronJob", Some("hold"), None, "Hold"),
        ("CronJob", Some("scale"), None, "Suspend"),
        ("Job", Some("hold"), None, "Hold"),
        ("DaemonSet", Some("scale"), None, "Hold"),
    ] {
        let mut observed = observed(&["x"]);
        observed.workloads = vec![
            ObservedWorkload {
                freeze: above.map(Into::into),
                ..workload(kind, "w", &["x"])
            },
            ObservedWorkload {
                freeze: below.map(Into::into),
                controller: Some(owner("apps/v1", kind, "w")),
                ..workload("ReplicaSet", "w-1", &["x"])
            },
        ];
        observed.pods = vec![pod("p", owner("apps/v1", "ReplicaSet", "w-1"), &["x"])];
        if kind != "Deployment" {
            observed.workloads.pop();
            observed.pods.clear();
        }
        let config = config(&[("PVMIGRATE_FREEZE", "scale")]);
        let expected = format!("shop/{}/w: {expected} w", kind.to_lowercase());
        assert_eq!(
            methods(&observed, &config),
            [expected],
            "{above:?} {below:?}"
        );
    }
}

#[test]
fn an_annotation_that_is_no_method_is_refused() {
    let mut observed = observed(&["x", "data-db-0"]);
    observed.workloads = vec![workload("Deployment", "web", &["x"]), set("db", 1)];
    for workload in &mut observed.workloads {
        workload.freeze = Some("stop".into());
    }
    assert_eq!(
        plan(&observed, &config(&[])).refusals,
        ["StatefulSet shop/db", "Deployment shop/web"].map(|workload| format!(
            "{workload} has the annotation pvmigrate.io/freeze with value \"stop\": it can be auto, scale or hold"
        ))
    );
}

#[test]
fn what_something_else_steers_is_held_and_the_log_says_what() {
    let scaler = |name: &str, group: &str, kind: &str| Scaler {
        name: format!("{name} shop/s"),
        namespace: "shop".into(),
        target: (group.into(), kind.into(), "w".into()),
    };
    let base = |kind: &str| {
        let mut observed = observed(&["x"]);
        observed.workloads = vec![workload(kind, "w", &["x"])];
        observed
    };
    let mut autoscaled = base("Deployment");
    autoscaled.scalers = vec![scaler("HorizontalPodAutoscaler", "apps", "Deployment")];
    let mut keda = base("StatefulSet");
    keda.scalers = vec![scaler("ScaledObject", "apps", "StatefulSet")];
    let mut other = base("Deployment");
    other.scalers = vec![scaler("HorizontalPodAutoscaler", "example", "Deployment")];
    let mut argo = base("ReplicationController");
    argo.workloads[0].tracked_by = Some("Argo CD");
    let mut flux = base("CronJob");
    flux.workloads[0].tracked_by = Some("Flux");
    let mut operator = base("ReplicaSet");
    operator.workloads[0].controller = Some(owner("argoproj.io/v1alpha1", "Rollout", "web"));
    for (observed, why) in [
        (
            autoscaled,
            "Deployment shop/w is held: HorizontalPodAutoscaler shop/s scales it",
        ),
        (
            keda,
            "StatefulSet shop/w is held: ScaledObject shop/s scales it",
        ),
        (
            other,
            "Deployment shop/w is scaled to 0: nothing else steers it",
        ),
        (
            argo,
            "ReplicationController shop/w is held: Argo CD tracks it",
        ),
        (flux, "CronJob shop/w is held: Flux tracks it"),
        (
            operator,
            "ReplicaSet shop/w is held: Rollout web controls it",
        ),
    ] {
        assert_eq!(plan(&observed, &config(&[])).groups[0].why, [why]);
    }
}

#[test]
fn a_value_for_all_does_not_make_an_operators_set_scaled() {
    let mut observed = observed(&["data-db-0"]);
    observed.workloads = vec![ObservedWorkload {
        controller: Some(owner("db.example/v1", "Postgres", "main")),
        ..set("db", 1)
    }];
    let scale = config(&[("PVMIGRATE_FREEZE", "scale")]);
    assert_eq!(
        methods(&observed, &scale),
        ["shop/statefulset/db/0: Hold db-0"]
    );
    observed.workloads[0].freeze = Some("scale".into());
    assert_eq!(
        methods(&observed, &scale),
        ["shop/statefulset/db: Scale db"]
    );
}

#[test]
fn jobs_are_waited_for_or_suspended_also_where_something_steers_them() {
    let mut observed = observed(&["x"]);
    observed.workloads = vec![workload("Job", "w", &["x"])];
    let why = |observed: &Observed, value| {
        plan(observed, &config(&[("PVMIGRATE_JOBS", value)])).groups[0].why[0].clone()
    };
    assert_eq!(
        why(&observed, "wait"),
        "Job shop/w starts no more pods: it is waited for"
    );
    assert_eq!(
        why(&observed, "suspend"),
        "Job shop/w starts no more pods: the value jobs says so"
    );
    observed.workloads[0].controller = Some(owner("flow.example/v1", "Workflow", "f"));
    assert_eq!(
        why(&observed, "wait"),
        "Job shop/w starts no more pods: it is waited for"
    );
    assert_eq!(
        why(&observed, "suspend"),
        "Job shop/w starts no more pods: the value jobs says so"
    );
    observed.workloads = vec![workload("CronJob", "w", &["x"])];
    assert_eq!(
        why(&observed, "wait"),
        "CronJob shop/w starts no more pods: its next Jobs can wait, and those that run are waited for"
    );
    assert_eq!(
        why(&observed, "suspend"),
        "CronJob shop/w starts no more pods: its next Jobs can wait, and those that run are suspended"
    );
}

#[test]
fn a_custom_resource_that_controls_pods_itself_is_held_or_scaled_if_it_says_so() {
    let custom = |has_scale: bool, freeze: Option<&str>| {
        let mut observed = observed(&["x"]);
        let mut cluster = workload("Cluster", "pg", &[]);
        cluster.workload.api_version = "db.example/v1".into();
        cluster.has_scale = has_scale;
        cluster.freeze = freeze.map(Into::into);
        observed.workloads = vec![cluster];
        observed.pods = vec![pod("pg-1", owner("db.example/v1", "Cluster", "pg"), &["x"])];
        observed
    };
    for (has_scale, freeze, expected) in [
        (false, None, "Hold"),
        (true, None, "Hold"),
        (true, Some("hold"), "Hold"),
        (true, Some("scale"), "Scale"),
    ] {
        let observed = custom(has_scale, freeze);
        for value in ["auto", "scale", "hold"] {
            let config = config(&[("PVMIGRATE_FREEZE", value)]);
            let expected = format!("shop/cluster.db.example/pg: {expected} pg");
            assert_eq!(methods(&observed, &config), [expected]);
        }
    }
    assert_eq!(
        plan(&custom(false, Some("scale")), &config(&[])).refusals,
        [
            "Cluster shop/pg has the annotation pvmigrate.io/freeze with value scale, and its kind has no replicas to scale: remove it, or set it to hold"
        ]
    );
}

#[test]
fn a_bare_pod_is_refused_by_name_or_made_again_where_that_is_allowed() {
    let mut observed = observed(&["x"]);
    observed.pods = vec![pod("lonely", None, &["x"])];
    assert_eq!(
        plan(&observed, &config(&[])).refusals,
        [
            "pod shop/lonely mounts claim x and has no owner: nothing would make it again; set barePods to recreate, delete it, or leave its namespace out"
        ]
    );
    let recreate = config(&[("PVMIGRATE_BARE_PODS", "recreate")]);
    assert_eq!(
        methods(&observed, &recreate),
        ["shop/pod/lonely: Recreate lonely"]
    );
}

#[test]
fn a_pod_whose_owner_cannot_be_found_is_refused_by_name() {
    let mut observed = observed(&["x"]);
    observed.pods = vec![pod("p", owner("gone.example/v1", "Thing", "t"), &["x"])];
    assert_eq!(
        plan(&observed, &config(&[])).refusals,
        [
            "pod shop/p mounts claim x and is controlled by Thing t, which is gone or cannot be looked at: nobody can say what would make the pod again; delete it, or leave its namespace out"
        ]
    );
}

#[test]
fn completed_pods_are_frozen_by_nobody() {
    let mut observed = observed(&["x", "y"]);
    // One whose Job is complete, which is not observed, and one without an owner.
    observed.pods = vec![
        pod("done", owner("batch/v1", "Job", "once"), &["x"]),
        pod("failed", None, &["y"]),
    ];
    for pod in &mut observed.pods {
        pod.completed = true;
    }
    assert_eq!(
        methods(&observed, &config(&[])),
        ["shop/claim/x:", "shop/claim/y:"]
    );
}

#[test]
fn waves_are_whole_numbers_on_claims_and_workloads_and_a_group_goes_in_its_lowest() {
    let base = |on_claim: Option<&str>, on_workload: Option<&str>| {
        let mut observed = observed(&["x", "y"]);
        let mut web = workload("Deployment", "web", &["x", "y"]);
        web.wave = on_workload.map(Into::into);
        observed.workloads = vec![web];
        if let Some(wave) = on_claim {
            observed.claims[0].metadata.annotations =
                Some([("pvmigrate.io/wave".into(), wave.into())].into());
        }
        observed
    };
    for (on_claim, on_workload, wave) in [
        (None, None, 0),
        (Some("3"), None, 3),
        (None, Some("-2"), -2),
        (Some("3"), Some("5"), 3),
        (Some("9"), Some("5"), 5),
    ] {
        let plan = plan(&base(on_claim, on_workload), &config(&[]));
        assert_eq!((plan.groups[0].wave, plan.refusals), (wave, vec![]));
    }
    assert_eq!(
        plan(&base(Some("first"), Some("1.5")), &config(&[])).refusals,
        [
            "claim shop/x has the annotation pvmigrate.io/wave with value \"first\": it has to be a whole number, the lower the earlier",
            "Deployment shop/web has the annotation pvmigrate.io/wave with value \"1.5\": it has to be a whole number, the lower the earlier",
        ]
    );
}

#[test]
fn a_budget_that_never_allows_an_eviction_stands_against_a_rolling_set() {
    let mut observed = observed(&["data-db-0", "data-db-1", "x"]);
    observed.workloads = vec![set("db", 2), workload("Deployment", "web", &["x"])];
    let budget = |app: &str, spec: Value| {
        let mut object = json!({"metadata": {"namespace": "shop", "name": app}, "spec": spec});
        object["spec"]["selector"] = json!({"matchLabels": {"app": app}});
        Budget::of(&from(object)).unwrap()
    };
    observed.budgets = vec![
        budget("db", json!({"minAvailable": 2})),
        budget("web", json!({"maxUnavailable": 0})),
    ];
    let refused = plan(&observed, &config(&[]));
    assert_eq!(
        refused.refusals,
        [
            "PodDisruptionBudget shop/db never allows an eviction (minAvailable is 2, of 2 pods), and StatefulSet shop/db is moved pod by pod: loosen it, set hold.ignoreBudgets, or annotate the set with pvmigrate.io/freeze: scale"
        ]
    );
    let overridden = |plan: &Plan| -> Vec<String> {
        plan.groups
            .iter()
            .flat_map(|group| group.overridden.clone())
            .collect()
    };
    assert_eq!(overridden(&refused), ["PodDisruptionBudget shop/web"]);
    let ignored = plan(
        &observed,
        &config(&[("PVMIGRATE_HOLD_IGNORE_BUDGETS", "true")]),
    );
    assert_eq!(ignored.refusals, Vec::<String>::new());
    assert_eq!(
        overridden(&ignored),
        ["db", "db", "web"].map(|name| format!("PodDisruptionBudget shop/{name}"))
    );
    observed.budgets[0] = budget("db", json!({"minAvailable": 1}));
    assert_eq!(plan(&observed, &config(&[])).refusals, Vec::<String>::new());
}

#[test]
fn what_cannot_be_moved_is_left_and_named() {
    let mut observed = observed(&["x", "y"]);
    observed.claims[0].spec.as_mut().unwrap().volume_name = None;
    observed.claims[1].metadata.owner_references = Some(vec![from(json!(
        {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}
    ))]);
    let plan = plan(&observed, &config(&[]));
    assert!(plan.groups.is_empty());
    assert!(plan.left[0].1.starts_with("it is not bound to a volume"));
    assert_eq!(
        plan.left[1].1,
        "it belongs to pod p (a generic ephemeral volume) and goes with it"
    );
}

#[test]
fn our_own_movers_are_no_consumers() {
    let mut observed = observed(&["x"]);
    let mut mover = pod("pvmigrate-r1-abc", None, &["x"]);
    mover.labels = [("pvmigrate.io/role", "mover"), ("pvmigrate.io/run", "r1")]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    observed.pods = vec![mover.clone()];
    assert_eq!(plan(&observed, &config(&[])).refusals, Vec::<String>::new());
    // A mark alone makes nobody ours: the name has to carry the run.
    mover.workload.name = "disguised".into();
    observed.pods = vec![mover];
    assert_eq!(plan(&observed, &config(&[])).refusals.len(), 1);
}
