//! `helm uninstall` in the middle of a run: applications first, then everything goes.

mod scene;

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{Refusal, Test, WAIT, bound, example, leftovers, run_test, wait_for};
use pvmigrate_record::{names, record};
use serde_json::json;

use crate::fence::requests::{at, claim_spec, create, object};
use scene::{CLAIMS, a_claim_is_missing, contents, deploy, gone_and_back, release};

#[tokio::test]
async fn uninstalled_while_its_class_is_tried_nothing_is_stopped_and_nothing_is_left() {
    run_test("uninstall-trial", async |test| {
        before_anything(test, &[]).await
    })
    .await;
}

#[tokio::test]
async fn uninstalled_while_it_stages_nothing_is_stopped_and_nothing_is_left() {
    let more = ["--set", "skipPreflight=true"];
    run_test("uninstall-staging", async |test| {
        before_anything(test, &more).await
    })
    .await;
}

/// Uninstalled while a mover cannot be scheduled: no node has as much.
async fn before_anything(test: &Test, more: &[&str]) -> Result<()> {
    let before = deploy(test, 2).await?;
    let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    let release = release(test).await?;
    let pending = ["--set", "mover.resources.requests.cpu=900"];
    release.start(&[&pending, more].concat()).await?;
    wait_for("a mover", Duration::from_secs(120), async || {
        let movers = format!("{}={}", names::ROLE, names::ROLE_MOVER);
        let movers = ListParams::default().labels(&movers);
        let found = test.api::<Pod>().list(&movers).await?.items;
        ensure!(!found.is_empty(), "there is none");
        Ok(())
    })
    .await?;
    gone_and_back(test, &release, &before).await?;
    let now = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    ensure!(pods == now, "pods were {pods:?}, are {now:?}");
    Ok(())
}

#[tokio::test]
async fn uninstalled_while_workloads_stop_they_run_again_on_their_old_volumes() {
    run_test("uninstall-frozen", async |test| {
        // So long that the abort comes before the run has gone on.
        let before = deploy(test, 12).await?;
        let release = release(test).await?;
        release.start(&[]).await?;
        wait_for(
            "a pod to be stopped",
            Duration::from_secs(120),
            async || {
                let pods = test.api::<Pod>().list(&ListParams::default()).await?.items;
                let mut applications = pods.iter().filter(|pod| pod.labels().contains_key("app"));
                ensure!(
                    applications.any(|pod| pod.metadata.deletion_timestamp.is_some()),
                    "all of them run"
                );
                Ok(())
            },
        )
        .await?;
        gone_and_back(test, &release, &before).await?;

        // Aborted is not failed: the same release, installed again, migrates.
        release.helm("install", &WAIT).await?.success()?;
        release.ended().await?.expect(0, &[])?;
        for name in CLAIMS {
            let class = bound(&test.cluster, &test.namespace, name).await?;
            ensure!(class.class() == test.cluster.classes[1], "{name} was left");
        }
        let began = Instant::now();
        release.uninstall().await?;
        let took = began.elapsed();
        println!("uninstalling after the run took {took:?}");
        ensure!(took < Duration::from_secs(30), "it took {took:?}");
        leftovers::none_of_the_release(&release, &test.cluster).await
    })
    .await;
}

#[tokio::test]
async fn uninstalled_while_a_claim_is_missing_it_is_made_again_on_its_old_volume() {
    run_test("uninstall-vacated", async |test| {
        let before = deploy(test, 2).await?;
        let refusal = refusing(test).await?;
        let release = release(test).await?;
        release.start(&[]).await?;
        a_claim_is_missing(test).await?;
        gone_and_back(test, &release, &before).await?;
        refusal.remove().await
    })
    .await;
}

#[tokio::test]
async fn uninstalled_without_hooks_the_fence_stays_over_a_missing_claim_until_the_next_run() {
    run_test("uninstall-no-hooks", async |test| {
        let before = deploy(test, 2).await?;
        let refusal = refusing(test).await?;
        let release = release(test).await?;
        release.start(&[]).await?;
        let name = a_claim_is_missing(test).await?;
        let arguments = [
            "uninstall",
            "pvmigrate",
            "--no-hooks",
            "--wait",
            "-n",
            &release.namespace,
        ];
        test.cluster.helm(&arguments).await?.success()?;
        wait_for(
            "the release's pods to be gone",
            Duration::from_secs(60),
            async || {
                let pods = release
                    .api::<Pod>()
                    .list(&ListParams::default())
                    .await?
                    .items;
                ensure!(pods.is_empty(), "there are {}", pods.len());
                Ok(())
            },
        )
        .await?;
        // The collector had its time: what has an owner that is gone goes within seconds.
        let of = record::Release {
            namespace: release.namespace.clone(),
            name: release.name.clone(),
        };
        let policies = Api::<ValidatingAdmissionPolicy>::all(test.cluster.client.clone());
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let policy = policies.get(&names::fence_object(&of)).await?;
            ensure!(
                policy.owner_references().is_empty(),
                "the fence has an owner"
            );
            let about = format!("pvmigrate is migrating claim {}/{name} ", test.namespace);
            let spec = claim_spec(&test.cluster.classes[0], json!({}));
            let path = at(test, "v1", "persistentvolumeclaims");
            let ask = create(path, object("v1", "PersistentVolumeClaim", &name, spec));
            match ask.of(&test.cluster.client).await {
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    ensure!(status.message.contains(&about), "{}", status.message);
                }
                other => bail!("{other:?} instead of a refusal: {about}"),
            }
        }
        refusal.remove().await?;

        release.helm("install", &WAIT).await?.success()?;
        release.ended().await?.expect(0, &[])?;
        let after = contents(test).await?;
        ensure!(before.contents == after, "the data has changed");
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await?;
        leftovers::none_of_the_release(&release, &test.cluster).await
    })
    .await;
}

/// The claims are refused on their new class: the first that is vacated stays missing for a while.
async fn refusing(test: &Test) -> Result<Refusal> {
    let class = &test.cluster.classes[1];
    Refusal::new(&test.cluster, &test.namespace, &CLAIMS, class).await
}
