//! A StatefulSet whose pods share nothing moves one pod at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pvmigrate_e2e::example::{WRITE, lines, longest_silence};
use pvmigrate_e2e::{Mount, Release, Test, bound, example, leftovers, run_test, stateful_set};
use serde_json::json;

const CLAIMS: [&str; 3] = ["data-db-0", "data-db-1", "data-db-2"];

#[tokio::test]
async fn a_set_whose_pods_share_nothing_never_has_fewer_than_its_budget_allows() {
    run_test("rolling", async |test| {
        deploy(test).await?;
        let before = spec(test).await?;
        let pods = test.api::<Pod>();
        let least = tokio::spawn(fewest_ready(pods));
        let release = start(test).await?;
        let end = release.ended().await;
        ensure!(!least.is_finished(), "{:?}", least.await?);
        least.abort();
        let end = end?.expect(0, &["migrated"])?;
        for line in end.log.lines().filter(|line| line.contains("it was held")) {
            eprintln!("{line}");
        }
        let order: Vec<usize> = ["data-db-2", "data-db-1", "data-db-0"]
            .iter()
            .filter_map(|claim| {
                end.log
                    .find(&format!("{}/{claim} phase=Frozen", test.namespace))
            })
            .collect();
        ensure!(
            order.len() == 3 && order.is_sorted(),
            "{order:?}:\n{}",
            end.log
        );
        let found = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        for (claim, pod) in found {
            let now = bound(&test.cluster, &test.namespace, &claim).await?;
            let to = &test.cluster.classes[1];
            ensure!(now.class() == to, "{claim} is of {}", now.class());
            let log = lines(&test.exec(&pod, "cat /data/log").await?)?;
            eprintln!(
                "{claim}: nothing written for {:.2} s",
                longest_silence(&log)?
            );
        }
        ensure!(spec(test).await? == before, "the spec was changed");
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

/// Ends when fewer than two pods are Ready.
async fn fewest_ready(api: Api<Pod>) -> Result<BTreeMap<String, bool>> {
    loop {
        let pods = api.list(&ListParams::default()).await?.items;
        let of_set = pods.iter().filter(|pod| pod.labels().contains_key("app"));
        let ready: BTreeMap<String, bool> =
            of_set.map(|pod| (pod.name_any(), is_ready(pod))).collect();
        if ready.values().filter(|ready| **ready).count() < 2 {
            return Ok(ready);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
    ready.next().is_some()
}

async fn deploy(test: &Test) -> Result<()> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    let at_data = [Mount {
        claim: "data".into(),
        path: "/data".into(),
    }];
    let mut set = stateful_set("db", 3, class, image, &WRITE, &at_data);
    if let Some(spec) = &mut set.spec {
        spec.min_ready_seconds = Some(1);
    }
    test.create(&set).await?;
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": "db"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "db"}}},
    }))?;
    test.create(&budget).await?;
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    Ok(())
}

async fn spec(test: &Test) -> Result<(Option<i64>, serde_json::Value)> {
    let set = test.api::<StatefulSet>().get("db").await?;
    let spec = set.spec.context("no spec")?;
    Ok((set.metadata.generation, serde_json::to_value(spec)?))
}

async fn start(test: &Test) -> Result<Release> {
    let namespace = test.new_namespace("release").await?;
    let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
    release.start(&[]).await?;
    Ok(release)
}
