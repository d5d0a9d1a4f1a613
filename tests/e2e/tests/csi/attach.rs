use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{attachments, await_detached, await_event, end_pod, volume_of, with_spec};
use pvmigrate_e2e::{Test, claim, run_test, wait_for};
use serde_json::json;

use crate::{app, app_on};

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
        test.create(&app_on(test, "app", "node-a")).await?;
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
        test.create(&app_on(test, "one", "node-a")).await?;
        test.await_ready("one").await?;
        test.exec("one", "echo kept >/data/file").await?;
        let volume = volume_of(test, "data").await?.name_any();
        refuses_by_itself(test, &volume).await?;
        test.create(&app_on(test, "two", "node-b")).await?;
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
    let refused = wait_for(what, Duration::from_secs(60), async || {
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
            test.create(&app_on(test, name, node)).await?;
            test.await_ready(name).await?;
        }
        test.exec("one", "echo shared >/data/file").await?;
        let seen = test.exec("two", "cat /data/file").await?;
        ensure!(seen == "shared\n", "the other node sees {seen:?}");

        // Each node lets go of it by itself.
        end_pod(test, "two").await?;
        let volume = volume_of(test, "data").await?.name_any();
        let what = "the volume to be attached to node-a only";
        wait_for(what, Duration::from_secs(60), async || {
            let there = attachments(&test.cluster, &volume).await?;
            ensure!(
                there.len() == 1 && there[0].spec.node_name == "node-a",
                "it is attached so: {there:?}"
            );
            Ok(())
        })
        .await?;
        let kept = test.exec("one", "cat /data/file").await?;
        ensure!(kept == "shared\n", "the first node sees {kept:?}");
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
        test.create(&app(test, "wrong", "", &["wrong"])).await?;
        await_event(test, "wrong", "is not among ReadWriteOncePod").await?;
        let alone = json!({"accessModes": ["ReadWriteOncePod"]});
        test.create(&with_spec(&claim("data", "csi-rwop"), &alone)?)
            .await?;
        test.create(&app_on(test, "app", "node-a")).await?;
        test.await_ready("app").await?;
        Ok(())
    })
    .await;
}
