//! What volumes of the test bed's CSI driver do that local-path's do not. On another cluster these
//! test nothing: the classes are the test bed's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{as_devices, asks, end_pod, on_node, volume_of, with_spec};
use pvmigrate_e2e::{Test, claim, mount, pod, run_test, stay, wait_for};
use serde_json::{Value, json};

fn app(test: &Test, name: &str, script: &str, claims: &[&str]) -> Pod {
    let mounts: Vec<_> = claims.iter().map(|claim| mount(claim)).collect();
    pod(name, &test.cluster.tools_image, &stay(script), &mounts)
}

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

#[tokio::test]
async fn a_volume_of_one_node_says_so_and_pods_follow_it() {
    run_test("csi-topology", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-node")).await?;
        test.create(&on_node(app(test, "first", "", &["data"]), "node-b"))
            .await?;
        test.await_ready("first").await?;
        let volume = serde_json::to_value(volume_of(test, "data").await?)?;
        let expressions =
            &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"];
        let wanted = json!({"key": "loop.csi.test/node", "operator": "In", "values": ["node-b"]});
        ensure!(
            expressions
                .as_array()
                .is_some_and(|all| all.contains(&wanted)),
            "it lives at {expressions}"
        );
        test.create(&app(test, "second", "", &["data"])).await?;
        let second = test.await_ready("second").await?;
        let node = second.spec.and_then(|spec| spec.node_name);
        ensure!(node.as_deref() == Some("node-b"), "it runs on {node:?}");
        test.create(&on_node(app(test, "third", "", &["data"]), "node-a"))
            .await?;
        await_unschedulable(test, "third", "node affinity").await
    })
    .await;
}

#[tokio::test]
async fn a_volume_grows_under_its_pod() {
    run_test("csi-grow-online", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-b")).await?;
        test.create(&app(test, "app", "", &["data"])).await?;
        test.await_ready("app").await?;
        grow(test, "data", "400Mi").await?;
        await_capacity(test, "data", "400Mi", async || {
            // The kubelet looks again at a pod that changes, and at others once a minute.
            let now = format!("{:?}", std::time::Instant::now());
            let patch = json!({"metadata": {"annotations": {"look-again": now}}});
            let pods = test.api::<Pod>();
            pods.patch("app", &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
            Ok(())
        })
        .await?;
        let blocks = test.exec("app", "stat -f -c '%b %S' /data").await?;
        ensure!(bytes(&blocks)? > 320 << 20, "it has {blocks}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_ext4_volume_has_grown_when_its_pod_starts_again() {
    run_test("csi-grow-ext4", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-a")).await?;
        test.create(&app(test, "first", "echo kept >/data/file", &["data"]))
            .await?;
        test.await_ready("first").await?;
        grow(test, "data", "200Mi").await?;
        end_pod(test, "first").await?;
        test.create(&app(test, "second", "", &["data"])).await?;
        test.await_ready("second").await?;
        await_capacity(test, "data", "200Mi", async || Ok(())).await?;
        let seen = test
            .exec("second", "stat -f -c '%b %S' /data; cat /data/file")
            .await?;
        let (blocks, kept) = seen.split_once('\n').context("two lines")?;
        ensure!(
            bytes(blocks)? > 160 << 20 && kept == "kept\n",
            "it has {seen}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_class_without_expansion_refuses_it() {
    run_test("csi-fixed", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-fixed")).await?;
        test.create(&app(test, "app", "", &["data"])).await?;
        test.await_bound("data").await?;
        let refused = grow(test, "data", "200Mi").await;
        let error = refused.err().context("it was let")?;
        ensure!(
            matches!(
                error.downcast_ref::<kube::Error>(),
                Some(kube::Error::Api(status)) if status.code == 403
                    && status.message.contains("must support resize")
            ),
            "it was refused with {error:#}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_and_a_clone_hold_what_was_there_when_they_were_made() {
    run_test("csi-copies", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-b")).await?;
        let node = |pod| on_node(pod, "node-a");
        test.create(&node(app(test, "app", "echo one >/data/file; sync", &["data"])))
            .await?;
        test.await_ready("app").await?;
        take_snapshot(test, "taken", "data").await?;
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

async fn take_snapshot(test: &Test, name: &str, claim: &str) -> Result<()> {
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
    let what = format!("snapshot {name} to be ready");
    wait_for(&what, Duration::from_secs(60), async || {
        let found = api.get(name).await?;
        let ready = found.data["status"]["readyToUse"] == Value::Bool(true);
        ensure!(ready, "{} is {}", found.name_any(), found.data["status"]);
        Ok(())
    })
    .await
}

async fn grow(test: &Test, claim: &str, size: &str) -> Result<()> {
    let patch = json!({"spec": {"resources": asks(size)}});
    test.api::<PersistentVolumeClaim>()
        .patch(claim, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn capacity(test: &Test, claim: &str) -> Result<String> {
    let found = test.api::<PersistentVolumeClaim>().get(claim).await?;
    let size = found
        .status
        .and_then(|status| status.capacity)
        .and_then(|capacity| capacity.get("storage").cloned());
    Ok(size.context("a claim without a capacity")?.0)
}

async fn await_capacity(
    test: &Test,
    claim: &str,
    size: &str,
    nudge: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let what = format!("claim {claim} to have {size}");
    wait_for(&what, Duration::from_secs(120), async || {
        let has = capacity(test, claim).await?;
        if has != size {
            nudge().await?;
        }
        ensure!(has == size, "it has {has}");
        Ok(())
    })
    .await
}

/// Of what `stat -f -c '%b %S'` prints.
fn bytes(printed: &str) -> Result<u64> {
    let (blocks, size) = printed.trim().split_once(' ').context("two numbers")?;
    Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
}

async fn await_unschedulable(test: &Test, name: &str, because: &str) -> Result<()> {
    let what = format!("pod {name} to be unschedulable: {because}");
    wait_for(&what, Duration::from_secs(60), async || {
        let found = test.api::<Pod>().get(name).await?;
        let conditions = found.status.and_then(|status| status.conditions);
        let said: Vec<_> = conditions
            .into_iter()
            .flatten()
            .filter_map(|condition| condition.message)
            .collect();
        ensure!(
            said.iter().any(|message| message.contains(because)),
            "its conditions say {said:?}"
        );
        Ok(())
    })
    .await
}
