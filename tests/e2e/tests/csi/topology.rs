use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pvmigrate_e2e::csi::{create_class, delete_class, on_node, volume_of};
use pvmigrate_e2e::{Test, claim, run_test, wait_for};
use serde_json::{Value, json};

use crate::app;

#[tokio::test]
async fn a_volume_of_one_node_says_so_and_pods_follow_it() {
    run_test("csi-topology", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-node")).await?;
        test.create(&on_node(app(test, "first", "", &["data"]), "node-b"))
            .await?;
        test.await_ready("first").await?;
        let lives = json!([
            {"key": "loop.csi.test/node", "operator": "In", "values": ["node-b"]},
            {"key": "loop.csi.test/zone", "operator": "In", "values": ["b"]},
        ]);
        let told = affinity(test, "data").await?;
        ensure!(told == lives, "it lives at {told}");
        let second = app(test, "second", "", &["data"]);
        ensure!(
            runs_on(test, second).await? == "node-b",
            "it runs elsewhere"
        );
        test.create(&on_node(app(test, "third", "", &["data"]), "node-a"))
            .await?;
        await_unschedulable(test, "third", "node affinity").await
    })
    .await;
}

#[tokio::test]
async fn a_volume_of_a_zone_is_made_where_its_pod_is() {
    run_test("csi-zone", async |test| {
        in_zones(test, "WaitForFirstConsumer", async || {
            test.create(&on_node(app(test, "first", "", &["data"]), "node-b"))
                .await?;
            test.await_ready("first").await?;
            // Of the zone, not of the node.
            ensure!(zone(test).await? == "b", "it is not of its pod's zone");
            let second = app(test, "second", "", &["data"]);
            ensure!(
                runs_on(test, second).await? == "node-b",
                "it runs elsewhere"
            );
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_volume_of_a_zone_that_is_bound_at_once_draws_its_pod() {
    run_test("csi-zone-now", async |test| {
        in_zones(test, "Immediate", async || {
            let zone = zone(test).await?;
            let node = runs_on(test, app(test, "app", "", &["data"])).await?;
            ensure!(node == format!("node-{zone}"), "of {zone}, used on {node}");
            let other = if zone == "a" { "node-b" } else { "node-a" };
            test.create(&on_node(app(test, "other", "", &["data"]), other))
                .await?;
            await_unschedulable(test, "other", "node affinity").await
        })
        .await
    })
    .await;
}

/// With the claim `data`, of a class whose volumes live in a zone.
async fn in_zones(
    test: &Test,
    binding: &str,
    body: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    if !test.has_bed() {
        return Ok(());
    }
    let class = create_class(test, binding, &[("topology", "zone")]).await?;
    let outcome = async {
        test.create(&claim("data", &class)).await?;
        body().await
    }
    .await;
    delete_class(test, &class).await?;
    outcome
}

/// Where the volume of the claim `data` can be reached, if that is one zone and nothing else.
async fn zone(test: &Test) -> Result<String> {
    let told = affinity(test, "data").await?;
    let zone = told[0]["values"][0].as_str().unwrap_or_default();
    let lives = json!([{"key": "loop.csi.test/zone", "operator": "In", "values": [zone]}]);
    ensure!(told == lives, "it lives at {told}");
    Ok(zone.into())
}

/// What the volume of a claim says about the nodes that reach it, by key.
async fn affinity(test: &Test, claim: &str) -> Result<Value> {
    let mut volume = serde_json::to_value(volume_of(test, claim).await?)?;
    let terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"].take();
    ensure!(terms.as_array().map(Vec::len) == Some(1), "it has {terms}");
    let mut all: Vec<Value> = serde_json::from_value(terms[0]["matchExpressions"].clone())?;
    all.sort_by_key(|one| one["key"].to_string());
    Ok(all.into())
}

/// The node where a pod is put that may run anywhere.
async fn runs_on(test: &Test, pod: Pod) -> Result<String> {
    let pod = test.create(&pod).await?;
    let pod = test.await_ready(&pod.name_any()).await?;
    let node = pod.spec.and_then(|spec| spec.node_name);
    node.context("a Ready pod without a node")
}

async fn await_unschedulable(test: &Test, name: &str, because: &str) -> Result<()> {
    let what = format!("pod {name} to be unschedulable: {because}");
    wait_for(&what, Duration::from_secs(60), async || {
        let found = test.api::<Pod>().get(name).await?;
        let conditions = found.status.and_then(|status| status.conditions);
        let said: Vec<_> = conditions
            .into_iter()
            .flatten()
            .filter_map(|condition| condition.message)
            .collect();
        ensure!(
            said.iter().any(|message| message.contains(because)),
            "its conditions say {said:?}"
        );
        Ok(())
    })
    .await
}
