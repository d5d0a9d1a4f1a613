//! Recreate: a pod that nothing would make again is made again from its own manifest, which waits
//! in a Secret of its namespace.
//!
//! ```text
//! save   Secret with the manifest  →  (the pod is deleted with its grace)
//! make   pod from the manifest     →  Secret deleted
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::names;
use pvmigrate_record::record::{Frozen, Workload};
use serde_json::Value;

use super::find;
use crate::cluster::Cluster;
use crate::stop::Stop;
use crate::wait::wait_gone;

const MANIFEST: &str = "pod.json";
const MARK: &str = "frozen.json";
/// Where the ServiceAccount admission plugin mounts the token that it adds to each pod.
const TOKEN_VOLUME: &str = "kube-api-access-";

/// Keeps what the pod is made from, before it is deleted. One that an earlier Job has kept stays.
pub async fn save(
    cluster: &Cluster,
    workload: &Workload,
    mark: &Frozen,
) -> Result<Timestamp, Stop> {
    let secrets = secrets(cluster, workload);
    let name = secret_name(workload);
    if let Some(kept) = cluster.get(&secrets, &name).await? {
        return Ok(mark_in(&kept).map_or(mark.at, |mark| mark.at));
    }
    // One that has ended is not run a second time, and one that is gone cannot be.
    let Some(pod) = find(cluster, workload).await? else {
        return Ok(mark.at);
    };
    if matches!(
        pod.data["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    ) {
        return Ok(mark.at);
    }
    let json = serde_json::to_value(&pod).map_err(|error| Stop::Api(error.to_string()))?;
    let text = |value: &Value| ByteString(value.to_string().into_bytes());
    let mark_json = serde_json::to_value(mark).map_err(|error| Stop::Api(error.to_string()))?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(workload.namespace.clone()),
            labels: Some(BTreeMap::from([
                (names::RUN.into(), mark.run.clone()),
                (names::ROLE.into(), names::ROLE_MANIFEST.into()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            (MANIFEST.into(), text(&made_again(json))),
            (MARK.into(), text(&mark_json)),
        ])),
        ..Secret::default()
    };
    cluster.create(&secrets, &secret).await?;
    Ok(mark.at)
}

/// Makes the pod again, unless it exists. A manifest that was never kept means a pod that was never
/// deleted by us.
pub async fn make(cluster: &Cluster, workload: &Workload, limit: Duration) -> Result<(), Stop> {
    let secrets = secrets(cluster, workload);
    let Some(secret) = cluster.get(&secrets, &secret_name(workload)).await? else {
        return Ok(());
    };
    let pods: Api<Pod> = cluster.namespaced(&workload.namespace);
    let pod: Pod = serde_json::from_value(kept(&secret, workload)?)
        .map_err(|error| Stop::refused(format!("the manifest of {workload}: {error}")))?;
    loop {
        let made = cluster.create(&pods, &pod).await?;
        if made.metadata.deletion_timestamp.is_none() {
            break;
        }
        // The one that is on its way out: its name is free when it is gone.
        let uid = made.uid().unwrap_or_default();
        wait_gone(&pods, &workload.name, &uid, limit).await?;
    }
    cluster.delete(&secrets, secret, None, |_| Ok(())).await
}

/// What the pod is, or what is kept of it.
pub async fn manifest(cluster: &Cluster, workload: &Workload) -> Result<Value, Stop> {
    let secret = secrets(cluster, workload);
    if let Some(pod) = find(cluster, workload).await? {
        return serde_json::to_value(&pod).map_err(|error| Stop::Api(error.to_string()));
    }
    match cluster.get(&secret, &secret_name(workload)).await? {
        Some(secret) => kept(&secret, workload),
        None => Ok(Value::Null),
    }
}

fn secrets(cluster: &Cluster, workload: &Workload) -> Api<Secret> {
    cluster.namespaced(&workload.namespace)
}

fn secret_name(workload: &Workload) -> String {
    format!("pvmigrate-pod-{}", workload.uid)
}

fn kept(secret: &Secret, workload: &Workload) -> Result<Value, Stop> {
    let data = secret.data.as_ref().and_then(|data| data.get(MANIFEST));
    data.and_then(|bytes| serde_json::from_slice(&bytes.0).ok())
        .ok_or_else(|| {
            Stop::refused(format!(
                "Secret {} holds no manifest of {workload}",
                secret.name_any()
            ))
        })
}

fn mark_in(secret: &Secret) -> Option<Frozen> {
    let data = secret.data.as_ref()?.get(MARK)?;
    serde_json::from_slice(&data.0).ok()
}

/// A pod's manifest without what the cluster has added. Pure.
fn made_again(mut pod: Value) -> Value {
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
        "selfLink",
    ] {
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            metadata.remove(field);
        }
    }
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("status");
    }
    let is_token = |value: &Value| {
        let name = value["name"].as_str().unwrap_or_default();
        name.starts_with(TOKEN_VOLUME)
    };
    if let Some(spec) = pod["spec"].as_object_mut() {
        // Where the scheduler put it. Whoever wanted a node said so by selector or affinity.
        spec.remove("nodeName");
        if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
            volumes.retain(|volume| !is_token(volume));
        }
        // What is run by hand ends with its pod.
        spec.remove("ephemeralContainers");
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                    mounts.retain(|mount| !is_token(mount));
                }
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_is_made_again_without_what_the_cluster_has_added() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z", "managedFields": [], "generation": 1,
                "labels": {"app": "p"}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "nodeName": "n1", "nodeSelector": {"disk": "ssd"}, "serviceAccountName": "sa",
                "tolerations": [{"key": "db", "operator": "Exists"}],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "kube-api-access-x2b4c", "projected": {}}
                ],
                "containers": [{"name": "c", "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "kube-api-access-x2b4c", "mountPath": "/var/run/secrets"}
                ]}]
            },
            "status": {"phase": "Running"}
        });
        assert_eq!(
            made_again(pod),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": "n", "labels": {"app": "p"}},
                "spec": {
                    "nodeSelector": {"disk": "ssd"}, "serviceAccountName": "sa",
                    "tolerations": [{"key": "db", "operator": "Exists"}],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                    "containers": [{"name": "c", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]
                }
            })
        );
    }
}
