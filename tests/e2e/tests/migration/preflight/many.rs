//! A run with many things wrong at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{
    LimitRange, Namespace, PersistentVolume, PersistentVolumeClaim, ResourceQuota,
};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::csi::{create_class, delete_class, volume_of, with_spec};
use pvmigrate_e2e::{Outside, Test, claim, deployment, mount, run_test, wait_for};
use serde_json::{Value, json};

use super::{UNCHANGED, create, no_trial_is_left, versions};

const FINALIZER: &str = "example.com/keep";

#[tokio::test]
async fn all_that_is_wrong_is_said_at_once_and_nothing_is_changed() {
    run_test("many-wrong", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        // Bound at once, and with all access modes.
        let access = [("access", "ReadWriteOnce,ReadWriteMany")];
        let class = create_class(test, "Immediate", &access).await?;
        let narrow = test.new_namespace("many-narrow").await?;
        let twin = set_the_scene(test, &class, &narrow).await?;
        let namespaces = [test.namespace.as_str(), narrow.as_str()];
        let before = versions(&test.cluster, &namespaces).await?;

        let outside = Outside::new(test).await?;
        let with_missing = [namespaces[0], namespaces[1], "no-such-namespace"];
        let end = outside.run([&class, "csi-b"], &with_missing, &[]).await?;
        let (ns, sentences) = (&test.namespace, sentences(&test.namespace, &narrow, &twin));
        let sentences: Vec<&str> = sentences.iter().map(String::as_str).collect();
        end.expect(3, &sentences)?.expect(3, &[UNCHANGED])?;
        no_trial_is_left(test).await?;
        let after = versions(&test.cluster, &namespaces).await?;
        ensure!(before == after, "it was {before:#?}\nand is {after:#?}");

        outside.remove().await?;
        let bare = json!({"metadata": {"finalizers": null}});
        for name in ["kept", "going"] {
            let claims = test.api::<PersistentVolumeClaim>();
            let patch = Patch::Merge(&bare);
            claims.patch(name, &PatchParams::default(), &patch).await?;
        }
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        for volume in [twin, format!("{ns}-lost")] {
            // One of a lost claim is gone already.
            if volumes.get_opt(&volume).await?.is_some() {
                volumes.delete(&volume, &DeleteParams::default()).await?;
            }
        }
        delete_class(test, &class).await
    })
    .await;
}

fn sentences(ns: &str, narrow: &str, twin: &str) -> Vec<String> {
    vec![
        "namespaces: namespace no-such-namespace does not exist".into(),
        format!(
            "claim {ns}/kept has the finalizer {FINALIZER}: it would not go while its owner wants to keep it"
        ),
        format!(
            "claim {ns}/owned is controlled by Database main: what that does about a missing claim is not known"
        ),
        format!("claim {ns}/going is being deleted: wait until it is gone"),
        format!(
            "claim {ns}/lost is Lost: its volume {ns}-lost does not exist any more; delete the claim, or leave it out"
        ),
        format!(
            "VolumeSnapshot waiting of claim {ns}/plain is not ready to use: wait until it is, or delete it"
        ),
        format!(
            "claim {ns}/copy is to become a clone of claim {ns}/plain and is not Bound: wait until it is, or delete it"
        ),
        format!(
            "claim {ns}/growing is being resized (Resizing, FileSystemResizePending): wait until that has ended"
        ),
        format!("the data of claim {ns}/plain is also that of volume {twin}: volumeHandle "),
        format!("no node is left for Deployment {ns}/nowhere after the move: of "),
        "(nodeSelector nowhere=here) leaves none".into(),
        format!(
            "StorageClass csi-b was tried for claims like {ns}/shared (ReadWriteMany, Filesystem), in vain: "
        ),
        "is not among ReadWriteOnce,ReadWriteOncePod".into(),
        format!(
            "quota {narrow}/claims allows 1 of persistentvolumeclaims, of which 1 are used, and the move needs 1 more: raise it for the time"
        ),
        format!(
            "quota {narrow}/claims allows 200Mi of requests.storage, of which 128Mi are used, and the move needs 128Mi more: raise it for the time"
        ),
        format!("a staging claim for claim {narrow}/large is not admitted: "),
        "maximum storage usage per PersistentVolumeClaim is 32Mi, but request is 128Mi".into(),
        format!("namespace {narrow} does not admit a mover: "),
        "violates PodSecurity \"restricted:latest\"".into(),
    ]
}

/// Returns the second volume object of claim `plain`'s data.
async fn set_the_scene(test: &Test, class: &str, narrow: &str) -> Result<String> {
    let many = json!({"accessModes": ["ReadWriteMany"]});
    for name in ["plain", "kept", "owned", "going", "growing", "unused"] {
        test.create(&claim(name, class)).await?;
    }
    test.create(&with_spec(&claim("shared", class), &many)?)
        .await?;
    let source = json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "plain"}});
    for name in [
        "plain", "kept", "owned", "going", "growing", "unused", "shared",
    ] {
        test.await_bound(name).await?;
    }
    // It waits for a pod that never comes.
    test.create(&with_spec(&claim("copy", "csi-a"), &source)?)
        .await?;
    let owner = json!({"apiVersion": "example.com/v1", "kind": "Database", "name": "main",
        "uid": test.api::<PersistentVolumeClaim>().get("plain").await?.uid(), "controller": true});
    let keep = json!({"metadata": {"finalizers": [FINALIZER, "kubernetes.io/pvc-protection"]}});
    change(test, "kept", &keep).await?;
    change(test, "going", &keep).await?;
    let claims = test.api::<PersistentVolumeClaim>();
    claims.delete("going", &DeleteParams::default()).await?;
    grow(test).await?;
    lose(test, class).await?;
    let twin = double(test).await?;
    snapshot(test).await?;
    let mut nowhere = deployment(
        "nowhere",
        &test.cluster.tools_image,
        "true",
        &[mount("unused")],
    );
    if let Some(spec) = &mut nowhere.spec {
        spec.replicas = Some(0);
        let pod = spec
            .template
            .spec
            .as_mut()
            .context("a template without a pod")?;
        pod.node_selector = Some([("nowhere".to_string(), "here".to_string())].into());
    }
    test.create(&nowhere).await?;
    // Collected as soon as the garbage collector sees that it has no such owner: last.
    change(
        test,
        "owned",
        &json!({"metadata": {"ownerReferences": [owner]}}),
    )
    .await?;
    narrow_down(test, class, narrow).await?;
    Ok(twin)
}

async fn change(test: &Test, claim: &str, patch: &Value) -> Result<()> {
    let claims = test.api::<PersistentVolumeClaim>();
    let params = PatchParams::default();
    claims.patch(claim, &params, &Patch::Merge(patch)).await?;
    Ok(())
}

/// The file system would grow under a pod, and there is none.
async fn grow(test: &Test) -> Result<()> {
    let more = json!({"spec": {"resources": {"requests": {"storage": "128Mi"}}}});
    change(test, "growing", &more).await?;
    wait_for("the resize to wait", Duration::from_secs(60), async || {
        let found = test.api::<PersistentVolumeClaim>().get("growing").await?;
        let status = serde_json::to_value(&found.status)?;
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let waits = conditions.any(|condition| condition["type"] == "FileSystemResizePending");
        ensure!(waits, "its status is {status}");
        Ok(())
    })
    .await
}

/// A claim whose volume object was taken away.
async fn lose(test: &Test, class: &str) -> Result<()> {
    let name = format!("{}-lost", test.namespace);
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    let volume = json!({
        "metadata": {"name": name},
        "spec": {"capacity": {"storage": "64Mi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": class, "hostPath": {"path": "/nowhere"},
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": test.namespace, "name": "lost"}},
    });
    volumes
        .create(&PostParams::default(), &serde_json::from_value(volume)?)
        .await?;
    let bound_to_it = json!({"volumeName": name});
    test.create(&with_spec(&claim("lost", class), &bound_to_it)?)
        .await?;
    test.await_bound("lost").await?;
    volumes.delete(&name, &DeleteParams::default()).await?;
    let bare = json!({"metadata": {"finalizers": null}});
    volumes
        .patch(&name, &PatchParams::default(), &Patch::Merge(&bare))
        .await?;
    wait_for(
        "the claim to be lost",
        Duration::from_secs(60),
        async || {
            let found = test.api::<PersistentVolumeClaim>().get("lost").await?;
            let phase = found.status.and_then(|status| status.phase);
            ensure!(phase.as_deref() == Some("Lost"), "it is {phase:?}");
            Ok(())
        },
    )
    .await
}

/// A second volume object of the same data.
async fn double(test: &Test) -> Result<String> {
    let volume = volume_of(test, "plain").await?;
    let twin = format!("{}-twin", test.namespace);
    let mut spec = serde_json::to_value(&volume.spec)?;
    spec["claimRef"] = Value::Null;
    spec["storageClassName"] = "none".into();
    spec["persistentVolumeReclaimPolicy"] = "Retain".into();
    let object = json!({"metadata": {"name": twin}, "spec": spec});
    Api::<PersistentVolume>::all(test.cluster.client.clone())
        .create(&PostParams::default(), &serde_json::from_value(object)?)
        .await?;
    Ok(twin)
}

/// One that waits for a class that there is not.
async fn snapshot(test: &Test) -> Result<()> {
    let kind = ApiResource {
        group: "snapshot.storage.k8s.io".into(),
        version: "v1".into(),
        api_version: "snapshot.storage.k8s.io/v1".into(),
        kind: "VolumeSnapshot".into(),
        plural: "volumesnapshots".into(),
    };
    let client = test.cluster.client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &test.namespace, &kind);
    let snapshot = DynamicObject::new("waiting", &kind).data(json!({"spec": {
        "volumeSnapshotClassName": "no-such-class",
        "source": {"persistentVolumeClaimName": "plain"},
    }}));
    api.create(&PostParams::default(), &snapshot).await?;
    let what = "the snapshot to say why it waits";
    wait_for(what, Duration::from_secs(60), async || {
        let status = api.get("waiting").await?.data["status"].clone();
        ensure!(status["error"].is_object(), "its status is {status}");
        Ok(())
    })
    .await
}

/// A claim in a namespace that allows no second one, none of its size, and no mover.
async fn narrow_down(test: &Test, class: &str, narrow: &str) -> Result<()> {
    let (cluster, size) = (&test.cluster, json!({"requests": {"storage": "128Mi"}}));
    let large = with_spec(&claim("large", class), &json!({"resources": size}))?;
    let api = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), narrow);
    api.create(&PostParams::default(), &large).await?;
    wait_for(
        "claim large to be Bound",
        Duration::from_secs(60),
        async || {
            let status = api.get("large").await?.status;
            let phase = status.and_then(|status| status.phase);
            ensure!(phase.as_deref() == Some("Bound"), "it is {phase:?}");
            Ok(())
        },
    )
    .await?;
    let limit = json!({"metadata": {"name": "small"}, "spec": {"limits": [
        {"type": "PersistentVolumeClaim", "max": {"storage": "32Mi"}}]}});
    create::<LimitRange>(cluster, narrow, limit).await?;
    let quota = json!({"metadata": {"name": "claims"}, "spec": {"hard": {
        "persistentvolumeclaims": "1", "requests.storage": "200Mi"}}});
    create::<ResourceQuota>(cluster, narrow, quota).await?;
    let quotas = Api::<ResourceQuota>::namespaced(cluster.client.clone(), narrow);
    wait_for(
        "the quota to be counted",
        Duration::from_secs(60),
        async || {
            let status = serde_json::to_value(quotas.get("claims").await?.status)?;
            let used = &status["used"]["persistentvolumeclaims"];
            ensure!(used == "1", "its status is {status}");
            Ok(())
        },
    )
    .await?;
    let label =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    Api::<Namespace>::all(cluster.client.clone())
        .patch(narrow, &PatchParams::default(), &Patch::Merge(label))
        .await?;
    Ok(())
}
