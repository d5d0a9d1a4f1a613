//! Who makes a workload's pods: from a pod up to the workload, and from the workload down.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject};
use pvmigrate_record::record::{Freezing, Workload};

use super::find;
use super::ready::job_has_ended;
use crate::cluster::Cluster;
use crate::observe::served;
use crate::stop::Stop;

/// How many owners may stand above each other.
const DEPTH: usize = 8;

/// Kubernetes' own kinds that control others or make pods.
const KINDS: [(&str, &str, &str); 7] = [
    ("apps/v1", "Deployment", "deployments"),
    ("apps/v1", "StatefulSet", "statefulsets"),
    ("apps/v1", "DaemonSet", "daemonsets"),
    ("apps/v1", "ReplicaSet", "replicasets"),
    ("batch/v1", "Job", "jobs"),
    ("batch/v1", "CronJob", "cronjobs"),
    ("v1", "ReplicationController", "replicationcontrollers"),
];

/// What controls an object.
pub fn controller_of<K: ResourceExt>(object: &K) -> Option<&OwnerReference> {
    let mut owners = object.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true))
}

/// How the workload that a pod belongs to is frozen; none if it belongs to none of these.
pub async fn freezing_of<'a>(
    cluster: &Cluster,
    pod: &Pod,
    all: &'a [Freezing],
) -> Result<Option<&'a Freezing>, Stop> {
    let by_uid = |uid: &str| all.iter().find(|freezing| freezing.workload.uid == uid);
    if let Some(found) = pod.uid().and_then(|uid| by_uid(&uid)) {
        return Ok(Some(found));
    }
    let namespace = pod.namespace().unwrap_or_default();
    let mut above = controller_of(pod).cloned();
    for _ in 0..DEPTH {
        let Some(owner) = above else { break };
        if let Some(found) = by_uid(&owner.uid) {
            return Ok(Some(found));
        }
        above = match referred(cluster, &namespace, &owner).await {
            Ok(object) => object.and_then(|object| controller_of(&object).cloned()),
            Err(Stop::Refused(why)) => {
                tracing::debug!(kind = %owner.kind, name = %owner.name, %why, "an owner cannot be read");
                None
            }
            Err(other) => return Err(other),
        };
    }
    Ok(None)
}

async fn referred(
    cluster: &Cluster,
    namespace: &str,
    owner: &OwnerReference,
) -> Result<Option<DynamicObject>, Stop> {
    let workload = Workload {
        api_version: owner.api_version.clone(),
        resource: resource(cluster, &owner.api_version, &owner.kind)
            .await?
            .plural,
        kind: owner.kind.clone(),
        namespace: namespace.into(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    };
    find(cluster, &workload).await
}

/// A kind as it stands in URLs: known, or asked for.
pub async fn resource(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
) -> Result<ApiResource, Stop> {
    let known = KINDS
        .iter()
        .find(|(version, name, _)| (*version, *name) == (api_version, kind));
    if let Some(known) = known {
        return Ok(known_resource(known));
    }
    match served(cluster, api_version, kind).await? {
        Some((resource, _)) => Ok(resource),
        None => Err(Stop::refused(format!(
            "the API server knows no {kind} of {api_version} that is in namespaces"
        ))),
    }
}

fn known_resource((api_version, kind, plural): &(&str, &str, &str)) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: (*api_version).into(),
        kind: (*kind).into(),
        plural: (*plural).into(),
    }
}

/// What stands between a workload and its pods: of those that it controls, also through others,
/// the ones that want pods.
pub async fn below(
    cluster: &Cluster,
    workload: &Workload,
) -> Result<Vec<(Workload, DynamicObject)>, Stop> {
    let mut all = all_below(cluster, workload).await?;
    all.retain(|(owner, object)| wants_pods(&owner.kind, object));
    Ok(all)
}

/// The same, also those that want no pods, such as the ReplicaSet of an earlier template.
pub async fn all_below(
    cluster: &Cluster,
    workload: &Workload,
) -> Result<Vec<(Workload, DynamicObject)>, Stop> {
    let kinds: Vec<_> = match workload.kind.as_str() {
        "Deployment" => vec!["ReplicaSet"],
        "CronJob" => vec!["Job"],
        "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "ReplicationController" | "Pod" => {
            return Ok(Vec::new());
        }
        _ => KINDS.iter().map(|(_, kind, _)| *kind).collect(),
    };
    let mut all = Vec::new();
    for known in KINDS.iter().filter(|(_, kind, _)| kinds.contains(kind)) {
        let resource = known_resource(known);
        let api = cluster.dynamic(&resource, &workload.namespace);
        let objects = match cluster.list(&api).await {
            Err(Stop::Refused(why)) => {
                tracing::warn!(%workload, %why, "what it controls cannot be listed");
                continue;
            }
            objects => objects?,
        };
        for object in objects {
            let owner = Workload {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
                resource: resource.plural.clone(),
                namespace: workload.namespace.clone(),
                name: object.name_any(),
                uid: object.uid().unwrap_or_default(),
            };
            all.push((owner, object));
        }
    }
    Ok(controlled(all, &workload.uid))
}

/// Those of `all` that are controlled by this UID, directly or not.
fn controlled(all: Vec<(Workload, DynamicObject)>, top: &str) -> Vec<(Workload, DynamicObject)> {
    let mut uids = vec![top.to_string()];
    for _ in 0..DEPTH {
        let found: Vec<String> = all
            .iter()
            .filter(|(owner, object)| {
                !uids.contains(&owner.uid)
                    && controller_of(object).is_some_and(|above| uids.contains(&above.uid))
            })
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        if found.is_empty() {
            break;
        }
        uids.extend(found);
    }
    let is_below = |owner: &Workload| owner.uid != top && uids.contains(&owner.uid);
    all.into_iter()
        .filter(|(owner, _)| is_below(owner))
        .collect()
}

fn wants_pods(kind: &str, object: &DynamicObject) -> bool {
    match kind {
        "Deployment" | "CronJob" => false,
        "DaemonSet" => true,
        "Job" => !job_has_ended(object),
        _ => object.data["spec"]["replicas"].as_i64() != Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(
        kind: &str,
        uid: &str,
        owner: &str,
        spec: &serde_json::Value,
    ) -> (Workload, DynamicObject) {
        let workload = Workload {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            resource: String::new(),
            namespace: "n".into(),
            name: uid.into(),
            uid: uid.into(),
        };
        let object = json!({
            "metadata": {"name": uid, "uid": uid, "ownerReferences": [
                {"apiVersion": "x/v1", "kind": "X", "name": owner, "uid": owner, "controller": true}
            ]},
            "spec": spec,
        });
        (workload, serde_json::from_value(object).unwrap())
    }

    #[test]
    fn what_stands_below_a_workload_is_found_through_others_and_what_of_it_wants_pods() {
        let all = vec![
            object("ReplicaSet", "new", "web", &json!({"replicas": 2})),
            object("ReplicaSet", "old", "web", &json!({"replicas": 0})),
            object("Deployment", "web", "operator", &json!({"replicas": 2})),
            object("ReplicaSet", "other", "elsewhere", &json!({"replicas": 1})),
            object("StatefulSet", "db", "operator", &json!({})),
        ];
        let found = |top: &str| -> Vec<String> {
            let found = controlled(all.clone(), top);
            found.into_iter().map(|(owner, _)| owner.uid).collect()
        };
        assert_eq!(found("web"), ["new", "old"]);
        assert_eq!(found("operator"), ["new", "old", "web", "db"]);
        assert!(found("nobody").is_empty());
        let wanting = all
            .iter()
            .filter(|(owner, object)| wants_pods(&owner.kind, object));
        let wanting: Vec<&str> = wanting.map(|(owner, _)| owner.uid.as_str()).collect();
        assert_eq!(wanting, ["new", "other", "db"]);
    }
}
