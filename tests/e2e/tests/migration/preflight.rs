//! What preflight says of a real cluster, check by check. The Job runs outside the cluster, with the
//! rights of the chart's roles: it ends before anything of the chart is needed.

mod backends;
mod claims;
mod early;
mod many;
mod notes;
mod releases;
mod scale;
mod storage;
mod trial;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    LimitRange, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota,
};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{ListParams, PostParams};
use kube::{Api, Resource, ResourceExt};
use pvmigrate_e2e::{Cluster, Test, settled, wait_for};
use serde_json::Value;

/// What a refused run says last.
const UNCHANGED: &str = "nothing was changed";

/// The resourceVersions of all that a run could have changed in these namespaces, and of the
/// volumes of their claims; and every object there is. Workloads have settled before.
pub async fn versions(cluster: &Cluster, namespaces: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for namespace in namespaces {
        settled(cluster, namespace).await?;
        all.extend(in_namespace::<PersistentVolumeClaim>(cluster, namespace).await?);
        all.extend(in_namespace::<Pod>(cluster, namespace).await?);
        all.extend(in_namespace::<Deployment>(cluster, namespace).await?);
        all.extend(in_namespace::<LimitRange>(cluster, namespace).await?);
        all.extend(in_namespace::<ResourceQuota>(cluster, namespace).await?);
    }
    let volumes = Api::<PersistentVolume>::all(cluster.client.clone());
    for volume in volumes.list(&ListParams::default()).await? {
        let spec = volume.spec.clone().unwrap_or_default();
        let held = spec.claim_ref.and_then(|held| held.namespace);
        if held.is_some_and(|held| namespaces.contains(&held.as_str())) {
            all.insert(
                volume.name_any(),
                volume.resource_version().unwrap_or_default(),
            );
        }
    }
    Ok(all)
}

async fn in_namespace<K>(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, String>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(cluster.client.clone(), namespace);
    let all = api.list(&ListParams::default()).await?;
    let version = |object: &K| {
        let name = format!("{} {namespace}/{}", K::kind(&()), object.name_any());
        (name, object.resource_version().unwrap_or_default())
    };
    Ok(all.items.iter().map(version).collect())
}

/// Creates an object from its JSON in some namespace.
async fn create<K>(cluster: &Cluster, namespace: &str, object: Value) -> Result<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Serialize
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api = Api::<K>::namespaced(cluster.client.clone(), namespace);
    let object = serde_json::from_value(object)?;
    Ok(api.create(&PostParams::default(), &object).await?)
}

/// Waits until nothing of a trial is left in the test's namespace, and no volume: these are for
/// their provisioner to delete, and not waited for by the Job.
pub async fn no_trial_is_left(test: &Test) -> Result<()> {
    wait_for(
        "all of the trials to be gone",
        Duration::from_secs(120),
        async || {
            let left = left_of_trials(test).await?;
            ensure!(left.is_empty(), "trials have left {left:?}");
            Ok(())
        },
    )
    .await
}

async fn left_of_trials(test: &Test) -> Result<Vec<String>> {
    let claims = test.api::<PersistentVolumeClaim>();
    let pods = test.api::<Pod>();
    let mut left: Vec<String> = Vec::new();
    for claim in claims.list(&ListParams::default()).await? {
        left.push(claim.name_any());
    }
    for pod in pods.list(&ListParams::default()).await? {
        left.push(pod.name_any());
    }
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    for volume in volumes.list(&ListParams::default()).await? {
        let held = volume.spec.clone().and_then(|spec| spec.claim_ref);
        let held = held.unwrap_or_default();
        if held.namespace.as_deref() == Some(&test.namespace) {
            left.extend(held.name);
        }
    }
    // Trials have names of their own, or those of a staging claim and its mover.
    left.retain(|name| name.starts_with("pvmigrate-"));
    Ok(left)
}
