//! Raw block volumes. On another cluster these test nothing: the classes are those of the test
//! bed's CSI driver.

use anyhow::{Context, Result, ensure};
use pvmigrate_e2e::csi::{anchors_that_ran, with_devices, with_spec};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, stateful_set,
    stay,
};
use serde_json::json;

/// Fills 40 of 64 MiB, once, from the second MiB on.
const FILL: &str = "[ \"$(head -c 5 /dev/raw)\" = ready ] || {
  dd if=/dev/urandom of=/dev/raw bs=1M seek=1 count=40 conv=notrunc,fsync
  printf ready | dd of=/dev/raw conv=notrunc,fsync
}";
const CLAIMS: [&str; 3] = ["raw", "raw-db-0", "raw-db-1"];

#[tokio::test]
async fn devices_move_byte_by_byte_and_their_applications_come_back() {
    run_test("block", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        deploy(test).await?;
        let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        // Still in the page cache when the copy begins.
        let late = "printf late | dd of=/dev/raw bs=1 seek=60000000 conv=notrunc";
        let mut before = Vec::new();
        for claim in CLAIMS {
            test.exec(&pods[claim], late).await?;
            before.push(contents(test, &pods[claim]).await?);
        }
        ensure!(before[1] != before[2], "random devices are equal");

        let namespace = test.new_namespace("release").await?;
        let classes = ["csi-a".to_string(), "csi-b".to_string()];
        let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;

        let ran = anchors_that_ran(test).await?;
        ensure!(ran == CLAIMS.len(), "{ran} anchors ran");
        let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        for (claim, before) in CLAIMS.iter().zip(before) {
            let now = bound(&test.cluster, &test.namespace, claim).await?;
            ensure!(now.class() == "csi-b", "{claim} is of {}", now.class());
            let spec = now.volume.spec.context("a volume without a spec")?;
            ensure!(spec.volume_mode.as_deref() == Some("Block"), "{spec:?}");
            let after = contents(test, &pods[*claim]).await?;
            ensure!(before == after, "{claim} was {before} and is {after}");
        }
        let report = release.report().await?;
        let line = &report["claims"][format!("{}/raw", test.namespace)];
        ensure!(line["compared"] == "written", "the report says {line}");
        release.uninstall().await
    })
    .await;
}

async fn deploy(test: &Test) -> Result<()> {
    let image = &test.cluster.tools_image;
    let block = json!({"volumeMode": "Block"});
    test.create(&with_spec(&claim("raw", "csi-a"), &block)?)
        .await?;
    let mut app = deployment("app", image, &stay(FILL), &[mount("raw")]);
    let mut set = stateful_set("db", 2, "csi-a", image, &stay(FILL), &[mount("raw")]);
    let (Some(app_spec), Some(set_spec)) = (&mut app.spec, &mut set.spec) else {
        unreachable!("both have a spec");
    };
    for template in [&mut app_spec.template, &mut set_spec.template] {
        template.spec.iter_mut().for_each(with_devices);
    }
    for claim in set_spec.volume_claim_templates.iter_mut().flatten() {
        *claim = with_spec(claim, &block)?;
    }
    test.create(&app).await?;
    test.create(&set).await?;
    let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    for pod in pods.values() {
        let filled = "until [ \"$(head -c 5 /dev/raw)\" = ready ]; do sleep 0.1; done";
        test.exec(pod, filled).await?;
    }
    Ok(())
}

async fn contents(test: &Test, pod: &str) -> Result<String> {
    test.exec(pod, "head -c 67108864 /dev/raw | sha256sum")
        .await
}
