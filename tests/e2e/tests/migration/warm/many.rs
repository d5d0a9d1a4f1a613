//! 100,000 files, warm and cold, side by side.

use anyhow::{Result, ensure};
use pvmigrate_e2e::csi::{asks, with_spec};
use pvmigrate_e2e::{Test, claim, deployment, example, mount, run_test};

use serde_json::json;

use super::{APPEND, is_of, migrate, nothing_is_lost};

const FILL: &str = "mkdir -p /data/d && cd /data/d && for d in $(seq 100); do mkdir $d && \
    head -c 4096000 /dev/urandom | split -b 4096 -a 4 -d - $d/f || exit 1; done; find . -type f | wc -l";

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_files_on_local_volumes_are_away_for_as_long_as_few() {
    run_test("many-local", async |test| {
        let [source, dest] = test.cluster.classes.clone();
        side_by_side(test, &source, &dest).await
    })
    .await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_hundred_thousand_files_on_attached_volumes_are_away_for_as_long_as_few() {
    run_test("many-csi", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        side_by_side(test, "csi-a", "csi-b").await
    })
    .await;
}

/// There cold, and back warm: the same tree, and the same two classes.
async fn side_by_side(test: &Test, one: &str, other: &str) -> Result<()> {
    // ext4 has an inode for each 16 KiB.
    let size = json!({"resources": asks("4Gi")});
    test.create(&with_spec(&claim("data", one), &size)?).await?;
    let image = &test.cluster.tools_image;
    test.create(&deployment("app", image, &APPEND, &[mount("data")]))
        .await?;
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let files = test.exec(&pods["data"], FILL).await?;
    ensure!(files.trim() == "100000", "there are {files} files");
    let cold = moved(test, one, other, "false").await?;
    let warm = moved(test, other, one, "true").await?;
    println!(
        "{one} and {other}, 100000 files of 4 KiB: cold {cold:.1} s, warm {warm:.1} s, {:.1} times less",
        cold / warm
    );
    ensure!(
        warm < cold,
        "a warm copy saved nothing: {warm:.1} s, cold {cold:.1} s"
    );
    Ok(())
}

/// The downtime as the application's own lines show it.
async fn moved(test: &Test, from: &str, to: &str, warm: &str) -> Result<f64> {
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    test.exec(&pods["data"], "sync; tail -n 1 /data/log")
        .await?;
    let before = nothing_is_lost(test).await?;
    let value = format!("warm={warm}");
    let release = migrate(test, from, to, &["--set", &value]).await?;
    let end = release.ended().await?.expect(0, &["migrated"])?;
    for line in end.log.lines().filter(|line| line.contains("group")) {
        println!("{line}");
    }
    is_of(test, to).await?;
    // Silences before this run were shorter, or belong to it as well.
    let report = release.report().await?;
    let group = report["groups"]
        .as_object()
        .and_then(|all| all.values().next());
    let said = group.and_then(|group| group["downtimeSeconds"].as_f64());
    let silence = nothing_is_lost(test).await?;
    release.uninstall().await?;
    Ok(if silence > before {
        silence
    } else {
        said.unwrap_or(silence)
    })
}
