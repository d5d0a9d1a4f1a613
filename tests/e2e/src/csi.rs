//! The test bed's CSI driver, as tests use it: its objects, and what goes wrong on request.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{
    Event, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, VolumeDevice,
};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::api::{DeleteParams, ListParams, PostParams, VersionMatch};
use kube::{Api, ResourceExt};
use pvmigrate_testbed::{CSI_DRIVER, csi_faults_folder};
use serde_json::{Value, json};

use crate::{Cluster, Test, wait_for};

/// Makes calls of the driver slow or fail for as long as it lives.
pub struct Fault {
    file: PathBuf,
}

impl Fault {
    /// A rule as the driver's `faults.go` describes it, for one claim of the test's namespace.
    /// `None` on a cluster that is not the test bed.
    pub fn inject(test: &Test, claim: &str, mut rule: Value) -> Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(bed) = test.bed() else {
            return Ok(None);
        };
        rule["claim"] = format!("{}/{claim}", test.namespace).into();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = csi_faults_folder(bed).join(format!("{}-{number}.json", test.namespace));
        // The driver never reads half a rule.
        let partial = file.with_extension("partial");
        fs::write(&partial, rule.to_string())
            .and_then(|()| fs::rename(&partial, &file))
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(Some(Self { file }))
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // Its folder is gone when the test bed is.
        let _ = fs::remove_file(&self.file);
    }
}

/// A class of the test's own, with parameters that are described in the driver's `parameters.go`.
/// Whoever makes it deletes it: classes have no namespace.
pub async fn create_class(
    test: &Test,
    binding: &str,
    parameters: &[(&str, &str)],
) -> Result<String> {
    create_class_named(test, &test.namespace, binding, parameters).await
}

/// The same, for a test that needs several: what is known of a class outlives it for a moment, so
/// none gets the name of an earlier one.
pub async fn create_class_named(
    test: &Test,
    name: &str,
    binding: &str,
    parameters: &[(&str, &str)],
) -> Result<String> {
    let parameters: BTreeMap<_, _> = parameters
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut class = StorageClass {
        provisioner: CSI_DRIVER.into(),
        parameters: Some(parameters),
        volume_binding_mode: Some(binding.into()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    };
    class.metadata.name = Some(name.into());
    let api = Api::<StorageClass>::all(test.cluster.client.clone());
    let created = api.create(&PostParams::default(), &class).await?;
    Ok(created.name_any())
}

pub async fn delete_class(test: &Test, name: &str) -> Result<()> {
    let api = Api::<StorageClass>::all(test.cluster.client.clone());
    api.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// The pod, to run on this node only.
pub fn on_node(mut pod: Pod, node: &str) -> Pod {
    if let Some(spec) = pod.spec.as_mut() {
        spec.node_selector = Some(BTreeMap::from([(
            "kubernetes.io/hostname".into(),
            node.into(),
        )]));
    }
    pod
}

/// The pod, with what it mounts as devices under `/dev` instead.
pub fn as_devices(mut pod: Pod) -> Pod {
    pod.spec.iter_mut().for_each(with_devices);
    pod
}

/// The same in the spec of a pod, or of a template.
pub fn with_devices(spec: &mut PodSpec) {
    for container in &mut spec.containers {
        let mounts = container.volume_mounts.take().unwrap_or_default();
        let devices = mounts.into_iter().map(|mount| VolumeDevice {
            device_path: format!("/dev/{}", mount.name),
            name: mount.name,
        });
        container.volume_devices = Some(devices.collect());
    }
}

/// The claim with another size or mode: fields of its spec, to be merged.
pub fn with_spec(claim: &PersistentVolumeClaim, fields: &Value) -> Result<PersistentVolumeClaim> {
    let mut whole = serde_json::to_value(claim)?;
    for (key, value) in fields.as_object().into_iter().flatten() {
        whole["spec"][key] = value.clone();
    }
    Ok(serde_json::from_value(whole)?)
}

/// What a claim asks for when it asks for so much.
pub fn asks(size: &str) -> Value {
    json!({"requests": {"storage": size}})
}

/// The volume of a claim that is bound.
pub async fn volume_of(test: &Test, claim: &str) -> Result<PersistentVolume> {
    let claim = test.await_bound(claim).await?;
    let name = claim.spec.and_then(|spec| spec.volume_name);
    let name = name.context("a bound claim without a volume")?;
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    Ok(volumes.get(&name).await?)
}

/// Where a volume is attached, or being attached or detached.
pub async fn attachments(cluster: &Cluster, volume: &str) -> Result<Vec<VolumeAttachment>> {
    listed(cluster, volume, &ListParams::default()).await
}

/// Where it was at some write to the cluster, of whatever object.
pub async fn attachments_at(
    cluster: &Cluster,
    volume: &str,
    version: &str,
) -> Result<Vec<VolumeAttachment>> {
    let then = ListParams::default()
        .at(version)
        .matching(VersionMatch::Exact);
    listed(cluster, volume, &then).await
}

async fn listed(
    cluster: &Cluster,
    volume: &str,
    params: &ListParams,
) -> Result<Vec<VolumeAttachment>> {
    let api = Api::<VolumeAttachment>::all(cluster.client.clone());
    let all = api.list(params).await?;
    let of = |attachment: &VolumeAttachment| {
        attachment.spec.source.persistent_volume_name.as_deref() == Some(volume)
    };
    Ok(all.items.into_iter().filter(of).collect())
}

/// How many anchors have run in the test's namespace, by what their kubelets said.
pub async fn anchors_that_ran(test: &Test) -> Result<usize> {
    let events = test.api::<Event>().list(&ListParams::default()).await?;
    let names = events.items.into_iter().filter_map(|event| {
        let name = event.involved_object.name?;
        let ran = event.reason.as_deref() == Some("Started") && name.ends_with("-anchor");
        ran.then_some(name)
    });
    Ok(names.collect::<BTreeSet<_>>().len())
}

/// Waits until a volume is attached to nothing.
pub async fn await_detached(cluster: &Cluster, volume: &str) -> Result<()> {
    let what = format!("volume {volume} to be detached");
    wait_for(&what, Duration::from_secs(60), async || {
        let left = attachments(cluster, volume).await?;
        ensure!(left.is_empty(), "it is {:?}", left[0].spec);
        Ok(())
    })
    .await
}

/// Waits until an object of the test's namespace, or a volume, has an event that says this.
pub async fn await_event(test: &Test, object: &str, says: &str) -> Result<()> {
    let what = format!("an event of {object} that says {says:?}");
    wait_for(&what, Duration::from_secs(60), async || {
        let fields = format!("involvedObject.name={object}");
        // Events of volumes, which have no namespace, are in `default`.
        let events = Api::<Event>::all(test.cluster.client.clone());
        let all = events.list(&ListParams::default().fields(&fields)).await?;
        let said: Vec<_> = all
            .items
            .into_iter()
            .filter(|event| {
                let namespace = event.involved_object.namespace.as_ref();
                namespace.is_none_or(|namespace| *namespace == test.namespace)
            })
            .filter_map(|event| event.message)
            .collect();
        ensure!(
            said.iter().any(|message| message.contains(says)),
            "they say {said:#?}"
        );
        Ok(())
    })
    .await
}

/// Deletes a pod and waits until it is gone.
pub async fn end_pod(test: &Test, name: &str) -> Result<()> {
    let pods = test.api::<Pod>();
    pods.delete(name, &DeleteParams::default()).await?;
    let what = format!("pod {name} to be gone");
    wait_for(&what, Duration::from_secs(60), async || {
        let found = pods.get_opt(name).await?;
        ensure!(found.is_none(), "it is still there");
        Ok(())
    })
    .await
}
