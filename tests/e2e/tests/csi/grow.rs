use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams};
use pvmigrate_e2e::csi::{Fault, asks, await_event, end_pod, volume_of, with_spec};
use pvmigrate_e2e::{Test, claim, run_test, wait_for};
use serde_json::json;

use crate::{app, bytes, capacity};

#[tokio::test]
async fn a_volume_grows_under_its_pod() {
    run_test("csi-grow-online", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-b")).await?;
        test.create(&app(test, "app", "", &["data"])).await?;
        test.await_ready("app").await?;
        grow(test, "data", "400Mi").await?;
        await_capacity(test, "data", "400Mi", async || {
            // The kubelet looks again at a pod that changes, and at others once a minute.
            let now = format!("{:?}", Instant::now());
            let patch = json!({"metadata": {"annotations": {"look-again": now}}});
            let pods = test.api::<Pod>();
            pods.patch("app", &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
            Ok(())
        })
        .await?;
        let blocks = test.exec("app", "stat -f -c '%b %S' /data").await?;
        ensure!(bytes(&blocks)? > 320 << 20, "it has {blocks}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_ext4_volume_has_grown_when_its_pod_starts_again() {
    run_test("csi-grow-ext4", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app(test, "first", "echo kept >/data/file", &["data"]))
            .await?;
        test.await_ready("first").await?;
        grow(test, "data", "200Mi").await?;
        end_pod(test, "first").await?;
        test.create(&app(test, "second", "", &["data"])).await?;
        test.await_ready("second").await?;
        await_capacity(test, "data", "200Mi", async || Ok(())).await?;
        let seen = test
            .exec("second", "stat -f -c '%b %S' /data; cat /data/file")
            .await?;
        let (blocks, kept) = seen.split_once('\n').context("two lines")?;
        ensure!(
            bytes(blocks)? > 160 << 20 && kept == "kept\n",
            "it has {seen}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_class_without_expansion_refuses_it() {
    run_test("csi-fixed", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-fixed")).await?;
        test.create(&app(test, "app", "", &["data"])).await?;
        test.await_bound("data").await?;
        let refused = grow(test, "data", "200Mi").await;
        let error = refused.err().context("it was let")?;
        ensure!(
            matches!(
                error.downcast_ref::<kube::Error>(),
                Some(kube::Error::Api(status)) if status.code == 403
                    && status.message.contains("must support resize")
            ),
            "it was refused with {error:#}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_expansion_fails_as_long_as_it_is_asked_to() {
    run_test("csi-fail-expand", async |test| {
        let rule = json!({"call": "Expand", "fail": "the array is full"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        // A device grows without a node, and so without a pod.
        let raw = with_spec(&claim("data", "csi-now"), &json!({"volumeMode": "Block"}))?;
        test.create(&raw).await?;
        volume_of(test, "data").await?;
        grow(test, "data", "200Mi").await?;
        await_event(test, "data", "Expand fails as asked: the array is full").await?;
        ensure!(capacity(test, "data").await? == "64Mi", "it has grown");
        drop(fault);
        await_capacity(test, "data", "200Mi", async || Ok(())).await
    })
    .await;
}

async fn grow(test: &Test, claim: &str, size: &str) -> Result<()> {
    let patch = json!({"spec": {"resources": asks(size)}});
    test.api::<PersistentVolumeClaim>()
        .patch(claim, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn await_capacity(
    test: &Test,
    claim: &str,
    size: &str,
    nudge: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let what = format!("claim {claim} to have {size}");
    wait_for(&what, Duration::from_secs(120), async || {
        let has = capacity(test, claim).await?;
        if has != size {
            nudge().await?;
        }
        ensure!(has == size, "it has {has}");
        Ok(())
    })
    .await
}
