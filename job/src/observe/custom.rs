//! Custom resources that control pods themselves.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use pvmigrate_record::record::Workload;

use super::{ObservedPod, ObservedWorkload, is_built_in};
use crate::cluster::{Cluster, retried};
use crate::stop::Stop;

/// Each owner of these pods that is of no kind that Kubernetes has. One whose kind is not served,
/// or belongs to no namespace, is left out.
pub async fn owners(
    cluster: &Cluster,
    pods: &[ObservedPod],
) -> Result<Vec<ObservedWorkload>, Stop> {
    let mut kinds = BTreeMap::new();
    let mut found: BTreeMap<String, ObservedWorkload> = BTreeMap::new();
    for pod in pods {
        let Some(owner) = &pod.controller else {
            continue;
        };
        let kind = (owner.api_version.clone(), owner.kind.clone());
        if found.contains_key(&owner.uid) || is_built_in(&kind.0, &kind.1) {
            continue;
        }
        if !kinds.contains_key(&kind) {
            kinds.insert(kind.clone(), served(cluster, &kind.0, &kind.1).await?);
        }
        if let Some((resource, capabilities)) = &kinds[&kind] {
            let namespace = &pod.workload.namespace;
            let seen = look(cluster, resource, capabilities, owner, namespace).await?;
            found.insert(owner.uid.clone(), seen);
        }
    }
    Ok(found.into_values().collect())
}

/// How the API serves a kind whose objects are in namespaces.
pub async fn served(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
) -> Result<Option<(ApiResource, ApiCapabilities)>, Stop> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let client = cluster.client();
    match retried(|| pinned_kind(&client, &gvk)).await {
        Ok(found) => Ok(Some(found).filter(|(_, caps)| caps.scope == Scope::Namespaced)),
        Err(kube::Error::Discovery(_)) => Ok(None),
        // Of a group that nobody serves the answer is no Status, and has no reason.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The owner as it is, as far as the Job may read it: the chart cannot know every kind, so what it
/// says in annotations counts only where `rbac.extraRules` let the Job get it.
async fn look(
    cluster: &Cluster,
    resource: &ApiResource,
    capabilities: &ApiCapabilities,
    owner: &OwnerReference,
    namespace: &str,
) -> Result<ObservedWorkload, Stop> {
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client(), namespace, resource);
    let seen = match retried(|| api.get_metadata_opt(&owner.name)).await {
        Ok(object) => object,
        Err(kube::Error::Api(status)) if status.is_forbidden() => None,
        Err(error) => return Err(error.into()),
    };
    let workload = Workload {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        resource: resource.plural.clone(),
        namespace: namespace.into(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    };
    let none = BTreeMap::new();
    let (labels, annotations) = seen.as_ref().map_or((&none, &none), |object| {
        (object.labels(), object.annotations())
    });
    let has_scale = capabilities
        .subresources
        .iter()
        .any(|(sub, _)| sub.plural == "scale");
    Ok(ObservedWorkload {
        has_scale,
        ..ObservedWorkload::of(workload, labels, annotations)
    })
}
