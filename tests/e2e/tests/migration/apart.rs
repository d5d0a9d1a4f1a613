//! Replicas that may not run on one node, of a set that has no pod now.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use pvmigrate_e2e::{
    Outside, Release, Test, bound, claim, example, leftovers, mount, run_test, stateful_set, stay,
    wait_for,
};
use serde_json::json;

use super::preflight::{no_trial_is_left, versions};
use super::together::node_of;

const HOST: &str = "kubernetes.io/hostname";
const CLAIMS: [&str; 2] = ["data-db-0", "data-db-1"];

/// A set of these replicas whose pods each want a node of their own, with a claim `data` of CSI.
fn apart(test: &Test, class: &str, replicas: i32) -> Result<StatefulSet> {
    let script = stay("[ -e /data/file ] || hostname >/data/file");
    let image = &test.cluster.tools_image;
    let mut set = stateful_set("db", replicas, class, image, &script, &[mount("data")]);
    let term = json!({"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "db"}}});
    let affinity =
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    let spec = set.spec.as_mut().context("a set without a spec")?;
    let pod = spec
        .template
        .spec
        .as_mut()
        .context("a template without a pod")?;
    pod.affinity = Some(serde_json::from_value(affinity)?);
    Ok(set)
}

/// Volumes of the old class can be reached from any node, those of the new one only from theirs;
/// and all that the scheduler places by itself goes to the first node.
#[tokio::test]
async fn replicas_that_keep_apart_end_where_all_of_them_can_run() {
    run_test("apart", async |test| keep_apart(test, &[&CLAIMS]).await).await;
}

#[tokio::test]
async fn a_replica_keeps_apart_from_one_that_an_earlier_run_has_moved() {
    let runs = [&CLAIMS[..1], &CLAIMS[1..]];
    run_test("apart-earlier", async |test| keep_apart(test, &runs).await).await;
}

/// Moves these claims in one run after the other.
async fn keep_apart(test: &Test, runs: &[&[&str]]) -> Result<()> {
    if !test.has_bed() {
        return Ok(());
    }
    test.create(&apart(test, "csi-a", 2)?).await?;
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    scale(test, 0).await?;
    let pods = test.api::<Pod>();
    wait_for("the pods to go", Duration::from_secs(60), async || {
        let left = pods.list(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} are there");
        Ok(())
    })
    .await?;

    let namespace = test.new_namespace("release").await?;
    let classes = ["csi-a", "local-b"].map(String::from);
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    let key = format!("pvmigrate-test/{}", test.namespace);
    let taint = format!("{key}=away:PreferNoSchedule");
    let shun = ["taint", "node", "node-b", &taint].map(String::from);
    test.cluster.kubectl(&shun).await?.success()?;
    let migrated = migrated(test, &release, runs).await;
    let open = ["taint", "node", "node-b", &format!("{key}-")].map(String::from);
    test.cluster.kubectl(&open).await?.success()?;
    migrated?;

    let nodes = [
        node_of(test, CLAIMS[0]).await?,
        node_of(test, CLAIMS[1]).await?,
    ];
    ensure!(nodes[0] != nodes[1], "both volumes are on {}", nodes[0]);
    scale(test, 2).await?;
    let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    for (claim, pod) in &pods {
        let now = bound(&test.cluster, &test.namespace, claim).await?;
        ensure!(now.class() == "local-b", "{claim} is of {}", now.class());
        let held = test.exec(pod, "cat /data/file").await?;
        ensure!(held.trim_end() == pod, "{claim} holds {held:?}");
    }
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await
}

#[tokio::test]
async fn replicas_that_keep_apart_and_find_too_few_nodes_are_refused_by_name() {
    run_test("apart-impossible", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        for ordinal in 0..3 {
            let name = format!("data-db-{ordinal}");
            test.create(&claim(&name, "csi-now")).await?;
            test.await_bound(&name).await?;
        }
        test.create(&apart(test, "csi-now", 0)?).await?;
        let outside = Outside::new(test).await?;
        let before = versions(&test.cluster, &[&test.namespace]).await?;
        let run = async |settings: &[(&str, &str)]| {
            outside.run(["csi-now", "local-b"], &[&test.namespace], settings).await
        };
        let sentence = format!(
            "no node is left for pod 2 of StatefulSet {}/db after the move: its pods keep apart by {HOST} (required podAntiAffinity), volumes of StorageClass local-b stay where they are made, and others of its pods need node-a, node-b; leave its claims out (excludeClaims)",
            test.namespace
        );
        run(&[]).await?.expect(
            3,
            &[&sentence, "preflight refused for 1 reasons; nothing was changed"],
        )?;
        no_trial_is_left(test).await?;
        let after = versions(&test.cluster, &[&test.namespace]).await?;
        ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
        // And it is as the sentence says.
        let without = format!("{}/data-db-2", test.namespace);
        let settings = [
            ("PVMIGRATE_EXCLUDE_CLAIMS", without.as_str()),
            ("PVMIGRATE_PREFLIGHT_ONLY", "true"),
        ];
        run(&settings).await?.expect(0, &["preflight has nothing against this run"])?;
        outside.remove().await
    })
    .await;
}

async fn migrated(test: &Test, release: &Release, runs: &[&[&str]]) -> Result<()> {
    for (number, claims) in runs.iter().enumerate() {
        let full = claims
            .iter()
            .map(|claim| format!("{}/{claim}", test.namespace));
        let only = format!("claims={{{}}}", full.collect::<Vec<_>>().join(","));
        let values = ["--set", &only];
        if number == 0 {
            release.start(&values).await?;
        } else {
            release.upgrade(&values).await?;
        }
        release.ended().await?.expect(0, &["migrated"])?;
    }
    Ok(())
}

async fn scale(test: &Test, replicas: i32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let sets = test.api::<StatefulSet>();
    sets.patch("db", &PatchParams::default(), &patch).await?;
    Ok(())
}
