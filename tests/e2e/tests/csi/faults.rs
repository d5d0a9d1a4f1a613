use std::fs;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{
    Fault, attachments, await_detached, await_event, create_class, delete_class, end_pod, volume_of,
};
use pvmigrate_e2e::{Test, claim, run_test, wait_for};
use serde_json::json;

use crate::{app, app_on};

#[tokio::test]
async fn an_attach_fails_as_long_as_it_is_asked_to() {
    run_test("csi-fail-attach", async |test| {
        let rule = json!({"call": "Attach", "fail": "no slot is free"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app_on(test, "app", "node-a")).await?;
        await_event(test, "app", "no slot is free").await?;
        drop(fault);
        test.await_ready("app").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_stage_fails_as_long_as_it_is_asked_to() {
    run_test("csi-fail-stage", async |test| {
        let rule = json!({"call": "Stage", "fail": "the device does not answer"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app_on(test, "app", "node-a")).await?;
        let says = "Stage fails as asked: the device does not answer";
        await_event(test, "app", says).await?;
        drop(fault);
        test.await_ready("app").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_unstage_that_fails_keeps_the_volume_on_its_node() {
    run_test("csi-fail-unstage", async |test| {
        let Some(bed) = test.bed() else {
            return Ok(());
        };
        let rule = json!({"call": "Unstage", "fail": "the device is busy"});
        let fault = Fault::inject(test, "data", rule)?;
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app_on(test, "app", "node-a")).await?;
        test.await_ready("app").await?;
        let volume = volume_of(test, "data").await?.name_any();
        end_pod(test, "app").await?;
        // There is no pod any more that could have an event: the kubelet tells its log only.
        let log = bed.log("kubelet-node-a");
        let what = "the kubelet to say why it cannot let go";
        wait_for(what, Duration::from_secs(60), async || {
            let log = fs::read_to_string(&log)?;
            let mut lines = log.lines().filter(|line| line.contains(&volume));
            let says = "Unstage fails as asked: the device is busy";
            ensure!(lines.any(|line| line.contains(says)), "it does not");
            Ok(())
        })
        .await?;
        let node = Api::<Node>::all(test.cluster.client.clone());
        let status = node.get("node-a").await?.status.unwrap_or_default();
        let in_use = status.volumes_in_use.unwrap_or_default();
        ensure!(
            in_use.iter().any(|used| used.ends_with(&volume)),
            "the node uses {in_use:?}"
        );
        let kept = attachments(&test.cluster, &volume).await?;
        ensure!(kept.len() == 1, "it is attached so: {kept:?}");
        drop(fault);
        await_detached(&test.cluster, &volume).await
    })
    .await;
}

#[tokio::test]
async fn a_slow_detach_keeps_the_attachment() {
    run_test("csi-slow-detach", async |test| {
        let rule = json!({"call": "Detach", "slow": "8s"});
        let Some(_fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app_on(test, "app", "node-a")).await?;
        test.await_ready("app").await?;
        let volume = volume_of(test, "data").await?.name_any();
        end_pod(test, "app").await?;
        let asked = detach_asked(test, &volume).await?;
        await_detached(&test.cluster, &volume).await?;
        let took = asked.elapsed()?;
        ensure!(took > Duration::from_secs(7), "it took only {took:?}");
        Ok(())
    })
    .await;
}

/// When the volume was to be detached, by the cluster's clock, which is this machine's: what a test
/// sees of it may come seconds later.
async fn detach_asked(test: &Test, volume: &str) -> Result<SystemTime> {
    let what = format!("somebody to ask for {volume} to be detached");
    wait_for(&what, Duration::from_secs(60), async || {
        let all = attachments(&test.cluster, volume).await?;
        let attachment = all.into_iter().next().context("it is detached")?;
        let asked = attachment.metadata.deletion_timestamp;
        Ok(asked.context("nobody has asked")?.0.into())
    })
    .await
}

#[tokio::test]
async fn a_slow_create_is_waited_for() {
    run_test("csi-slow-create", async |test| {
        // Longer than the provisioner waits for one call.
        let rule = json!({"call": "Create", "slow": "12s"});
        let Some(_fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        let began = Instant::now();
        test.create(&claim("data", "csi-now")).await?;
        test.await_bound("data").await?;
        let took = began.elapsed();
        ensure!(took > Duration::from_secs(11), "it took only {took:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_delete_that_fails_leaves_the_volume_until_it_succeeds() {
    run_test("csi-fail-delete", async |test| {
        let rule = json!({"call": "Delete", "fail": "the backend has gone"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-now")).await?;
        let volume = volume_of(test, "data").await?.name_any();
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        test.api::<PersistentVolumeClaim>()
            .delete("data", &DeleteParams::default())
            .await?;
        await_event(test, &volume, "the backend has gone").await?;
        ensure!(
            volumes.get_opt(&volume).await?.is_some(),
            "it is gone all the same"
        );
        drop(fault);
        let what = "the volume to be gone";
        wait_for(what, Duration::from_secs(60), async || {
            let found = volumes.get_opt(&volume).await?;
            ensure!(
                found.is_none(),
                "it is {:?}",
                found.and_then(|found| found.status)
            );
            Ok(())
        })
        .await
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_is_full_gives_nothing() {
    run_test("csi-full", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let class = create_class(test, "Immediate", &[("full", "true")]).await?;
        test.create(&claim("data", &class)).await?;
        let said = await_event(test, "data", "the pool is full").await;
        delete_class(test, &class).await?;
        said
    })
    .await;
}

#[tokio::test]
async fn the_scheduler_knows_what_a_pool_has_left() {
    run_test("csi-capacity", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let parameters = [("pool", test.namespace.as_str()), ("capacity", "100Mi")];
        let class = create_class(test, "WaitForFirstConsumer", &parameters).await?;
        let outcome = fill(test, &class).await;
        delete_class(test, &class).await?;
        outcome
    })
    .await;
}

async fn fill(test: &Test, class: &str) -> Result<()> {
    test.create(&claim("data", class)).await?;
    test.create(&app_on(test, "app", "node-a")).await?;
    test.await_ready("app").await?;
    test.create(&claim("more", class)).await?;
    test.create(&app(test, "second", "", &["more"])).await?;
    await_event(test, "second", "did not have enough free storage").await
}
