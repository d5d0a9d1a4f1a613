use anyhow::ensure;
use pvmigrate_e2e::csi::{as_devices, end_pod, on_node, volume_of, with_spec};
use pvmigrate_e2e::{claim, run_test};
use serde_json::json;

use crate::{app, capacity};

#[tokio::test]
async fn each_file_system_is_there_and_rounds_a_small_claim_up() {
    run_test("csi-file-systems", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        for (name, class) in [("one", "csi-a"), ("two", "csi-b"), ("three", "csi-btrfs")] {
            test.create(&claim(name, class)).await?;
        }
        test.create(&app(test, "app", "", &["one", "two", "three"]))
            .await?;
        test.await_ready("app").await?;
        let kinds = test.exec("app", "stat -f -c %T /one /two /three").await?;
        ensure!(kinds == "ext2/ext3\nxfs\nbtrfs\n", "they are {kinds}");
        for (name, size) in [("one", "64Mi"), ("two", "301Mi"), ("three", "256Mi")] {
            ensure!(capacity(test, name).await? == size, "{name} is not {size}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_raw_block_volume_keeps_its_bytes_on_its_way_to_another_node() {
    run_test("csi-block", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let raw = with_spec(&claim("raw", "csi-block"), &json!({"volumeMode": "Block"}))?;
        test.create(&raw).await?;
        let writer = as_devices(app(test, "writer", "", &["raw"]));
        test.create(&on_node(writer, "node-a")).await?;
        test.await_ready("writer").await?;
        test.exec(
            "writer",
            "test -b /dev/raw && printf kept | dd of=/dev/raw conv=fsync",
        )
        .await?;
        end_pod(test, "writer").await?;
        let reader = as_devices(app(test, "reader", "", &["raw"]));
        test.create(&on_node(reader, "node-b")).await?;
        test.await_ready("reader").await?;
        let bytes = test.exec("reader", "head -c 4 /dev/raw").await?;
        ensure!(bytes == "kept", "it holds {bytes:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_immediate_claim_is_bound_without_a_pod_and_reaches_every_node() {
    run_test("csi-immediate", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("now", "csi-now")).await?;
        let volume = volume_of(test, "now").await?;
        let affinity = volume.spec.and_then(|spec| spec.node_affinity);
        ensure!(affinity.is_none(), "it lives at {affinity:?}");
        Ok(())
    })
    .await;
}
