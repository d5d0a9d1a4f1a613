//! Migrations of volumes that are attached to nodes. On another cluster these test nothing: the
//! classes are those of the test bed's CSI driver.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pvmigrate_e2e::csi::await_detached;
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, stay, wait_for,
};
use serde_json::{Value, json};

mod anchors;
mod detach;

const SCRIPT: &str = "[ -e /data/file ] || echo data >/data/file";

#[tokio::test]
async fn a_claim_moves_from_a_local_volume_to_an_attached_one() {
    run_test("local-to-csi", async |test| {
        moves(test, &test.cluster.classes[0].clone(), "csi-b").await
    })
    .await;
}

#[tokio::test]
async fn a_claim_moves_from_one_attached_volume_to_another() {
    run_test("csi-to-csi", async |test| {
        moves(test, "csi-a", "csi-b").await
    })
    .await;
}

#[tokio::test]
async fn a_claim_moves_to_a_class_that_binds_at_once() {
    run_test("csi-to-immediate", async |test| {
        moves(test, "csi-a", "csi-now").await
    })
    .await;
}

async fn moves(test: &Test, from: &str, to: &str) -> Result<()> {
    if !test.has_bed() {
        return Ok(());
    }
    test.create(&claim("data", from)).await?;
    let image = &test.cluster.tools_image;
    test.create(&deployment("app", image, &stay(SCRIPT), &[mount("data")]))
        .await?;
    example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let source = bound(&test.cluster, &test.namespace, "data").await?.volume;
    let release = start(test, from, to, &[]).await?;
    release.ended().await?.expect(0, &["migrated"])?;
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    let now = bound(&test.cluster, &test.namespace, "data").await?;
    ensure!(now.class() == to, "the claim is of {}", now.class());
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let holds = test.exec(&pods["data"], "cat /data/file").await?;
    ensure!(holds == "data\n", "the file holds {holds:?}");
    await_detached(&test.cluster, &source.name_any()).await?;
    release.uninstall().await
}

#[tokio::test]
async fn an_application_that_moves_to_another_node_is_not_left_hanging_by_a_waiting_mover() {
    run_test("moved-application", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy_on_node_a(test).await?;

        // Without a webhook there is no CA, and no fence yet: the Job waits, with its mover ready
        // and the volume mounted.
        let nowhere = ["--set-string", "webhook.nodeSelector.nowhere=true"];
        let release = start(test, "csi-a", "csi-b", &nowhere).await?;
        await_mover(test, "node-a").await?;
        let patch = json!({"spec": {"template": {"spec": {"nodeSelector": node("node-b")}}}});
        test.api::<Deployment>()
            .patch("app", &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        wait_for(
            "the application on node-b",
            Duration::from_secs(120),
            async || {
                let pods = test.api::<Pod>().list(&ListParams::default()).await?;
                let there = pods.items.iter().filter(|pod| runs_on(pod, "node-b"));
                let there: Vec<String> = there.map(ResourceExt::name_any).collect();
                ensure!(
                    there.iter().any(|name| name.starts_with("app-")),
                    "on node-b are {there:?}"
                );
                Ok(())
            },
        )
        .await?;
        await_mover(test, "node-b").await?;

        let anywhere = r#"{"spec":{"template":{"spec":{"nodeSelector":null}}}}"#;
        let webhook = format!("deployment/{}-webhook", release.name);
        let patch = ["-n", &release.namespace, "patch", &webhook, "-p", anywhere];
        test.cluster.kubectl(&patch).await?.success()?;
        release
            .ended()
            .await?
            .expect(0, &["the movers make way", "migrated"])?;
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let text = test.exec(&pods["data"], "cat /data/file").await?;
        ensure!(text == "data\n", "the file holds {text:?}");
        release.uninstall().await
    })
    .await;
}

/// An application that has to run on node-a, with a claim of csi-a.
pub async fn deploy_on_node_a(test: &Test) -> Result<()> {
    test.create(&claim("data", "csi-a")).await?;
    let image = &test.cluster.tools_image;
    let app = deployment("app", image, &stay(SCRIPT), &[mount("data")]);
    let mut app = serde_json::to_value(&app)?;
    app["spec"]["strategy"] = json!({"type": "Recreate"});
    app["spec"]["template"]["spec"]["nodeSelector"] = node("node-a");
    test.create(&serde_json::from_value::<Deployment>(app)?)
        .await?;
    example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    Ok(())
}

pub fn node(name: &str) -> Value {
    json!({"kubernetes.io/hostname": name})
}

fn runs_on(pod: &Pod, node: &str) -> bool {
    let is_there = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    is_there && phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

async fn await_mover(test: &Test, node: &str) -> Result<()> {
    let what = format!("a mover on {node}");
    wait_for(&what, Duration::from_secs(90), async || {
        let movers = ListParams::default().labels("pvmigrate.io/role=mover");
        let pods = test.api::<Pod>().list(&movers).await?;
        let mover = pods.items.first().context("there is none")?;
        ensure!(runs_on(mover, node), "it is not there: {:?}", mover.status);
        Ok(())
    })
    .await
}

pub async fn start(test: &Test, from: &str, to: &str, more: &[&str]) -> Result<Release> {
    let namespace = test.new_namespace("release").await?;
    let classes = [from.to_string(), to.to_string()];
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    release.start(more).await?;
    Ok(release)
}
