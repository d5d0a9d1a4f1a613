//! Which claims are asked for.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{Test, bound, claim, deployment, example, mount, run_test, stay};
use serde_json::json;

use super::{OLD_CLASS, class_like, delete_class, outside, use_them};

#[tokio::test]
async fn claims_are_selected_by_label_by_name_and_not_by_name() {
    run_test("options-select", async |test| {
        let [from, to] = &test.cluster.classes;
        for name in ["x", "y", "z", "other"] {
            let mut wanted = claim(name, from);
            let app = if name == "other" { "web" } else { "db" };
            wanted.labels_mut().insert("app".into(), app.into());
            test.create(&wanted).await?;
        }
        let mounts = ["x", "y", "z", "other"].map(mount);
        use_them(test, &mounts).await?;
        let here = &test.namespace;
        let claims = format!("--claims={here}/x,{here}/y,{here}/other");
        let without = format!("--exclude-claims={here}/y");
        let said = outside(
            test,
            0,
            &["run", "--selector=app in (db),!old", &claims, &without],
        )
        .await?;
        let left = format!("claim={here}/y why=excludeClaims names it");
        ensure!(said.contains(&left), "{said}");
        for (name, class) in [("x", to), ("y", from), ("z", from), ("other", from)] {
            let found = bound(&test.cluster, here, name).await?;
            ensure!(
                found.class() == class,
                "claim {name} is of {}",
                found.class()
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_named_and_not_there_is_refused() {
    run_test("options-named", async |test| {
        let here = &test.namespace;
        let said = outside(test, 3, &["run", &format!("--claims={here}/typo")]).await?;
        let sentence = format!("claims: claim {here}/typo does not exist");
        ensure!(said.contains(&sentence), "{said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_class_that_is_gone_and_one_that_is_named_by_the_old_annotation_can_be_left() {
    run_test("options-gone", async |test| {
        // Not every provisioner works for a class that it was not told of.
        if !test.has_bed() {
            return Ok(());
        }
        let to = &test.cluster.classes[1];
        let gone = class_like(test, "csi-a", "gone", None).await?;
        let mut old = claim("old", &gone);
        old.annotations_mut().insert(OLD_CLASS.into(), gone.clone());
        if let Some(spec) = old.spec.as_mut() {
            spec.storage_class_name = None;
        }
        test.create(&old).await?;
        test.create(&claim("new", &gone)).await?;
        use_them(test, &["old", "new"].map(mount)).await?;
        delete_class(test, &gone).await?;
        let source = format!("--source-sc={gone}");
        let said = outside(test, 3, &["run", &source]).await?;
        let sentence = format!("sourceSC: StorageClass {gone} does not exist");
        ensure!(said.contains(&sentence), "{said}");
        outside(test, 0, &["run", &source, "--skip-source-check"]).await?;
        for name in ["old", "new"] {
            let found = bound(&test.cluster, &test.namespace, name).await?;
            ensure!(found.class() == to, "claim {name} is of {}", found.class());
            let annotations = found.claim.annotations();
            ensure!(
                !annotations.contains_key(OLD_CLASS),
                "claim {name}: {annotations:?}"
            );
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn claims_without_a_class_are_part_of_it_where_that_is_asked_for() {
    run_test("options-unclassed", async |test| {
        // The folder of the volume is one of this machine.
        if !test.has_bed() {
            return Ok(());
        }
        let [from, to] = &test.cluster.classes;
        test.create(&claim("classed", from)).await?;
        use_them(test, &[mount("classed")]).await?;
        // A claim of no class binds to a volume of none, as those do that were made by hand.
        let folder = by_hand(test, "plain").await?;
        let mut plain = claim("plain", "");
        if let Some(spec) = plain.spec.as_mut() {
            spec.volume_name = Some(test.namespace.clone());
        }
        test.create(&plain).await?;
        let script = stay("[ -e /plain/file ] || echo kept >/plain/file");
        let image = &test.cluster.tools_image;
        test.create(&deployment("plain", image, &script, &[mount("plain")]))
            .await?;
        example::pods(&test.cluster, &test.namespace, &["plain"]).await?;

        let said = outside(test, 0, &["plan"]).await?;
        let name = format!("claim {}/plain", test.namespace);
        ensure!(!said.contains(&name), "{said}");
        let said = outside(test, 0, &["plan", "--include-unclassed"]).await?;
        ensure!(said.contains(&name), "{said}");
        outside(test, 0, &["run", "--include-unclassed"]).await?;
        for name in ["classed", "plain"] {
            let found = bound(&test.cluster, &test.namespace, name).await?;
            ensure!(found.class() == to, "claim {name} is of {}", found.class());
        }
        let pods = example::pods(&test.cluster, &test.namespace, &["plain"]).await?;
        let holds = test.exec(&pods["plain"], "cat /plain/file").await?;
        ensure!(holds == "kept\n", "the file holds {holds:?}");
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        volumes
            .delete(&test.namespace, &DeleteParams::default())
            .await?;
        Ok(std::fs::remove_dir_all(folder)?)
    })
    .await;
}

/// A volume of no class for one claim, as people make them; returns its folder.
async fn by_hand(test: &Test, claim: &str) -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(&test.namespace);
    let volume = json!({
        "metadata": {"name": test.namespace},
        "spec": {
            "capacity": {"storage": "64Mi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": test.namespace, "name": claim},
            "hostPath": {"path": folder, "type": "DirectoryOrCreate"},
        },
    });
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    let volume = serde_json::from_value(volume)?;
    volumes.create(&PostParams::default(), &volume).await?;
    Ok(folder)
}
