//! Volumes that only one node, or one pod, may use: on another cluster these test nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;
use kube::api::{EvictParams, ListParams};
use pvmigrate_e2e::csi::with_spec;
use pvmigrate_e2e::{Test, claim, deployment, example, leftovers, mount, run_test, wait_for};
use serde_json::json;

use super::{APPEND, appending_as, await_warm_order, is_of, migrate, nothing_is_lost};

/// The label of a node that is closed to the pods of this namespace.
const CLOSED_TO: &str = "pvmigrate-test/closed-to";

#[tokio::test]
async fn a_drain_in_the_middle_of_a_warm_pass_finds_no_volume_pinned() {
    run_test("warm-drain", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let mut app = deployment("app", &test.cluster.tools_image, &APPEND, &[mount("data")]);
        // Cordoned for this application alone: other tests use the node.
        let elsewhere = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": CLOSED_TO, "operator": "NotIn", "values": [test.namespace]}
            ]}]
        }}});
        if let Some(spec) = pod_spec(&mut app) {
            spec.affinity = Some(serde_json::from_value(elsewhere)?);
        }
        appending_as(
            test,
            &app,
            "csi-a",
            "head -c 30000000 /dev/urandom >/data/file",
        )
        .await?;
        let slow = ["--set", "mover.bandwidth=1Mi"];
        let release = migrate(test, "csi-a", "csi-b", &slow).await?;
        let mover = await_warm_order(test).await?;
        let node = mover
            .spec
            .and_then(|spec| spec.node_name)
            .context("on no node")?;
        let began = Instant::now();
        let close = format!("{CLOSED_TO}={}", test.namespace);
        let label = ["label", "node", &node, &close, "--overwrite"];
        test.cluster.kubectl(&label).await?.success()?;
        let evicted = evict(test).await;
        let elsewhere = away_from(test, &node).await;
        let open = ["label", "node", &node, &format!("{CLOSED_TO}-")];
        test.cluster.kubectl(&open).await?.success()?;
        evicted?;
        elsewhere?;
        let seconds = began.elapsed().as_secs_f64();
        println!("drained in a warm pass, Ready elsewhere after {seconds:.1} s");

        let said = ["the movers make way", "warm pass done", "migrated"];
        release.ended().await?.expect(0, &said)?;
        nothing_is_lost(test).await?;
        is_of(test, "csi-b").await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

fn pod_spec(of: &mut Deployment) -> Option<&mut PodSpec> {
    of.spec.as_mut()?.template.spec.as_mut()
}

/// Evicts the application's pod, as a drain does.
async fn evict(test: &Test) -> Result<()> {
    let pods = test.api::<Pod>();
    let all = pods.list(&ListParams::default().labels("app=app")).await?;
    for pod in all {
        pods.evict(&pod.name_any(), &EvictParams::default()).await?;
    }
    Ok(())
}

/// Waits until a pod of the application is Ready on another node.
async fn away_from(test: &Test, node: &str) -> Result<()> {
    let pods = test.api::<Pod>();
    wait_for(
        "the application on another node",
        Duration::from_secs(90),
        async || {
            let all = pods.list(&ListParams::default().labels("app=app")).await?;
            let there = all.items.iter().any(|pod| {
                let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                let mut conditions = pod
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten());
                on.is_some_and(|on| on != node)
                    && pod.metadata.deletion_timestamp.is_none()
                    && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
            });
            ensure!(there, "no Ready pod is away from {node}");
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn a_claim_for_one_pod_only_is_copied_when_its_pod_is_gone() {
    run_test("rwop", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        for_one_pod(test, "csi-rwop", "csi-a").await
    })
    .await;
}

#[tokio::test]
async fn a_claim_for_one_pod_only_moves_to_a_class_that_has_no_others() {
    run_test("rwop-back", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        for_one_pod(test, "csi-a", "csi-rwop").await
    })
    .await;
}

async fn for_one_pod(test: &Test, from: &str, to: &str) -> Result<()> {
    let modes = json!({"accessModes": ["ReadWriteOncePod"]});
    test.create(&with_spec(&claim("data", from), &modes)?)
        .await?;
    let image = &test.cluster.tools_image;
    test.create(&deployment("app", image, &APPEND, &[mount("data")]))
        .await?;
    example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let release = migrate(test, from, to, &[]).await?;
    let end = release.ended().await?.expect(0, &["migrated"])?;
    ensure!(!end.log.contains("warm pass"), "{}", end.log);
    let silence = nothing_is_lost(test).await?;
    println!("{from} to {to}, ReadWriteOncePod: {silence:.1} s");
    is_of(test, to).await?;
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await
}
