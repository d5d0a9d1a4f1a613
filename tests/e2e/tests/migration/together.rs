//! Claims that one pod will mount, when it has none now.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Patch, PatchParams};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, mount, once, run_test, stay, wait_for,
};
use serde_json::{Value, json};

/// Volumes of the old class can be reached from any node, those of the new one only from theirs.
#[tokio::test]
async fn claims_of_a_workload_at_zero_end_where_one_pod_reaches_them_all() {
    run_test("together", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let moved = ["x", "y", "z"];
        for name in moved {
            test.create(&claim(name, "csi-a")).await?;
        }
        // Stays where it is, and so decides for the others.
        test.create(&claim("fixed", "local-a")).await?;
        let all = ["x", "y", "z", "fixed"];
        once(
            test,
            &all,
            "for claim in x y z; do echo $claim >/$claim/file; done",
        )
        .await?;
        let mut app = deployment("app", &test.cluster.tools_image, &stay(""), &all.map(mount));
        if let Some(spec) = &mut app.spec {
            spec.replicas = Some(0);
        }
        test.create(&app).await?;

        let namespace = test.new_namespace("release").await?;
        let classes = ["csi-a", "local-b"].map(String::from);
        let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        let node = node_of(test, "fixed").await?;
        for name in moved {
            let now = bound(&test.cluster, &test.namespace, name).await?;
            ensure!(now.class() == "local-b", "{name} is of {}", now.class());
            let at = node_of(test, name).await?;
            ensure!(at == node, "{name} is on {at}, and fixed is on {node}");
        }
        let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
        let deployments = test.api::<Deployment>();
        deployments
            .patch("app", &PatchParams::default(), &one)
            .await?;
        wait_for(
            "the application to be Ready",
            Duration::from_secs(60),
            async || {
                let status = deployments.get("app").await?.status;
                let ready = status.and_then(|status| status.ready_replicas);
                ensure!(ready == Some(1), "{ready:?} replicas are");
                Ok(())
            },
        )
        .await?;
        let pods = example::pods(&test.cluster, &test.namespace, &all).await?;
        let held = test.exec(&pods["x"], "cat /x/file /y/file /z/file").await?;
        ensure!(held == "x\ny\nz\n", "the files hold {held:?}");
        release.uninstall().await
    })
    .await;
}

/// Two workloads that have one claim in common need all three on one node.
#[tokio::test]
async fn claims_that_workloads_at_zero_share_through_another_end_on_one_node() {
    run_test("together-through", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let image = &test.cluster.tools_image;
        for name in ["x", "y", "z"] {
            test.create(&claim(name, "csi-a")).await?;
        }
        once(
            test,
            &["x", "y", "z"],
            "for claim in x y z; do echo $claim >/$claim/file; done",
        )
        .await?;
        let one = ["x", "y"].map(mount);
        let other = ["y", "z"].map(mount);
        let apps = [("one", &one), ("other", &other)];
        for (name, mounts) in apps {
            let mut app = deployment(name, image, &stay(""), mounts);
            if let Some(spec) = &mut app.spec {
                spec.replicas = Some(0);
                let pod = spec.template.spec.as_mut().context("no pod")?;
                // One of them can run on one node only, and so can the other, for what they share.
                let node = [("kubernetes.io/hostname".to_string(), "node-b".to_string())];
                pod.node_selector = (name == "other").then(|| node.into());
            }
            test.create(&app).await?;
        }
        let namespace = test.new_namespace("release").await?;
        let classes = ["csi-a", "local-b"].map(String::from);
        let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        for name in ["x", "y", "z"] {
            let at = node_of(test, name).await?;
            ensure!(at == "node-b", "{name} is on {at}");
        }
        let run = Patch::Merge(json!({"spec": {"replicas": 1}}));
        for (name, _) in apps {
            let deployments = test.api::<Deployment>();
            deployments
                .patch(name, &PatchParams::default(), &run)
                .await?;
        }
        let pods = example::pods(&test.cluster, &test.namespace, &["x", "y", "z"]).await?;
        for (claim, files) in [("x", "cat /x/file /y/file"), ("z", "cat /z/file /y/file")] {
            let held = test.exec(&pods[claim], files).await?;
            ensure!(held == format!("{claim}\ny\n"), "the files hold {held:?}");
        }
        release.uninstall().await
    })
    .await;
}

/// The node that the volume of a claim is on.
pub async fn node_of(test: &Test, claim: &str) -> Result<String> {
    let volume: PersistentVolume = bound(&test.cluster, &test.namespace, claim).await?.volume;
    let affinity: Value = serde_json::to_value(volume.spec.and_then(|spec| spec.node_affinity))?;
    let rule = &affinity["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    let node = rule["values"][0].as_str().map(String::from);
    node.with_context(|| format!("the volume of {claim} has no node: {affinity}"))
}
