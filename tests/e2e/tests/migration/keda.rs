//! A Deployment that KEDA scales: it is held, and KEDA may do with it as it likes.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use pvmigrate_e2e::example::{lines, longest_silence, numbering};
use pvmigrate_e2e::{
    Mount, Release, Test, bound, claim, deployment, example, leftovers, pod, run_test, stay,
    wait_for,
};
use pvmigrate_record::names;
use pvmigrate_testbed::{Bed, keda};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::hold::spec_writers;

/// KEDA looks each second; the cluster may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// As long as there is a pod of this name and label, one replica is wanted, and else none.
const SIGNAL: &str = "signal";

#[tokio::test]
#[ignore = "takes long: KEDA has to be built"]
async fn what_keda_scales_is_held_and_left_to_it() {
    run_test("keda", async |test| {
        let Some(bed) = test.bed() else {
            return Ok(());
        };
        let (started, namespace) = (bed.clone(), test.namespace.clone());
        spawn_blocking(move || keda::start(&started, &namespace)).await??;
        let done = scaled(test, bed).await;
        let (stopped, is_done) = (bed.clone(), done.is_ok());
        spawn_blocking(move || {
            keda::stop(&stopped)?;
            if is_done {
                keda::forget(&stopped)?;
            }
            anyhow::Ok(())
        })
        .await??;
        done
    })
    .await;
}

async fn scaled(test: &Test, bed: &Bed) -> Result<()> {
    deploy(test).await?;
    let what = "KEDA to start the Deployment";
    wait_for(what, LIMIT, async || {
        keda::ensure_alive(bed)?;
        has_replicas(test, 1).await
    })
    .await?;
    let pods = example::pods(&test.cluster, &test.namespace, &["web"]).await?;
    let before = objects(test).await?;

    let namespace = test.new_namespace("release").await?;
    let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
    release.start(&[]).await?;
    wait_for(
        "the Deployment to be held",
        Duration::from_secs(120),
        async || {
            let held = test.api::<Deployment>().get("web").await?;
            ensure!(held.annotations().contains_key(names::FROZEN), "it is not");
            Ok(())
        },
    )
    .await?;
    // Its pod is told to end and does not yet: all of this is in the middle of the hold.
    steered(test).await?;
    // Not at once: it would end this shell too.
    let go = "(sleep 0.5; touch /data/go) >/dev/null 2>&1 &";
    test.exec(&pods["web"], go).await?;

    let here = &test.namespace;
    let why = format!(
        "Deployment {here}/web is held: HorizontalPodAutoscaler {here}/keda-hpa-web scales it"
    );
    release.ended().await?.expect(0, &["migrated", &why])?;
    let pods = example::pods(&test.cluster, here, &["web"]).await?;
    let now = objects(test).await?;
    ensure!(now == before, "{now:#}\ninstead of\n{before:#}");
    let class = bound(&test.cluster, here, "web").await?.class().to_string();
    ensure!(class == test.cluster.classes[1], "it is of {class}");
    let log = lines(&test.exec(&pods["web"], "cat /data/log").await?)?;
    longest_silence(&log)?;
    ensure!(log[0].number == 1, "the log begins with {:?}", log[0]);
    leftovers::none_of_the_run(&release, &test.cluster, here).await?;
    // It is KEDA's as before.
    steered(test).await?;
    release.uninstall().await?;
    forget(test).await
}

/// KEDA stops the Deployment and starts it again.
async fn steered(test: &Test) -> Result<()> {
    test.api::<Pod>()
        .delete(SIGNAL, &DeleteParams::default().grace_period(0))
        .await?;
    let what = "KEDA to stop the Deployment";
    wait_for(what, LIMIT, async || has_replicas(test, 0).await).await?;
    signal(test).await?;
    let what = "KEDA to start the Deployment again";
    wait_for(what, LIMIT, async || has_replicas(test, 1).await).await
}

async fn has_replicas(test: &Test, wanted: i32) -> Result<()> {
    let web = test.api::<Deployment>().get("web").await?;
    let replicas = web.spec.and_then(|spec| spec.replicas);
    ensure!(replicas == Some(wanted), "it has {replicas:?} replicas");
    Ok(())
}

/// A Deployment at 0, whose pods end only when there is a file `go`, and what makes KEDA start it.
async fn deploy(test: &Test) -> Result<()> {
    test.create(&claim("web", &test.cluster.classes[0])).await?;
    let until = "trap \"until [ -e /data/go ]; do sleep 0.1; done; exit 0\" TERM";
    let reluctant = numbering(until, "/data/log", "echo \"$line\" >>/data/log", "0.1");
    let at_data = Mount {
        claim: "web".into(),
        path: "/data".into(),
    };
    let mut web = deployment("web", &test.cluster.tools_image, &reluctant, &[at_data]);
    if let Some(spec) = &mut web.spec {
        spec.replicas = Some(0);
        if let Some(pod) = &mut spec.template.spec {
            pod.termination_grace_period_seconds = Some(300);
        }
    }
    test.create(&web).await?;
    signal(test).await?;
    let scaled = DynamicObject::new("web", &kind()).data(json!({"spec": {
        "scaleTargetRef": {"name": "web"},
        "pollingInterval": 1,
        "cooldownPeriod": 1,
        "minReplicaCount": 0,
        "maxReplicaCount": 1,
        "triggers": [{"type": "kubernetes-workload", "metadata": {
            "podSelector": format!("app={SIGNAL}"), "value": "1",
        }}],
    }}));
    let what = "ScaledObjects to be served";
    let (api, post) = (scaled_objects(test), PostParams::default());
    wait_for(what, LIMIT, async || Ok(api.create(&post, &scaled).await?)).await?;
    Ok(())
}

async fn signal(test: &Test) -> Result<()> {
    let signal = pod(SIGNAL, &test.cluster.tools_image, &stay(""), &[]);
    let what = "the pod that makes KEDA start the Deployment";
    wait_for(what, LIMIT, async || test.create(&signal).await).await?;
    Ok(())
}

fn kind() -> ApiResource {
    let kind = GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject");
    ApiResource::from_gvk_with_plural(&kind, "scaledobjects")
}

fn scaled_objects(test: &Test) -> Api<DynamicObject> {
    Api::namespaced_with(test.cluster.client.clone(), &test.namespace, &kind())
}

/// What nobody but KEDA may have changed: the Deployment, its ScaledObject, and the autoscaler that
/// KEDA has made.
async fn objects(test: &Test) -> Result<Value> {
    let autoscalers = test.api::<HorizontalPodAutoscaler>();
    let all = [
        serde_json::to_value(test.api::<Deployment>().get("web").await?)?,
        serde_json::to_value(scaled_objects(test).get("web").await?)?,
        serde_json::to_value(autoscalers.get("keda-hpa-web").await?)?,
    ];
    let all = all.iter().map(|object| {
        let metadata = &object["metadata"];
        json!({
            "name": metadata["name"],
            "uid": metadata["uid"],
            "labels": metadata["labels"],
            "annotations": metadata["annotations"],
            "finalizers": metadata["finalizers"],
            "spec": object["spec"],
            "spec is by us": spec_writers(object).contains(names::FIELD_MANAGER),
        })
    });
    Ok(all.collect())
}

/// Its finalizer is KEDA's, which is about to end.
async fn forget(test: &Test) -> Result<()> {
    let api = scaled_objects(test);
    api.delete("web", &DeleteParams::default()).await?;
    let what = "KEDA to let go of its ScaledObject";
    wait_for(what, LIMIT, async || {
        ensure!(api.get_opt("web").await?.is_none(), "it is there");
        Ok(())
    })
    .await
}
