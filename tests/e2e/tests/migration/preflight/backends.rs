//! Two volume objects with the same data behind them, and two claims with one volume object. Nothing
//! of it is mounted, so no server and no folder has to be there.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use pvmigrate_e2e::csi::{delete_class, with_spec};
use pvmigrate_e2e::{Outside, Test, claim, run_test, wait_for};
use serde_json::{Value, json};

use super::storage::class;
use super::{UNCHANGED, no_trial_is_left, versions};

#[tokio::test]
async fn data_that_two_volumes_have_and_a_volume_that_two_claims_want_are_named() {
    run_test("backends", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let class = class(test, "kubernetes.io/no-provisioner").await?;
        let ns = &test.namespace;
        let nfs = |path: &str| json!({"nfs": {"server": "nfs.example.com", "path": path}});
        let folder = |kind: &str| json!({kind: {"path": "/srv/data"}});
        let volumes = [
            volume(test, "nfs", nfs("/exports/a/"), "", Some("nfs")),
            volume(test, "same-nfs", nfs("/exports/a"), "", None),
            volume(test, "other-nfs", nfs("/exports/b"), "", None),
            volume(test, "folder", folder("hostPath"), "node-a", Some("folder")),
            volume(test, "same-folder", folder("local"), "node-a", Some("elsewhere")),
            volume(test, "other-node", folder("local"), "node-b", None),
        ];
        let api = Api::<PersistentVolume>::all(test.cluster.client.clone());
        for volume in &volumes {
            let volume = serde_json::from_value(volume.clone())?;
            api.create(&PostParams::default(), &volume).await?;
        }
        let on = |volume: &str| json!({"volumeName": format!("{ns}-{volume}")});
        for name in ["nfs", "folder"] {
            test.create(&with_spec(&claim(name, &class), &on(name))?).await?;
            test.await_bound(name).await?;
        }
        test.create(&with_spec(&claim("late", &class), &on("nfs"))?).await?;
        // The last change of a volume that nobody takes.
        wait_for("the volumes to be Available or Bound", Duration::from_secs(60), async || {
            for volume in &volumes {
                let name = volume["metadata"]["name"].as_str().unwrap_or_default();
                let phase = api.get(name).await?.status.and_then(|status| status.phase);
                ensure!(phase.as_deref() != Some("Pending") && phase.is_some(), "{name} is {phase:?}");
            }
            Ok(())
        })
        .await?;

        let outside = Outside::new(test).await?;
        let before = versions(&test.cluster, &[ns]).await?;
        let ended = outside.run([&class, "csi-b"], &[ns], &[]).await?;
        let remedy = "delete one of the two volume objects (policy Retain keeps the data), or leave the claim out";
        let ended = ended.expect(
            3,
            &[
                &format!("the data of claim {ns}/nfs is also that of volume {ns}-same-nfs: /exports/a of NFS server nfs.example.com; {remedy}"),
                &format!("the data of claim {ns}/folder is also that of volume {ns}-same-folder of claim {ns}/elsewhere: folder /srv/data of a node; {remedy}"),
                &format!("claim {ns}/late is Pending: only a Bound claim can be migrated"),
                &format!("claim {ns}/late says it is bound to volume {ns}-nfs, which holds another claim"),
                UNCHANGED,
            ],
        )?;
        for other in ["other-nfs", "other-node"] {
            let same = format!("is also that of volume {ns}-{other}");
            let named = ended.log.contains(&same);
            ensure!(!named, "{other} is named:\n{}", ended.log);
        }
        no_trial_is_left(test).await?;
        let after = versions(&test.cluster, &[ns]).await?;
        ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
        outside.remove().await?;
        for volume in &volumes {
            let name = volume["metadata"]["name"].as_str().unwrap_or_default();
            api.delete(name, &DeleteParams::default()).await?;
        }
        delete_class(test, &class).await
    })
    .await;
}

/// A volume that somebody has made by hand: of the test's class, on a node if one is named, for a
/// claim of the test if one is named.
fn volume(test: &Test, name: &str, source: Value, node: &str, claim: Option<&str>) -> Value {
    let mut spec = json!({
        "storageClassName": test.namespace, "capacity": {"storage": "64Mi"},
        "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
    });
    if let (Some(spec), Value::Object(source)) = (spec.as_object_mut(), source) {
        spec.extend(source);
    }
    if !node.is_empty() {
        let is_on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        spec["nodeAffinity"] =
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [is_on]}]}});
    }
    if let Some(claim) = claim {
        spec["claimRef"] = json!({"namespace": test.namespace, "name": claim});
    }
    json!({"metadata": {"name": format!("{}-{name}", test.namespace)}, "spec": spec})
}
