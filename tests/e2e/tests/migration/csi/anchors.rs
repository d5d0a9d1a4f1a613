//! Attached volumes stay attached while their application is stopped, and follow it where it comes
//! back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pvmigrate_e2e::csi::anchors_that_ran;
use pvmigrate_e2e::{
    Test, bound, claim, deployment, example, leftovers, mount, run_test, wait_for,
};
use serde_json::json;

use super::{SCRIPT, node, runs_on, start};

/// Does not end before it is killed: there is time to change its workload while it is stopped.
const ENDS_LATE: i64 = 6;

#[tokio::test]
async fn an_application_that_comes_back_elsewhere_has_its_volume_follow() {
    run_test("follow", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy(test).await?;
        let release = start(test, "csi-a", "csi-b", &[]).await?;
        let api = test.api::<Deployment>();
        wait_for(
            "the application to be stopped",
            Duration::from_secs(120),
            async || {
                let replicas = api.get("app").await?.spec.and_then(|spec| spec.replicas);
                ensure!(replicas == Some(0), "it has {replicas:?} replicas");
                Ok(())
            },
        )
        .await?;
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": node("node-b")}}}});
        api.patch("app", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        let follows = "is on node node-b, the new volume of claim";
        release.ended().await?.expect(0, &["migrated", follows])?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        check(test, "node-b").await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn an_application_comes_back_to_its_node_where_its_volume_stayed_attached() {
    run_test("stayed", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy(test).await?;
        let release = start(test, "csi-a", "csi-b", &[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        check(test, "node-a").await?;
        let ran = anchors_that_ran(test).await?;
        ensure!(ran == 1, "{ran} anchors ran");
        release.uninstall().await
    })
    .await;
}

/// On node-a, by a wish that does not keep it from being elsewhere.
async fn deploy(test: &Test) -> Result<()> {
    test.create(&claim("data", "csi-a")).await?;
    let image = &test.cluster.tools_image;
    let script = format!("trap '' TERM\n{SCRIPT}\nwhile :; do sleep 1000 & wait; done");
    let app = deployment("app", image, &script, &[mount("data")]);
    let mut app = serde_json::to_value(&app)?;
    let spec = &mut app["spec"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(ENDS_LATE);
    spec["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 100, "preference": {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node-a"]}
        ]}}
    ]}});
    test.create(&serde_json::from_value::<Deployment>(app)?)
        .await?;
    example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    let is_there = pods.items.iter().any(|pod| runs_on(pod, "node-a"));
    ensure!(is_there, "the application is not on node-a");
    Ok(())
}

async fn check(test: &Test, node: &str) -> Result<()> {
    let now = bound(&test.cluster, &test.namespace, "data").await?;
    ensure!(now.class() == "csi-b", "the claim is of {}", now.class());
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let holds = test.exec(&pods["data"], "cat /data/file").await?;
    ensure!(holds == "data\n", "the file holds {holds:?}");
    let all = test.api::<Pod>().list(&ListParams::default()).await?.items;
    let app = all.iter().find(|pod| pod.name_any() == pods["data"]);
    let app = app.context("the application's pod is gone")?;
    ensure!(runs_on(app, node), "it runs on {:?}", app.spec);
    Ok(())
}
