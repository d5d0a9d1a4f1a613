//! Workloads whose controllers have nothing more to write.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};

use crate::{Cluster, wait_for};

/// Waits until the Deployments and StatefulSets of a namespace say of themselves that they have what
/// they ask for. Their controllers write that some time after the pods are Ready, and each time the
/// object is another.
pub async fn settled(cluster: &Cluster, namespace: &str) -> Result<()> {
    let what = format!("the workloads of {namespace} to settle");
    wait_for(&what, Duration::from_secs(90), async || {
        have_what_they_want::<Deployment>(cluster, namespace).await?;
        have_what_they_want::<StatefulSet>(cluster, namespace).await
    })
    .await
}

async fn have_what_they_want<K>(cluster: &Cluster, namespace: &str) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(cluster.client.clone(), namespace);
    for workload in api.list(&ListParams::default()).await? {
        let object = serde_json::to_value(&workload)?;
        let (wanted, status) = (&object["spec"]["replicas"], &object["status"]);
        let is_seen = status["observedGeneration"] == object["metadata"]["generation"];
        // What is 0 is left out.
        let available = status["availableReplicas"].as_u64().unwrap_or_default();
        ensure!(
            is_seen && Some(available) == wanted.as_u64(),
            "{} {} has {status}",
            K::kind(&()),
            workload.name_any()
        );
    }
    Ok(())
}
