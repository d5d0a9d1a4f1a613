//! What the fence has nothing against, and is not even asked about: it passes with every webhook
//! pod dead too.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::Api;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use pvmigrate_e2e::{Test, run_test, wait_for};
use pvmigrate_record::record::Method;
use pvmigrate_record::{names, refusal};
use serde_json::{Value, json};

use super::halted::Halted;
use super::no_webhook;
use super::requests::{
    Ask, at, claim_spec, create, delete, job_spec, object, patch, pod_spec, workload_spec,
};

#[tokio::test]
async fn what_is_not_meant_passes_whether_the_webhook_answers_or_not() {
    run_test("fence-passing", async |test| {
        let halted = Halted::start(test, "my-db", "hold").await?;
        let cases = cases(&halted).await?;
        let admin = test.cluster.client.clone();
        for (ask, by_user) in &cases {
            let client = if *by_user { &halted.user } else { &admin };
            ask.passes(client).await.context("with a webhook")?;
        }
        a_held_set_stays(&halted).await?;
        a_refused_controller_says_why(&halted).await?;
        test.exec(&a_pod(test).await?, "true")
            .await
            .context("exec")?;
        no_webhook(test, &halted.of.namespace).await?;
        for (ask, by_user) in &cases {
            let client = if *by_user { &halted.user } else { &admin };
            ask.passes(client).await.context("without a webhook")?;
        }
        test.exec(&a_pod(test).await?, "true")
            .await
            .context("exec without a webhook")?;
        // The Job that goes on has to prove the fence again, and gives up after a while.
        let webhook = "deployment/pvmigrate-webhook";
        for arguments in [
            ["scale", webhook, "--replicas=1", "--timeout=90s"],
            ["rollout", "status", webhook, "--timeout=90s"],
        ] {
            let all = [&arguments[..], &["-n", &halted.of.namespace]].concat();
            test.cluster.kubectl(&all).await?.success()?;
        }
        halted.finish().await
    })
    .await;
}

/// Each with whether a user may ask it.
#[allow(clippy::too_many_lines)] // A table.
async fn cases(halted: &Halted<'_>) -> Result<Vec<(Ask, bool)>> {
    let test = halted.test;
    let records = halted.records().await?;
    let here = |group: &str, resource: &str| at(test, group, resource);
    let label = || json!({"metadata": {"labels": {"note": "edited"}, "annotations": {"example.org/note": "edited"}}});
    let finalizer = || json!({"metadata": {"finalizers": ["example.org/kept"]}});
    let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other:1"}]);
    let down = || json!({"spec": {"replicas": 0}});
    let scaler = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5,
    });
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": a_pod(test).await?}});
    let pod = here("v1", &format!("pods/{}", a_pod(test).await?));
    let debugging = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "none"}]}});
    let mut owned = object("apps/v1", "ReplicaSet", "guest", workload_spec(&["web"]));
    owned["metadata"]["ownerReferences"] = controller("Deployment", "apps/v1", "web", "1");
    let mut owned_job = object("batch/v1", "Job", "guest", job_spec(&["web"]));
    owned_job["metadata"]["ownerReferences"] = controller("CronJob", "batch/v1", "nightly", "1");
    let free = claim_spec(&test.cluster.classes[0], json!({}));
    let mut cases = vec![
        (
            create(
                here("v1", "pods"),
                object("v1", "Pod", "guest", pod_spec(&[])),
            ),
            true,
        ),
        (
            create(
                here("v1", "pods"),
                object("v1", "Pod", "guest", pod_spec(&["other"])),
            ),
            true,
        ),
        (
            create(
                here("apps/v1", "deployments"),
                object("apps/v1", "Deployment", "guest", workload_spec(&["other"])),
            ),
            true,
        ),
        (create(here("apps/v1", "replicasets"), owned), true),
        (create(here("batch/v1", "jobs"), owned_job), true),
        (
            create(
                here("v1", "persistentvolumeclaims"),
                object("v1", "PersistentVolumeClaim", "guest", free),
            ),
            true,
        ),
        (
            create(
                here("autoscaling/v2", "horizontalpodautoscalers"),
                object("autoscaling/v2", "HorizontalPodAutoscaler", "web", scaler),
            ),
            true,
        ),
        (create(format!("{pod}/eviction"), eviction), true),
        (
            patch(format!("{pod}/ephemeralcontainers"), debugging),
            false,
        ),
        (patch(pod.clone(), label()), true),
        (delete(pod), true),
        (
            patch(here("v1", "persistentvolumeclaims/web"), label()),
            true,
        ),
        (
            patch(here("v1", "persistentvolumeclaims/web"), finalizer()),
            true,
        ),
        (
            patch(
                here("v1", "persistentvolumeclaims/web/status"),
                json!({"status": {"phase": "Lost"}}),
            ),
            false,
        ),
        (
            patch(format!("/api/v1/namespaces/{}", test.namespace), label()),
            false,
        ),
        (
            patch(
                format!(
                    "/apis/storage.k8s.io/v1/storageclasses/{}",
                    test.cluster.classes[1]
                ),
                label(),
            ),
            false,
        ),
        (
            delete(format!(
                "/apis/storage.k8s.io/v1/storageclasses/{}",
                test.cluster.classes[0]
            )),
            false,
        ),
    ];
    for (workload, status) in [
        ("deployments/web", "replicas"),
        ("statefulsets/my-db", "replicas"),
    ] {
        let path = here("apps/v1", workload);
        cases.extend([
            (patch(path.clone(), down()), true),
            (patch(format!("{path}/scale"), down()), true),
            (patch(path.clone(), label()), true),
            (patch(path.clone(), image.clone()), true),
            (
                patch(format!("{path}/status"), json!({"status": {status: 3}})),
                false,
            ),
        ]);
    }
    // It is held: its pods are refused, however many it is to have.
    let held = here("apps/v1", "statefulsets/my-db");
    let up = || json!({"spec": {"replicas": 3}});
    cases.extend([
        (patch(held.clone(), up()), true),
        (patch(format!("{held}/scale"), up()), true),
    ]);
    for volume in records
        .iter()
        .flat_map(|r| std::iter::once(&r.source).chain(&r.destination))
    {
        let path = format!("/api/v1/persistentvolumes/{}", volume.name);
        cases.extend([
            (patch(path.clone(), label()), false),
            (patch(path.clone(), finalizer()), false),
            (
                patch(
                    format!("{path}/status"),
                    json!({"status": {"reason": "edited"}}),
                ),
                false,
            ),
        ]);
    }
    Ok(cases)
}

/// What is held may get another size, but not vanish, lose our mark, or come anew.
async fn a_held_set_stays(halted: &Halted<'_>) -> Result<()> {
    let records = halted.records().await?;
    let frozen = records.iter().find_map(|record| {
        let mut all = record.freeze.workloads.iter();
        let held = all.find(|freezing| freezing.workload.name == "my-db")?;
        Some((record, held))
    });
    let (record, freezing) = frozen.context("my-db is in no record")?;
    ensure!(freezing.method == Method::Hold, "{freezing:?}");
    let set = &freezing.workload;
    let sets = at(halted.test, "apps/v1", "statefulsets");
    let path = format!("{sets}/my-db");
    let unmarked = json!({"metadata": {"annotations": {names::FROZEN: null}}});
    let mark = format!("annotation {}", names::FROZEN);
    let mut spec = workload_spec(&[]);
    spec["serviceName"] = json!("my-db");
    let again = create(sets, object("apps/v1", "StatefulSet", "my-db", spec));
    for (rule, ask, sentence) in [
        (
            "deletions",
            delete(path.clone()),
            refusal::workload_delete(record, set),
        ),
        (
            "marks",
            patch(path, unmarked),
            refusal::workload_mark(record, set, &mark),
        ),
        ("names", again, refusal::workload_create(record, set)),
    ] {
        let by = format!("admission webhook \"{rule}.fence.pvmigrate.io\" denied the request: ");
        ask.refused(&halted.user, &format!("{by}{sentence}"))
            .await?;
    }
    Ok(())
}

fn controller(kind: &str, api_version: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// One of the pods that do not end yet.
async fn a_pod(test: &Test) -> Result<String> {
    let pods = test
        .api::<Pod>()
        .list(&ListParams::default().labels("app=web"))
        .await?;
    let pod = pods.items.first().context("no pod")?;
    Ok(pod.name_any())
}

/// A ReplicaSet that a controller has made passes; its pods do not, and its events say why.
async fn a_refused_controller_says_why(halted: &Halted<'_>) -> Result<()> {
    let test = halted.test;
    let owner = test
        .create(&ConfigMap {
            metadata: kube::core::ObjectMeta {
                name: Some("owner".into()),
                ..Default::default()
            },
            ..ConfigMap::default()
        })
        .await?;
    let uid = owner.uid().context("no UID")?;
    let mut set = object("apps/v1", "ReplicaSet", "late", workload_spec(&["web"]));
    set["metadata"]["ownerReferences"] = controller("ConfigMap", "v1", "owner", &uid);
    let api = Api::<ReplicaSet>::namespaced(halted.user.clone(), &test.namespace);
    api.create(&PostParams::default(), &serde_json::from_value(set)?)
        .await?;
    let records = halted.records().await?;
    let web = records
        .iter()
        .find(|record| record.claim.name == "web")
        .context("no record")?;
    let sentence = format!(
        "denied request: pvmigrate is migrating claim {} to StorageClass {} (run {}): no pod may mount it until that is done; {}",
        web.claim,
        web.destination_class,
        web.run,
        refusal::follow(&web.release, &web.run)
    );
    wait_for(
        "the event of the refused pod",
        Duration::from_secs(60),
        async || {
            let fields =
                ListParams::default().fields("involvedObject.name=late,reason=FailedCreate");
            let events = test.api::<Event>().list(&fields).await?.items;
            let said: Vec<String> = events
                .into_iter()
                .filter_map(|event| event.message)
                .collect();
            ensure!(
                said.iter().any(|said| said.ends_with(&sentence)),
                "{said:?}"
            );
            Ok(())
        },
    )
    .await?;
    api.delete("late", &DeleteParams::default()).await?;
    Ok(())
}
