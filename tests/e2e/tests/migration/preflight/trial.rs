//! Trials leave nothing, whatever the class says of its volumes and however a Job has ended.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::PostParams;
use pvmigrate_e2e::csi::{delete_class, with_spec};
use pvmigrate_e2e::{Outside, Test, claim, pod, run_test};
use pvmigrate_testbed::CSI_DRIVER;
use serde_json::json;

use super::{UNCHANGED, no_trial_is_left};

#[tokio::test]
async fn every_kind_of_claim_is_tried_and_nothing_of_it_is_kept() {
    run_test("trial", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-now")).await?;
        let block = json!({"volumeMode": "Block"});
        test.create(&with_spec(&claim("device", "csi-now"), &block)?)
            .await?;
        for name in ["data", "device"] {
            test.await_bound(name).await?;
        }
        // Its volumes would stay when nobody uses them any more.
        let class = json!({"metadata": {"name": test.namespace}, "provisioner": CSI_DRIVER,
            "volumeBindingMode": "WaitForFirstConsumer", "reclaimPolicy": "Retain"});
        let classes = Api::<StorageClass>::all(test.cluster.client.clone());
        let class: StorageClass = serde_json::from_value(class)?;
        classes.create(&PostParams::default(), &class).await?;
        let outside = Outside::new(test).await?;
        let only = [
            ("PVMIGRATE_PREFLIGHT_ONLY", "true"),
            ("PVMIGRATE_LOG", "debug"),
        ];
        let classes = ["csi-now", test.namespace.as_str()];
        let end = outside.run(classes, &[&test.namespace], &only).await?;
        let tried = ["it was tried and works", UNCHANGED];
        let end = end.expect(0, &tried)?;
        let count = end.log.matches(tried[0]).count();
        ensure!(count == 2, "{count} trials were made:\n{}", end.log);
        no_trial_is_left(test).await?;
        outside.remove().await?;
        delete_class(test, &test.namespace).await
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_job_has_left_is_removed_by_the_next_one_of_its_release() {
    run_test("trial-left", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let outside = Outside::new(test).await?;
        let ours = format!("{}/pvmigrate", outside.namespace);
        leave(test, "pvmigrate-0123456789-trial-killed-0", "trial", &ours).await?;
        // A staging claim that was a trial still, with its mover.
        leave(test, "pvmigrate-0123456789-5ba1d8c0ffee", "mover", &ours).await?;
        // Somebody else's.
        leave(
            test,
            "pvmigrate-9876543210-trial-killed-0",
            "trial",
            "elsewhere/pvmigrate",
        )
        .await?;
        // The run is refused, and clears nevertheless.
        let with_missing = [test.namespace.as_str(), "no-such-namespace"];
        let end = outside
            .run(["csi-now", "csi-b"], &with_missing, &[])
            .await?;
        end.expect(
            3,
            &["an earlier Job has left a trial; it is removed", UNCHANGED],
        )?;
        let claims = test.api::<PersistentVolumeClaim>();
        let pods = test.api::<Pod>();
        for (name, stays) in [
            ("pvmigrate-0123456789-trial-killed-0", false),
            ("pvmigrate-0123456789-5ba1d8c0ffee", false),
            ("pvmigrate-9876543210-trial-killed-0", true),
        ] {
            let there = [
                claims.get_opt(name).await?.is_some(),
                pods.get_opt(name).await?.is_some(),
            ];
            ensure!(there == [stays, stays], "claim and pod {name}: {there:?}");
        }
        outside.remove().await
    })
    .await;
}

/// A trial as it is while its pod, which has this role, runs.
async fn leave(test: &Test, name: &str, role: &str, release: &str) -> Result<()> {
    let run = name.split('-').nth(1).unwrap_or_default();
    let labels = |role: &str| {
        let all = [("pvmigrate.io/run", run), ("pvmigrate.io/role", role)];
        all.map(|(key, value)| (key.to_string(), value.to_string()))
            .into()
    };
    let annotations = [("pvmigrate.io/release".to_string(), release.to_string())];
    let mut left = claim(name, "csi-b");
    left.metadata.labels = Some(labels("trial"));
    left.metadata.annotations = Some(annotations.clone().into());
    test.create(&left).await?;
    let mount = pvmigrate_e2e::Mount {
        claim: name.into(),
        path: "/trial".into(),
    };
    let script = pvmigrate_e2e::stay("");
    let mut user = pod(name, &test.cluster.tools_image, &script, &[mount]);
    user.metadata.labels = Some(labels(role));
    user.metadata.annotations = Some(annotations.into());
    test.create(&user).await?;
    test.await_ready(name).await?;
    Ok(())
}
