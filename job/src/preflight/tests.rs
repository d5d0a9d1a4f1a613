use serde_json::{Value, json};

use super::*;
use crate::cluster::scripted::Scripted;
use crate::config::tests::config;
use crate::observe::observe;
use crate::plan::plan;
use crate::plan::tests::{from, observed, owner, workload};

fn refused(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    let refusals = checked(observed, &config, &plan(observed, &config));
    refusals.into_iter().map(|refusal| refusal.why).collect()
}

#[test]
fn an_ordinary_cluster_is_not_refused() {
    assert_eq!(refused(&observed(&["x"])), Vec::<String>::new());
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut observed = observed(&["x", "y"]);
    observed.version = (1, 29);
    observed.classes.remove("b");
    observed.claims[0].metadata.finalizers = Some(vec!["example/keep".into()]);
    assert_eq!(
        refused(&observed),
        [
            "the API server is version 1.29: the fence needs Kubernetes 1.30 or newer",
            "destSC: StorageClass b does not exist; there are a",
            "claim shop/x has the finalizer example/keep: it would not go while its owner wants to keep it",
        ]
    );
}

/// No cluster that tests run on is as old as that.
#[tokio::test]
async fn an_api_server_that_is_too_old_is_refused_by_the_version_that_it_says() {
    let core = [
        "nodes",
        "resourcequotas",
        "persistentvolumeclaims",
        "pods",
        "persistentvolumes",
        "replicationcontrollers",
        "namespaces",
    ];
    let storage = [
        "csidrivers",
        "csinodes",
        "csistoragecapacities",
        "storageclasses",
    ];
    let apps = ["deployments", "statefulsets", "replicasets", "daemonsets"];
    let others = [
        "/apis/batch/v1/jobs",
        "/apis/batch/v1/cronjobs",
        "/apis/autoscaling/v2/horizontalpodautoscalers",
        "/apis/policy/v1/poddisruptionbudgets",
    ];
    let of_core = core.map(|kind| format!("/api/v1/{kind}"));
    let of_storage = storage.map(|kind| format!("/apis/storage.k8s.io/v1/{kind}"));
    let of_apps = apps.map(|kind| format!("/apis/apps/v1/{kind}"));
    let server = Scripted::default();
    for path in of_core.iter().chain(&of_storage).chain(&of_apps) {
        server.put(path, json!({"metadata": {}, "items": []}));
    }
    for path in others {
        server.put(path, json!({"metadata": {}, "items": []}));
    }
    let classes = ["a", "b"].map(|name| json!({"metadata": {"name": name}, "provisioner": "p"}));
    let classes = json!({"metadata": {}, "items": classes});
    server.put("/apis/storage.k8s.io/v1/storageclasses", classes);
    for (minor, expected) in [
        (
            "29+",
            Some("the API server is version 1.29: the fence needs Kubernetes 1.30 or newer"),
        ),
        ("30", None),
    ] {
        server.put(
            "/version",
            json!({"major": "1", "minor": minor, "gitVersion": "", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        );
        let observed = observe(&server.cluster(), &config(&[])).await.unwrap();
        let refused = refused(&observed);
        assert_eq!(refused.first().map(String::as_str), expected, "{minor}");
        assert_eq!(
            refused.len(),
            usize::from(expected.is_some()),
            "{refused:?}"
        );
    }
    assert_eq!(*server.writes.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_source_class_that_is_gone_can_be_let_pass() {
    let mut observed = observed(&["x"]);
    observed.classes.remove("a");
    assert_eq!(
        refused(&observed),
        ["sourceSC: StorageClass a does not exist; there are b"]
    );
    let config = config(&[("PVMIGRATE_SKIP_SOURCE_CHECK", "true")]);
    let plan = plan(&observed, &config);
    assert_eq!(checked(&observed, &config, &plan), Vec::new());
}

#[test]
fn what_touches_others_cannot_be_passed_over() {
    let mut observed = observed(&["x"]);
    observed.version = (1, 29);
    observed.claims[0].metadata.finalizers = Some(vec!["example/keep".into()]);
    let reference = from(json!({"namespace": "shop", "name": "x", "uid": "another"}));
    let volume = observed.volumes.get_mut("pv-x").unwrap();
    volume.spec.as_mut().unwrap().claim_ref = reference;
    assert_eq!(refused(&observed).len(), 3);
    let config = config(&[]);
    let refusals = checked(&observed, &config, &plan(&observed, &config)).into_iter();
    let binding: Vec<String> = refusals.filter(|r| r.is_binding).map(|r| r.why).collect();
    assert_eq!(
        binding,
        ["claim shop/x says it is bound to volume pv-x, which holds another claim"]
    );
}

#[test]
fn a_claim_and_a_volume_that_disagree_are_refused() {
    let mut observed = observed(&["x"]);
    let reference = from(json!({"namespace": "shop", "name": "x", "uid": "another"}));
    observed
        .volumes
        .get_mut("pv-x")
        .unwrap()
        .spec
        .as_mut()
        .unwrap()
        .claim_ref = Some(reference);
    assert_eq!(
        refused(&observed),
        ["claim shop/x says it is bound to volume pv-x, which holds another claim"]
    );
}

#[test]
fn a_workload_that_another_release_has_stopped_is_respected() {
    let mut observed = observed(&["x"]);
    let mut web = workload("Deployment", "web", &["x"]);
    web.frozen = Some(
        json!({"release": {"namespace": "n", "name": "other"}, "run": "r", "epoch": 1, "method": "scale", "replicas": 2, "at": "2026-01-01T00:00:00Z"})
            .to_string(),
    );
    observed.workloads = vec![web];
    assert_eq!(
        refused(&observed),
        ["Deployment shop/web is stopped by release n/other (run r): wait for it"]
    );
}

#[test]
fn an_operators_claim_has_to_be_asked_for() {
    let mut observed = observed(&["x", "y"]);
    let operator = owner("db.example/v1", "Cluster", "pg");
    observed.claims[0].metadata.owner_references = Some(vec![operator]);
    let set = owner("apps/v1", "StatefulSet", "db");
    observed.claims[1].metadata.owner_references = Some(vec![set]);
    assert_eq!(
        refused(&observed),
        [
            "claim shop/x is controlled by Cluster pg: what that does about a missing claim is not known; annotate the claim with pvmigrate.io/migrate: \"true\" to have it migrated all the same"
        ]
    );
    let asked = [("pvmigrate.io/migrate".to_string(), "true".to_string())];
    observed.claims[0].metadata.annotations = Some(asked.into());
    assert_eq!(refused(&observed), Vec::<String>::new());
}

/// Adds a node with these labels.
pub fn node(observed: &mut Observed, name: &str, labels: &Value) {
    let node = from(json!({"metadata": {"name": name, "labels": labels}, "spec": {}}));
    observed.surroundings.nodes.insert(name.into(), node);
}

/// Lets the volume of a claim lie on one node.
pub fn on_node(observed: &mut Observed, claim: &str, node: &str) {
    let volume = observed.volumes.get_mut(&format!("pv-{claim}")).unwrap();
    volume.spec.as_mut().unwrap().node_affinity =
        Some(from(json!({"required": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        ]}})));
    let (key, volume) = (("shop".into(), claim.to_string()), volume.clone());
    let around = &mut observed.surroundings;
    around.bindings.insert(key, format!("pv-{claim}"));
    around.volumes.insert(format!("pv-{claim}"), volume);
}

/// Lets volumes of the destination's class be bound to the node of their first consumer.
pub fn stays_where_it_is_made(observed: &mut Observed) {
    let class = observed.classes.get_mut("b").unwrap();
    class.volume_binding_mode = Some("WaitForFirstConsumer".into());
}

#[test]
fn a_lost_claim_and_a_volume_that_is_not_bound_are_refused() {
    let mut observed = observed(&["x", "y"]);
    observed.volumes.remove("pv-x");
    observed.claims[0].status = Some(from(json!({"phase": "Lost"})));
    observed.volumes.get_mut("pv-y").unwrap().status = Some(from(json!({"phase": "Failed"})));
    assert_eq!(
        refused(&observed),
        [
            "volume pv-y of claim shop/y is Failed: only a Bound volume can be migrated",
            "claim shop/x is Lost: its volume pv-x does not exist any more; delete the claim, or leave it out",
        ]
    );
}

#[test]
fn the_finalizer_of_a_snapshot_is_explained_by_the_snapshot() {
    let mut observed = observed(&["x"]);
    observed.claims[0].metadata.finalizers = Some(vec![in_progress::SNAPSHOT_FINALIZER.into()]);
    let kept = "claim shop/x has the finalizer snapshot.storage.kubernetes.io/pvc-as-source-protection: it would not go while its owner wants to keep it";
    assert_eq!(refused(&observed), [kept]);
    observed.surroundings.snapshots = vec![from(json!({
        "apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot",
        "metadata": {"namespace": "shop", "name": "s"},
        "spec": {"source": {"persistentVolumeClaimName": "x"}}
    }))];
    assert_eq!(
        refused(&observed),
        ["VolumeSnapshot s of claim shop/x is not ready to use: wait until it is, or delete it"]
    );
}

#[test]
fn whatever_names_are_as_long_as_they_may_be_ours_fit() {
    use pvmigrate_record::names;
    use pvmigrate_record::record::Release;
    let release = Release {
        namespace: "n".repeat(63),
        name: "r".repeat(53),
    };
    let run = config(&[]).run();
    let uid = "01234567-89ab-cdef-0123-456789abcdef";
    assert!(names::staging_object(&run, uid).len() + "-probe".len() <= 63);
    assert!(names::trial_object(&run, &"p".repeat(253), 12).len() <= 63);
    for name in [names::fence_object(&release), names::fence_claims(&release)] {
        assert!(name.len() <= 253, "{name}");
    }
}
