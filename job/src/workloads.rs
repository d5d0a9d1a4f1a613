//! Stopping workloads and starting them again as they were.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::PodSpec;
use kube::{Resource, ResourceExt};
use pvmigrate_record::names;
use pvmigrate_record::record::{Frozen, Workload};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Object};
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// How long a controller may take to see a change of its object.
const OBSERVED_LIMIT: Duration = Duration::from_secs(60);

/// Calls a function for the kind that a workload is of.
macro_rules! for_kind {
    ($workload:expr, $function:ident($($argument:expr),*)) => {
        match $workload.kind.as_str() {
            "Deployment" => $function::<Deployment>($($argument),*).await,
            "StatefulSet" => $function::<StatefulSet>($($argument),*).await,
            "ReplicaSet" => $function::<ReplicaSet>($($argument),*).await,
            _ => Err(Stop::refused(format!("{} cannot be scaled by this version", $workload))),
        }
    };
}

/// Stops a workload: how it was and its zero replicas are one write. Returns when it was stopped,
/// which may be by an earlier Job.
pub async fn stop(
    cluster: &Cluster,
    workload: &Workload,
    mark: &Frozen,
) -> Result<Timestamp, Stop> {
    for_kind!(workload, stop_as(cluster, workload, mark))
}

/// Starts a workload as it was. One that somebody changed meanwhile is left as it is; one that a
/// newer Job has stopped is not ours to start.
pub async fn start(cluster: &Cluster, workload: &Workload, epoch: u64) -> Result<(), Stop> {
    for_kind!(workload, start_as(cluster, workload, epoch))
}

/// Waits until all replicas are Ready; returns what is missing if they are not in time.
pub async fn wait_ready(
    cluster: &Cluster,
    workload: &Workload,
    limit: Duration,
) -> Result<(), Stop> {
    for_kind!(workload, wait_ready_as(cluster, workload, limit))
}

/// The spec that a workload's pods are made from.
pub async fn pod_spec(cluster: &Cluster, workload: &Workload) -> Result<PodSpec, Stop> {
    for_kind!(workload, pod_spec_as(cluster, workload))
}

/// Whether a workload of this name exists with its UID.
pub async fn exists(cluster: &Cluster, workload: &Workload) -> Result<bool, Stop> {
    for_kind!(workload, exists_as(cluster, workload))
}

async fn exists_as<K>(cluster: &Cluster, workload: &Workload) -> Result<bool, Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    Ok(find::<K>(cluster, workload).await?.is_some())
}

async fn get<K>(cluster: &Cluster, workload: &Workload) -> Result<K, Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let found = find(cluster, workload).await?;
    found.ok_or_else(|| Stop::refused(format!("{workload} does not exist any more")))
}

/// The workload of this name, if it is the one with this UID.
async fn find<K>(cluster: &Cluster, workload: &Workload) -> Result<Option<K>, Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api = cluster.namespaced::<K>(&workload.namespace);
    let found = cluster.get(&api, &workload.name).await?;
    Ok(found.filter(|object| object.uid().as_deref() == Some(workload.uid.as_str())))
}

/// The parts of a workload that stopping and starting looks at, whatever its kind.
struct View {
    json: Value,
    frozen: Option<Frozen>,
}

impl View {
    fn of<K: Object>(object: &K, workload: &Workload) -> Result<Self, Stop> {
        let frozen = object.annotations().get(names::FROZEN);
        let frozen = frozen
            .map(|json| serde_json::from_str(json))
            .transpose()
            .map_err(|error| {
                Stop::refused(format!(
                    "{workload} has an annotation {} that cannot be read: {error}",
                    names::FROZEN
                ))
            })?;
        let json = serde_json::to_value(object).map_err(|error| Stop::Api(error.to_string()))?;
        Ok(Self { json, frozen })
    }

    fn replicas(&self) -> i64 {
        self.json["spec"]["replicas"].as_i64().unwrap_or(1)
    }

    fn when_scaled(&self) -> Option<&str> {
        self.json["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"].as_str()
    }

    fn is_observed(&self) -> bool {
        self.json["status"]["observedGeneration"].as_i64()
            >= self.json["metadata"]["generation"].as_i64()
    }
}

fn mark_patch(mark: &Frozen) -> Result<Value, Stop> {
    let text = serde_json::to_string(mark).map_err(|error| Stop::Api(error.to_string()))?;
    Ok(json!({"metadata": {"annotations": {names::FROZEN: text}}}))
}

async fn stop_as<K>(
    cluster: &Cluster,
    workload: &Workload,
    mark: &Frozen,
) -> Result<Timestamp, Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api = cluster.namespaced::<K>(&workload.namespace);
    let mut state = get::<K>(cluster, workload).await?;
    // A set that deletes claims when it is scaled down has to be told not to, and to have heard.
    if View::of(&state, workload)?.when_scaled() == Some("Delete") {
        state = cluster
            .update(&api, state, |state| {
                let view = View::of(state, workload)?;
                if view.when_scaled() != Some("Delete") {
                    return Ok(None);
                }
                let was = marked(&view, workload, mark)?;
                let mut patch = mark_patch(&Frozen {
                    when_scaled: Some("Delete".into()),
                    ..was
                })?;
                patch["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] =
                    json!("Retain");
                Ok(Some(patch))
            })
            .await?;
        wait_observed::<K>(cluster, workload).await?;
    }
    let state = cluster
        .update(&api, state, |state| {
            let view = View::of(state, workload)?;
            let was = marked(&view, workload, mark)?;
            if view.replicas() == 0 && view.frozen.as_ref() == Some(&was) {
                return Ok(None);
            }
            let mut patch = mark_patch(&was)?;
            patch["spec"]["replicas"] = json!(0);
            Ok(Some(patch))
        })
        .await?;
    Ok(View::of(&state, workload)?
        .frozen
        .map_or(mark.at, |frozen| frozen.at))
}

/// The mark that a workload has to carry: what an earlier Job of this release noted about how it
/// was, under our epoch.
fn marked(view: &View, workload: &Workload, mark: &Frozen) -> Result<Frozen, Stop> {
    match &view.frozen {
        Some(earlier) if earlier.release != mark.release => Err(Stop::refused(format!(
            "{workload} is stopped by release {}/{} of pvmigrate",
            earlier.release.namespace, earlier.release.name
        ))),
        Some(earlier) if earlier.epoch > mark.epoch => Err(Stop::Superseded(workload.to_string())),
        Some(earlier) => Ok(Frozen {
            run: mark.run.clone(),
            epoch: mark.epoch,
            ..earlier.clone()
        }),
        None => Ok(Frozen {
            replicas: i32::try_from(view.replicas()).unwrap_or(1),
            ..mark.clone()
        }),
    }
}

async fn wait_observed<K>(cluster: &Cluster, workload: &Workload) -> Result<(), Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api = cluster.namespaced::<K>(&workload.namespace);
    let what = format!("the controller of {workload} to see that claims are to be kept");
    wait_for(
        &api,
        &workload.name,
        &what,
        OBSERVED_LIMIT,
        |state| match state.map(|state| View::of(state, workload)) {
            Some(Ok(view)) if view.is_observed() => Seen::Reached(()),
            Some(Ok(_)) => Seen::NotYet("its observedGeneration is behind".into()),
            Some(Err(error)) => Seen::Never(error.to_string()),
            None => Seen::Never(format!("{workload} was deleted")),
        },
    )
    .await
}

async fn start_as<K>(cluster: &Cluster, workload: &Workload, epoch: u64) -> Result<(), Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api = cluster.namespaced::<K>(&workload.namespace);
    let state = get::<K>(cluster, workload).await?;
    cluster
        .update(&api, state, |state| {
            let view = View::of(state, workload)?;
            let Some(was) = &view.frozen else {
                return Ok(None);
            };
            if was.epoch > epoch {
                return Err(Stop::Superseded(workload.to_string()));
            }
            let mut patch = json!({"metadata": {"annotations": {names::FROZEN: null}}});
            if view.replicas() == 0 {
                patch["spec"]["replicas"] = json!(was.replicas);
            } else {
                tracing::warn!(%workload, "somebody has scaled it meanwhile; it is left as it is");
            }
            if let Some(when_scaled) = &was.when_scaled {
                // Safe together with the replicas: it acts on replicas that are taken away.
                patch["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] =
                    json!(when_scaled);
            }
            Ok(Some(patch))
        })
        .await?;
    Ok(())
}

async fn wait_ready_as<K>(
    cluster: &Cluster,
    workload: &Workload,
    limit: Duration,
) -> Result<(), Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api = cluster.namespaced::<K>(&workload.namespace);
    let what = format!("{workload} to be Ready");
    wait_for(&api, &workload.name, &what, limit, |state| {
        let view = match state.map(|state| View::of(state, workload)) {
            Some(Ok(view)) => view,
            Some(Err(error)) => return Seen::Never(error.to_string()),
            None => return Seen::Never(format!("{workload} was deleted")),
        };
        let status = |field: &str| view.json["status"][field].as_i64().unwrap_or(0);
        let wanted = view.replicas();
        let updated = workload.kind != "Deployment" || status("updatedReplicas") >= wanted;
        if view.is_observed() && updated && status("readyReplicas") >= wanted {
            Seen::Reached(())
        } else {
            Seen::NotYet(format!(
                "{} of {wanted} replicas are Ready",
                status("readyReplicas")
            ))
        }
    })
    .await
}

async fn pod_spec_as<K>(cluster: &Cluster, workload: &Workload) -> Result<PodSpec, Stop>
where
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let object = get::<K>(cluster, workload).await?;
    let json = serde_json::to_value(&object).map_err(|error| Stop::Api(error.to_string()))?;
    serde_json::from_value(json["spec"]["template"]["spec"].clone())
        .map_err(|error| Stop::refused(format!("{workload} has no pod template: {error}")))
}
