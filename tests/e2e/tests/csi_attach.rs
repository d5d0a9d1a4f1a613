//! That attaching and detaching gate a node, and what goes wrong on request. On another cluster these
//! test nothing: the driver is the test bed's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{
    Fault, attachments, await_detached, await_event, create_class, delete_class, end_pod, on_node,
    volume_of, with_spec,
};
use pvmigrate_e2e::{Test, claim, mount, pod, run_test, stay, wait_for};
use serde_json::json;

fn app(test: &Test, name: &str, node: &str) -> Pod {
    let pod = pod(name, &test.cluster.tools_image, &stay(""), &[mount("data")]);
    on_node(pod, node)
}

#[tokio::test]
async fn an_attachment_comes_with_the_first_pod_and_goes_with_the_last() {
    run_test("csi-attachment", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-now")).await?;
        let volume = volume_of(test, "data").await?.name_any();
        ensure!(
            attachments(&test.cluster, &volume).await?.is_empty(),
            "already"
        );
        test.create(&app(test, "app", "node-a")).await?;
        test.await_ready("app").await?;
        let there = attachments(&test.cluster, &volume).await?;
        ensure!(
            there.len() == 1
                && there[0].spec.node_name == "node-a"
                && there[0]
                    .status
                    .as_ref()
                    .is_some_and(|status| status.attached),
            "it is attached so: {there:?}"
        );
        end_pod(test, "app").await?;
        await_detached(&test.cluster, &volume).await
    })
    .await;
}

#[tokio::test]
async fn a_volume_attached_to_one_node_refuses_another_until_it_is_detached() {
    run_test("csi-multi-attach", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app(test, "one", "node-a")).await?;
        test.await_ready("one").await?;
        test.exec("one", "echo kept >/data/file").await?;
        let volume = volume_of(test, "data").await?.name_any();
        refuses_by_itself(test, &volume).await?;
        test.create(&app(test, "two", "node-b")).await?;
        await_event(test, "two", "Multi-Attach error").await?;
        end_pod(test, "one").await?;
        test.await_ready("two").await?;
        let kept = test.exec("two", "cat /data/file").await?;
        ensure!(kept == "kept\n", "it holds {kept:?}");
        Ok(())
    })
    .await;
}

/// Past the controller that would not even ask: the driver itself says no.
async fn refuses_by_itself(test: &Test, volume: &str) -> Result<()> {
    let api = Api::<VolumeAttachment>::all(test.cluster.client.clone());
    let asked: VolumeAttachment = serde_json::from_value(json!({
        "metadata": {"name": test.namespace},
        "spec": {
            "attacher": "loop.csi.test", "nodeName": "node-b",
            "source": {"persistentVolumeName": volume},
        },
    }))?;
    api.create(&PostParams::default(), &asked).await?;
    let what = "the driver to refuse a second node";
    let refused = wait_for(what, Duration::from_secs(30), async || {
        let status = api.get(&test.namespace).await?.status;
        let error = status.and_then(|status| status.attach_error);
        Ok(error.context("no error yet")?.message.unwrap_or_default())
    })
    .await;
    api.delete(&test.namespace, &DeleteParams::default())
        .await?;
    let message = refused?;
    ensure!(
        message.contains("is attached to node-a"),
        "it says {message:?}"
    );
    Ok(())
}

#[tokio::test]
async fn many_nodes_share_a_volume_that_is_for_many() {
    run_test("csi-rwx", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let shared = json!({"accessModes": ["ReadWriteMany"]});
        test.create(&with_spec(&claim("data", "csi-rwx"), &shared)?)
            .await?;
        for (name, node) in [("one", "node-a"), ("two", "node-b")] {
            test.create(&app(test, name, node)).await?;
            test.await_ready(name).await?;
        }
        test.exec("one", "echo shared >/data/file").await?;
        let seen = test.exec("two", "cat /data/file").await?;
        ensure!(seen == "shared\n", "the other node sees {seen:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_class_for_one_pod_gives_nothing_to_a_claim_for_one_node() {
    run_test("csi-rwop", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("wrong", "csi-rwop")).await?;
        let wrong = pod(
            "wrong",
            &test.cluster.tools_image,
            &stay(""),
            &[mount("wrong")],
        );
        test.create(&wrong).await?;
        await_event(test, "wrong", "is not among ReadWriteOncePod").await?;
        let alone = json!({"accessModes": ["ReadWriteOncePod"]});
        test.create(&with_spec(&claim("data", "csi-rwop"), &alone)?)
            .await?;
        test.create(&app(test, "app", "node-a")).await?;
        test.await_ready("app").await?;
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_attach_fails_as_long_as_it_is_asked_to() {
    run_test("csi-fail-attach", async |test| {
        let rule = json!({"call": "Attach", "fail": "no slot is free"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app(test, "app", "node-a")).await?;
        await_event(test, "app", "no slot is free").await?;
        drop(fault);
        test.await_ready("app").await?;
        Ok(())
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
        test.create(&app(test, "app", "node-a")).await?;
        test.await_ready("app").await?;
        let volume = volume_of(test, "data").await?.name_any();
        end_pod(test, "app").await?;
        let began = Instant::now();
        await_detached(&test.cluster, &volume).await?;
        let took = began.elapsed();
        ensure!(took > Duration::from_secs(7), "it took only {took:?}");
        Ok(())
    })
    .await;
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
    test.create(&app(test, "app", "node-a")).await?;
    test.await_ready("app").await?;
    test.create(&claim("more", class)).await?;
    let second = pod(
        "second",
        &test.cluster.tools_image,
        &stay(""),
        &[mount("more")],
    );
    test.create(&second).await?;
    await_event(test, "second", "did not have enough free storage").await
}
