//! The movers of groups that begin first are made while the class is tried, and are that trial.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pvmigrate_e2e::csi::{create_class, delete_class};
use pvmigrate_e2e::{Outside, example, leftovers, run_test, wait_for};
use serde_json::json;

use super::{UNCHANGED, no_trial_is_left, versions};
use crate::csi::{deploy_on_node_a, node, start};

/// What is said of a claim that its mover has tried.
const TRIED: &str = "its mover has tried it, and it works";
const DEBUG: [&str; 2] = ["--set", "log=debug"];

#[tokio::test]
async fn a_claim_of_a_running_application_is_tried_by_its_own_mover_which_stays() {
    run_test("early", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy_on_node_a(test).await?;
        let release = start(test, "csi-a", "csi-b", &DEBUG).await?;
        let end = release.ended().await?.expect(0, &[TRIED, "migrated"])?;
        let [tried, planned] = [TRIED, "planned"].map(|said| end.log.find(said));
        ensure!(
            tried < planned,
            "it was not tried before it was recorded:\n{}",
            end.log
        );
        for said in [
            "it was tried and works",
            "staged anew",
            "the mover is made again",
        ] {
            ensure!(!end.log.contains(said), "{said}:\n{}", end.log);
        }
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_class_whose_volumes_cannot_be_mounted_is_refused_and_nothing_stays() {
    run_test("early-in-vain", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy_on_node_a(test).await?;
        let parameters = [("failStage", "no such device")];
        let class = create_class(test, "WaitForFirstConsumer", &parameters).await?;
        let before = versions(&test.cluster, &[&test.namespace]).await?;
        let outside = Outside::new(test).await?;
        let end = outside.run(["csi-a", &class], &[&test.namespace], &[]).await?;
        let tried = format!(
            "StorageClass {class} was tried for claims like {}/data (ReadWriteOnce, Filesystem), in vain: it failed, and again for 20 s",
            test.namespace
        );
        end.expect(3, &[&tried, "FailedMount", "no such device", UNCHANGED])?;
        no_trial_is_left(test).await?;
        let after = versions(&test.cluster, &[&test.namespace]).await?;
        ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
        outside.remove().await?;
        delete_class(test, &class).await
    })
    .await;
}

#[tokio::test]
async fn a_mover_that_is_tried_makes_way_for_an_application_that_has_to_run_elsewhere() {
    run_test("early-moves", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy_on_node_a(test).await?;
        // Until then its mover mounts only the source.
        let parameters = [("slowStage", "20s")];
        let class = create_class(test, "WaitForFirstConsumer", &parameters).await?;
        let release = start(test, "csi-a", &class, &DEBUG).await?;
        wait_for("a mover on node-a", Duration::from_secs(60), async || {
            let movers = ListParams::default().labels("pvmigrate.io/role=mover");
            let movers = test.api::<Pod>().list(&movers).await?;
            let mover = movers.items.into_iter().next().context("there is none")?;
            let node = mover.spec.and_then(|spec| spec.node_name);
            ensure!(node.as_deref() == Some("node-a"), "it is on {node:?}");
            Ok(())
        })
        .await?;
        let elsewhere = json!({"spec": {"template": {"spec": {"nodeSelector": node("node-b")}}}});
        test.api::<Deployment>()
            .patch("app", &PatchParams::default(), &Patch::Merge(&elsewhere))
            .await?;
        let said = ["nothing is tried by its movers", "migrated"];
        release.ended().await?.expect(0, &said)?;
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let pod = test.api::<Pod>().get(&pods["data"]).await?;
        let on = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        ensure!(
            on.as_deref() == Some("node-b"),
            "{} is on {on:?}",
            pod.name_any()
        );
        let text = test.exec(&pods["data"], "cat /data/file").await?;
        ensure!(text == "data\n", "the file holds {text:?}");
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await?;
        delete_class(test, &class).await
    })
    .await;
}
