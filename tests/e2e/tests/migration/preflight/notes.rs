//! What preflight says of a claim and does not refuse it for.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{create_class, delete_class, with_spec};
use pvmigrate_e2e::{Outside, bound, claim, deployment, example, mount, run_test, stay};
use serde_json::json;

use super::versions;

const CHECK_ONLY: [(&str, &str); 1] = [("PVMIGRATE_PREFLIGHT_ONLY", "true")];

#[tokio::test]
async fn what_is_not_carried_over_is_said_with_why_and_stands_against_nothing() {
    run_test("notes", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let mut data = claim("data", "local-a");
        let about_the_volume = ("volume.kubernetes.io/of-somebody".into(), "x".into());
        data.annotations_mut().extend([about_the_volume]);
        test.create(&data).await?;
        let image = &test.cluster.tools_image;
        let mut app = deployment("app", image, &stay(""), &[mount("data")]);
        let spec = app.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        if let Some(spec) = spec {
            let folder = json!({"name": "node", "hostPath": {"path": "/"}});
            spec.volumes.get_or_insert_default().push(serde_json::from_value(folder)?);
        }
        test.create(&app).await?;
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let volume = bound(&test.cluster, &test.namespace, "data").await?.volume;
        let name = volume.name_any();
        let patch = Patch::Merge(json!({"spec": {
            "persistentVolumeReclaimPolicy": "Retain", "mountOptions": ["noatime"],
        }}));
        Api::<PersistentVolume>::all(test.cluster.client.clone())
            .patch(&name, &PatchParams::default(), &patch)
            .await?;

        let before = versions(&test.cluster, &[&test.namespace]).await?;
        let outside = Outside::new(test).await?;
        let end = outside
            .run(["local-a", "local-b"], &[&test.namespace], &CHECK_ONLY)
            .await?;
        end.expect(
            0,
            &[
                "reclaim policy Retain is kept: somebody had changed it from its class's Delete",
                &format!("the node affinity of volume {name} is not carried over: the new volume has its own provisioner's"),
                "mount options noatime are not carried over: they are of another file system; StorageClass local-b gives none",
                "annotations volume.kubernetes.io/of-somebody are not carried over: they are about the volume behind the claim, or kubectl's own",
                "of its volume can also be reached by pods that mount a folder of the node: ",
                // Beside others, such as those by which volumes are made.
                &format!("{}/{} (/)", test.namespace, pods["data"]),
                "preflight has nothing against this run; nothing was changed",
            ],
        )?;
        let after = versions(&test.cluster, &[&test.namespace]).await?;
        ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
        let back = Patch::Merge(json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}));
        Api::<PersistentVolume>::all(test.cluster.client.clone())
            .patch(&name, &PatchParams::default(), &back)
            .await?;
        outside.remove().await
    })
    .await;
}

#[tokio::test]
async fn what_says_how_a_volume_was_found_or_made_is_not_carried_over() {
    run_test("notes-fields", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        // A volume of XFS has 301Mi at least.
        let xfs = [("csi.storage.k8s.io/fstype", "xfs")];
        let class = create_class(test, "Immediate", &xfs).await?;
        test.create(&claim("data", &class)).await?;
        test.await_bound("data").await?;
        let of_data = json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "data"}});
        test.create(&with_spec(&claim("copy", &class), &of_data)?).await?;
        test.await_bound("copy").await?;
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        let by_hand = json!({
            "metadata": {"name": test.namespace, "labels": {"made-for": test.namespace}},
            "spec": {"capacity": {"storage": "64Mi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": class, "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": format!("/nowhere/{}", test.namespace)}},
        });
        volumes
            .create(&PostParams::default(), &serde_json::from_value(by_hand)?)
            .await?;
        let chosen = json!({"selector": {"matchLabels": {"made-for": test.namespace}}});
        test.create(&with_spec(&claim("chosen", &class), &chosen)?).await?;
        test.await_bound("chosen").await?;

        let outside = Outside::new(test).await?;
        // What is cloned is protected for a while longer than that takes.
        let without = format!("{}/data", test.namespace);
        let settings = [CHECK_ONLY[0], ("PVMIGRATE_EXCLUDE_CLAIMS", &without)];
        let end = outside
            .run([&class, "csi-a"], &[&test.namespace], &settings)
            .await?;
        let larger = "the destination is made with 301Mi, which the volume has; the claim asks for 64Mi";
        end.expect(
            0,
            &[
                &format!("dataSource of the claim is not carried over: it is about how the old volume was found or made; {larger}"),
                "selector of the claim is not carried over: it is about how the old volume was found or made",
                "preflight has nothing against this run; nothing was changed",
            ],
        )?;
        test.api::<PersistentVolumeClaim>()
            .delete("chosen", &DeleteParams::default())
            .await?;
        volumes
            .delete(&test.namespace, &DeleteParams::default())
            .await?;
        outside.remove().await?;
        delete_class(test, &class).await
    })
    .await;
}
