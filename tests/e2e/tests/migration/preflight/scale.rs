//! Preflight of many claims: how long it takes, and how much it asks the API server.

use std::time::Instant;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use pvmigrate_e2e::csi::{delete_class, with_spec};
use pvmigrate_e2e::{Outside, Test, claim, run_test};
use serde_json::json;

const CLAIMS: usize = 500;
const SECONDS: f64 = 30.0;
/// For each claim.
const REQUESTS: usize = 10;
const AT_ONCE: usize = 16;

#[tokio::test]
#[ignore = "measures; part of make test-long"]
async fn five_hundred_claims() {
    run_test("five-hundred", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let class = json!({"metadata": {"name": test.namespace}, "provisioner": "kubernetes.io/no-provisioner"});
        let classes = Api::<StorageClass>::all(test.cluster.client.clone());
        let class: StorageClass = serde_json::from_value(class)?;
        classes.create(&PostParams::default(), &class).await?;
        stream::iter(0..CLAIMS)
            .map(|number| create_bound(test, number))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        pvmigrate_e2e::wait_for("all claims to be Bound", std::time::Duration::from_secs(120), async || {
            let all = test.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?;
            let is_bound = |claim: &&PersistentVolumeClaim| {
                let status = claim.status.as_ref();
                status.and_then(|status| status.phase.as_deref()) == Some("Bound")
            };
            let count = all.items.iter().filter(is_bound).count();
            ensure!(count == CLAIMS, "{count} are");
            Ok(())
        })
        .await?;

        let outside = Outside::new(test).await?;
        let started = Instant::now();
        let only = [("PVMIGRATE_PREFLIGHT_ONLY", "true")];
        let classes = [test.namespace.as_str(), "local-b"];
        let end = outside.run(classes, &[&test.namespace], &only).await?;
        let (seconds, requests) = (started.elapsed().as_secs_f64(), outside.requests());
        end.expect(0, &[&format!("claims={CLAIMS}")])?;
        println!("preflight of {CLAIMS} claims: {seconds:.1} s, {requests} requests");
        ensure!(seconds < SECONDS, "it took {seconds} s");
        ensure!(requests < REQUESTS * CLAIMS, "it made {requests} requests");

        outside.remove().await?;
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        for number in 0..CLAIMS {
            volumes.delete(&volume(test, number), &DeleteParams::default()).await?;
        }
        delete_class(test, &test.namespace).await
    })
    .await;
}

fn volume(test: &Test, number: usize) -> String {
    format!("{}-{number}", test.namespace)
}

/// A claim with a volume that was made for it, by hand.
async fn create_bound(test: &Test, number: usize) -> Result<()> {
    let (name, volume) = (format!("claim-{number}"), volume(test, number));
    let object = json!({
        "metadata": {"name": volume},
        "spec": {"capacity": {"storage": "64Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": test.namespace, "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": format!("/nowhere/{volume}")},
            "claimRef": {"namespace": test.namespace, "name": name}},
    });
    let object: PersistentVolume = serde_json::from_value(object)?;
    Api::<PersistentVolume>::all(test.cluster.client.clone())
        .create(&PostParams::default(), &object)
        .await?;
    let to_it = json!({"volumeName": volume});
    test.create(&with_spec(&claim(&name, &test.namespace), &to_it)?)
        .await?;
    Ok(())
}
