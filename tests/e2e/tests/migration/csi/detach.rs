//! A volume that two nodes have, and that one of them lets go of slowly.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{
    Fault, anchors_that_ran, attachments, attachments_at, create_class, delete_class, with_spec,
};
use pvmigrate_e2e::{Cluster, Test, bound, claim, deployment, mount, run_test, stay, wait_for};
use pvmigrate_record::names;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::Record;
use serde_json::json;

use super::{SCRIPT, start};

#[tokio::test]
async fn a_group_is_frozen_only_when_its_volume_is_detached_from_every_other_node() {
    run_test("slow-detach", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let shared = json!({"accessModes": ["ReadWriteMany"]});
        test.create(&with_spec(&claim("data", "csi-rwx"), &shared)?)
            .await?;
        let image = &test.cluster.tools_image;
        let app = deployment("app", image, &stay(SCRIPT), &[mount("data")]);
        test.create(&on_two_nodes(&app)?).await?;
        wait_for("a pod on each node", Duration::from_secs(90), async || {
            let app = test.api::<Deployment>().get("app").await?;
            let ready = app.status.and_then(|status| status.ready_replicas);
            ensure!(ready == Some(2), "{ready:?} are Ready");
            Ok(())
        })
        .await?;
        let source = bound(&test.cluster, &test.namespace, "data").await?.volume;
        let before = nodes(attachments(&test.cluster, &source.name_any()).await?);
        ensure!(before == Cluster::nodes(), "it is attached to {before:?}");

        let slow = Fault::inject(test, "data", json!({"call": "Detach", "slow": "6s"}))?;
        let dest =
            create_class(test, "WaitForFirstConsumer", &[("access", "ReadWriteMany")]).await?;
        let outcome = migrate(test, &source, &dest).await;
        delete_class(test, &dest).await?;
        drop(slow);
        outcome
    })
    .await;
}

async fn migrate(test: &Test, source: &PersistentVolume, dest: &str) -> Result<()> {
    let release = start(test, "csi-rwx", dest, &[]).await?;
    let frozen = frozen(test, source).await?;
    let end = release.ended().await?;

    // The mover keeps its own node's attachment; the other one is waited for, by name.
    let kept = nodes(frozen.attachments);
    ensure!(kept.len() == 1, "when frozen it is attached to {kept:?}");
    let other = Cluster::nodes().into_iter().find(|node| *node != kept[0]);
    let other = other.context("there is one node")?;
    let name = source.name_any();
    let waits = format!("volume {name} is still attached to node {other}");
    end.expect(0, &["migrated", &waits])?;
    let stopped = frozen.record.stopped.context("nothing was stopped")?;
    let took = frozen.record.times[&Phase::Frozen].duration_since(stopped);
    ensure!(took.as_secs() >= 6, "frozen {took:#} after the stop");
    // One beside its mover: volumes that many nodes may have are kept attached too.
    let ran = anchors_that_ran(test).await?;
    ensure!(ran == 1, "{ran} anchors ran");
    release.uninstall().await
}

/// What was true at the write that made a record Frozen.
struct AtFrozen {
    record: Record,
    attachments: Vec<VolumeAttachment>,
}

/// Waits for that write, from the volume as it was before. Clocks need not be compared: the API
/// server numbers the writes of all objects in one row, and shows what there was at any of them.
async fn frozen(test: &Test, source: &PersistentVolume) -> Result<AtFrozen> {
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    let name = source.name_any();
    let only = WatchParams::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(240);
    let version = source.resource_version().unwrap_or_default();
    let mut events = volumes.watch(&only, &version).await?.boxed();
    while let Some(event) = events.next().await {
        let WatchEvent::Modified(volume) = event? else {
            continue;
        };
        let Some(json) = volume.annotations().get(names::RECORD) else {
            continue;
        };
        let record = Record::parse(json)?;
        if record.times.contains_key(&Phase::Frozen) {
            let version = volume.resource_version().unwrap_or_default();
            let attachments = attachments_at(&test.cluster, &name, &version).await?;
            return Ok(AtFrozen {
                record,
                attachments,
            });
        }
    }
    bail!("the record of {name} never reached Frozen")
}

fn nodes(attachments: Vec<VolumeAttachment>) -> Vec<String> {
    let nodes = attachments.into_iter().map(|one| one.spec.node_name);
    let mut nodes: Vec<_> = nodes.collect();
    nodes.sort_unstable();
    nodes
}

/// Two pods that never share a node.
fn on_two_nodes(app: &Deployment) -> Result<Deployment> {
    let mut app = serde_json::to_value(app)?;
    let labels = app["spec"]["selector"].clone();
    app["spec"]["replicas"] = json!(2);
    app["spec"]["template"]["spec"]["affinity"] = json!({"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"}
        ]
    }});
    Ok(serde_json::from_value(app)?)
}
