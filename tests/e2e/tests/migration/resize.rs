//! A claim that its owner makes larger while its migration is under way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use pvmigrate_e2e::csi::{Fault, asks};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, stay, wait_for,
};
use serde_json::{Value, json};

/// What is copied by 1 MiB a second: the claim has to have grown before it is.
const BYTES: u64 = 48_000_000;
/// A volume of XFS has 301Mi at least, and grows under its pod.
const CLASSES: [&str; 2] = ["csi-b", "csi-a"];

#[tokio::test]
async fn a_claim_that_was_made_larger_in_a_warm_copy_stays_until_it_is_tried_again() {
    run_test("resized", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let (app, release) = copying(test).await?;
        ask_for_more(test).await?;
        has_grown(test, &app).await?;
        let why = format!("claim {}/data was resized to 400Mi after its new volume was made with 301Mi: set retryFailed to try it again with its new size; nothing was stopped", test.namespace);
        stays(test, &release, &app, &why).await?;
        again(test, release).await
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_being_made_larger_stays_until_that_has_ended() {
    run_test("resizing", async |test| {
        let rule = json!({"call": "Expand", "fail": "the array is full"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        let (app, release) = copying(test).await?;
        ask_for_more(test).await?;
        let why = format!("claim {}/data is being resized (it has 301Mi and asks for 400Mi): wait until that has ended, and set retryFailed; nothing was stopped", test.namespace);
        stays(test, &release, &app, &why).await?;
        drop(fault);
        has_grown(test, &app).await?;
        again(test, release).await
    })
    .await;
}

/// An application whose warm copy takes a while and has begun; its pod.
async fn copying(test: &Test) -> Result<(Pod, Release)> {
    test.create(&claim("data", CLASSES[0])).await?;
    let image = &test.cluster.tools_image;
    let fill = format!("[ -e /data/file ] || head -c {BYTES} /dev/urandom >/data/file");
    let script = stay(&fill);
    test.create(&deployment("app", image, &script, &[mount("data")]))
        .await?;
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    test.exec(
        &pods["data"],
        &format!("until [ $(stat -c %s /data/file) = {BYTES} ]; do sleep 0.1; done"),
    )
    .await?;
    let app = test.api::<Pod>().get(&pods["data"]).await?;
    let namespace = test.new_namespace("release").await?;
    let classes = CLASSES.map(String::from);
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    release.start(&["--set", "mover.bandwidth=1Mi"]).await?;
    super::warm::await_warm_order(test).await?;
    Ok((app, release))
}

async fn ask_for_more(test: &Test) -> Result<()> {
    let more = Patch::Merge(json!({"spec": {"resources": asks("400Mi")}}));
    let claims = test.api::<PersistentVolumeClaim>();
    claims.patch("data", &PatchParams::default(), &more).await?;
    Ok(())
}

/// Waits until the claim has what it asks for.
async fn has_grown(test: &Test, app: &Pod) -> Result<()> {
    wait_for("claim data to grow", Duration::from_secs(120), async || {
        // The kubelet looks again at a pod that changes, and at others once a minute.
        let now = format!("{:?}", Instant::now());
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"look-again": now}}}));
        let pods = test.api::<Pod>();
        pods.patch(&app.name_any(), &PatchParams::default(), &patch)
            .await?;
        let claim = test.api::<PersistentVolumeClaim>().get("data").await?;
        let status = serde_json::to_value(claim.status)?;
        ensure!(
            status["capacity"]["storage"] == "400Mi",
            "its status is {status}"
        );
        Ok(())
    })
    .await
}

/// The run ends with this, and the application was not touched.
async fn stays(test: &Test, release: &Release, app: &Pod, why: &str) -> Result<()> {
    let end = release.ended().await?.expect(4, &["warm pass done", why])?;
    ensure!(
        !end.log.contains("phase=Frozen"),
        "it was stopped:\n{}",
        end.log
    );
    let now = test.api::<Pod>().get(&app.name_any()).await?;
    ensure!(now.uid() == app.uid(), "its pod was made again");
    let found = bound(&test.cluster, &test.namespace, "data").await?;
    ensure!(found.class() == CLASSES[0], "it is of {}", found.class());
    let policy = found.reclaim_policy();
    ensure!(policy == "Delete", "its volume has policy {policy}");
    Ok(())
}

/// Tried again, it has the new size, and its data.
async fn again(test: &Test, release: Release) -> Result<()> {
    let before = sum(test).await?;
    release.upgrade(&["--set", "retryFailed=true"]).await?;
    release.ended().await?.expect(0, &["migrated"])?;
    ensure!(sum(test).await? == before, "its data has changed");
    let found = bound(&test.cluster, &test.namespace, "data").await?;
    ensure!(found.class() == CLASSES[1], "it is of {}", found.class());
    let spec: Value = serde_json::to_value(found.claim.spec)?;
    ensure!(spec["resources"] == asks("400Mi"), "it asks for {spec}");
    let capacity = found.volume.spec.and_then(|spec| spec.capacity);
    let capacity = capacity.context("a volume without a capacity")?["storage"]
        .0
        .clone();
    ensure!(capacity == "400Mi", "its volume has {capacity}");
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await
}

async fn sum(test: &Test) -> Result<String> {
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    test.exec(&pods["data"], "sha256sum /data/file").await
}
