//! What new claims are made with: sizes and access modes.

use anyhow::{Context, ensure};
use kube::ResourceExt;
use pvmigrate_e2e::csi::{asks, with_spec};
use pvmigrate_e2e::{bound, claim, example, mount, run_test};
use serde_json::json;

use super::{outside, use_them};

#[tokio::test]
async fn a_claim_gets_the_access_modes_and_the_size_that_its_annotations_say() {
    run_test("options-wishes", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let mut larger = claim("larger", "csi-a");
        let wishes = [
            ("pvmigrate.io/size", "400Mi"),
            ("kurl.sh/pvcmigrate-destinationaccessmode", "ReadWriteMany"),
        ];
        let wishes = wishes.map(|(key, value)| (key.to_string(), value.to_string()));
        larger.annotations_mut().extend(wishes);
        test.create(&larger).await?;
        let smaller = with_spec(
            &claim("smaller", "csi-a"),
            &json!({"resources": asks("200Mi")}),
        )?;
        test.create(&smaller).await?;
        use_them(test, &["larger", "smaller"].map(mount)).await?;
        let sizes = format!("--sizes={}/smaller=100Mi", test.namespace);
        let classes = ["--source-sc=csi-a", "--dest-sc=csi-rwx"];
        outside(test, 0, &["run", &sizes, classes[0], classes[1]]).await?;
        for (name, size, modes) in [
            ("larger", "400Mi", ["ReadWriteMany"]),
            ("smaller", "100Mi", ["ReadWriteOnce"]),
        ] {
            let found = bound(&test.cluster, &test.namespace, name).await?;
            let spec = found.claim.spec.context("a claim without a spec")?;
            ensure!(
                spec.access_modes.as_deref() == Some(&modes.map(String::from)[..]),
                "{name}: {:?}",
                spec.access_modes
            );
            let asked = spec.resources.and_then(|resources| resources.requests);
            let asked = asked.context("it asks for nothing")?["storage"].0.clone();
            ensure!(asked == size, "{name} asks for {asked}");
            let has = found.claim.status.and_then(|status| status.capacity);
            let has = has.context("it has no capacity")?["storage"].0.clone();
            ensure!(has == size, "{name} has {has}");
        }
        let pods = example::pods(&test.cluster, &test.namespace, &["larger"]).await?;
        let holds = test
            .exec(&pods["larger"], "cat /larger/file /smaller/file")
            .await?;
        ensure!(holds == "kept\nkept\n", "the files hold {holds:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_size_that_does_not_hold_the_files_is_found_before_anything_is_stopped() {
    run_test("options-too-small", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let large = with_spec(
            &claim("data", "csi-a"),
            &json!({"resources": asks("200Mi")}),
        )?;
        test.create(&large).await?;
        use_them(test, &[mount("data")]).await?;
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        test.exec(&pods["data"], "head -c 120M /dev/urandom >/data/much")
            .await?;
        let classes = ["--source-sc=csi-a", "--dest-sc=csi-rwx"];
        let said = outside(test, 4, &["run", "--sizes=*=64Mi", classes[0], classes[1]]).await?;
        ensure!(said.contains("the destination is too small"), "{said}");
        ensure!(!said.contains("phase=Frozen"), "it was stopped:\n{said}");
        let found = bound(&test.cluster, &test.namespace, "data").await?;
        ensure!(found.class() == "csi-a", "it is of {}", found.class());
        Ok(())
    })
    .await;
}
