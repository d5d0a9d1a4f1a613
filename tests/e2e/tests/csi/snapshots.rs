use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{Fault, asks, on_node, volume_of, with_spec};
use pvmigrate_e2e::{Test, claim, run_test, wait_for};
use serde_json::{Value, json};

use crate::{app, bytes};

#[tokio::test]
async fn a_snapshot_and_a_clone_hold_what_was_there_when_they_were_made() {
    run_test("csi-copies", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-b")).await?;
        let node = |pod| on_node(pod, "node-a");
        test.create(&node(app(test, "app", "", &["data"]))).await?;
        test.await_ready("app").await?;
        // By its script, it might come after the snapshot.
        test.exec("app", "echo one >/data/file; sync").await?;
        let snapshots = create_snapshot(test, "taken", "data").await?;
        await_snapshot(&snapshots, "taken").await?;
        test.exec("app", "echo two >/data/file").await?;
        let sources = [
            ("cloned", json!({"kind": "PersistentVolumeClaim", "name": "data"})),
            (
                "restored",
                json!({
                    "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "taken",
                }),
            ),
        ];
        for (name, source) in sources {
            // Larger than its source, too.
            let fields = json!({"dataSource": source, "resources": asks("350Mi")});
            test.create(&with_spec(&claim(name, "csi-b"), &fields)?).await?;
        }
        // On the node of the source, where all three are mounted at a time.
        test.create(&node(app(test, "copies", "", &["cloned", "restored"])))
            .await?;
        test.await_ready("copies").await?;
        let seen = test
            .exec("copies", "cat /cloned/file /restored/file")
            .await?;
        ensure!(seen == "two\none\n", "clone and snapshot hold {seen:?}");
        let blocks = test.exec("copies", "stat -f -c '%b %S' /cloned").await?;
        ensure!(bytes(&blocks)? > 270 << 20, "the clone has {blocks}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_fails_as_long_as_it_is_asked_to() {
    run_test("csi-fail-snapshot", async |test| {
        let rule = json!({"call": "Snapshot", "fail": "too many of them"});
        let Some(fault) = Fault::inject(test, "data", rule)? else {
            return Ok(());
        };
        test.create(&claim("data", "csi-now")).await?;
        volume_of(test, "data").await?;
        let api = create_snapshot(test, "taken", "data").await?;
        let what = "the snapshot to say why it fails";
        wait_for(what, Duration::from_secs(60), async || {
            let status = &api.get("taken").await?.data["status"];
            let said = status["error"]["message"].as_str().unwrap_or_default();
            ensure!(
                said.contains("Snapshot fails as asked: too many of them"),
                "its status is {status}"
            );
            Ok(())
        })
        .await?;
        drop(fault);
        await_snapshot(&api, "taken").await
    })
    .await;
}

async fn create_snapshot(test: &Test, name: &str, claim: &str) -> Result<Api<DynamicObject>> {
    let kind = ApiResource {
        group: "snapshot.storage.k8s.io".into(),
        version: "v1".into(),
        api_version: "snapshot.storage.k8s.io/v1".into(),
        kind: "VolumeSnapshot".into(),
        plural: "volumesnapshots".into(),
    };
    let api: Api<DynamicObject> =
        Api::namespaced_with(test.cluster.client.clone(), &test.namespace, &kind);
    let snapshot = DynamicObject::new(name, &kind).data(json!({"spec": {
        "volumeSnapshotClassName": "csi",
        "source": {"persistentVolumeClaimName": claim},
    }}));
    api.create(&PostParams::default(), &snapshot).await?;
    Ok(api)
}

async fn await_snapshot(api: &Api<DynamicObject>, name: &str) -> Result<()> {
    let what = format!("snapshot {name} to be ready");
    wait_for(&what, Duration::from_secs(60), async || {
        let found = api.get(name).await?;
        let ready = found.data["status"]["readyToUse"] == Value::Bool(true);
        ensure!(ready, "{} is {}", found.name_any(), found.data["status"]);
        Ok(())
    })
    .await
}
