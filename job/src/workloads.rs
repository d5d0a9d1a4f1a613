//! Stopping workloads and letting them run again as they were, whatever their kind is.
//!
//! | method | stopped by | put back by | in |
//! |---|---|---|---|
//! | Scale | its replicas go to 0 | its replicas, if they are still 0 | `scale.rs` |
//! | Hold | its pods are deleted, their replacements refused | waking whatever makes its pods | `hold.rs` |
//! | Suspend | `spec.suspend`; pods that run are waited for | `spec.suspend`, if it is still true | `suspend.rs` |
//! | Recreate | its manifest is saved, the pod deleted | making it again | `recreate.rs` |
//!
//! How a workload was is an annotation of its own, in the write that stops it. Pods themselves are
//! removed by `steps/freeze/remove.rs`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSpec;
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject};
use pvmigrate_record::names;
use pvmigrate_record::record::{Freezing, Frozen, Method, Workload};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::config::Jobs;
use crate::run::Run;
use crate::stop::Stop;

mod hold;
mod owners;
mod ready;
mod recreate;
pub mod rolling;
mod scale;
mod suspend;

pub use hold::{keep_waking, tidy};
pub use owners::{controller_of, freezing_of};
pub use ready::{ready_since, since, wait_ready};

/// Stops a workload, or notes that it is about to lose its pods. Returns when it was stopped,
/// which may be by an earlier Job.
pub async fn stop(run: &Run, freezing: &Freezing, mark: &Frozen) -> Result<Timestamp, Stop> {
    let (cluster, workload) = (&run.cluster, &freezing.workload);
    let mark = Frozen {
        method: freezing.method,
        ..mark.clone()
    };
    let jobs = run.config.jobs;
    let stopped = match freezing.method {
        Method::Scale => scale::stop(cluster, workload, &mark).await,
        Method::Hold => hold::mark(cluster, workload, &mark).await,
        Method::Suspend => suspend::stop(cluster, workload, &mark, jobs).await,
        Method::Recreate => recreate::save(cluster, workload, &mark).await,
    };
    let at = unless_removed(cluster, workload, stopped, mark.at).await?;
    if workload.kind == "CronJob" && jobs == Jobs::Suspend {
        suspend::stop_below(cluster, workload, &mark).await?;
    }
    Ok(at)
}

/// Lets a workload run as it did. What somebody changed meanwhile is left as it is; one that a
/// newer Job has stopped is not ours to start.
pub async fn start(run: &Run, freezing: &Freezing, epoch: u64) -> Result<(), Stop> {
    let (cluster, workload) = (&run.cluster, &freezing.workload);
    if workload.kind == "CronJob" {
        // First: without the mark above nobody would look for theirs.
        suspend::start_below(cluster, workload, epoch).await?;
    }
    let started = match freezing.method {
        Method::Scale => scale::start(cluster, workload, epoch).await,
        Method::Hold => hold::let_go(cluster, workload, epoch).await,
        Method::Suspend => suspend::start(cluster, workload, epoch).await,
        Method::Recreate => recreate::make(cluster, workload, run.config.freeze_limit()).await,
    };
    unless_removed(cluster, workload, started, ()).await
}

/// The spec that a workload's pods are made from; an empty one where its kind does not say.
pub async fn pod_spec(cluster: &Cluster, workload: &Workload) -> Result<PodSpec, Stop> {
    let json = if workload.kind == "Pod" {
        recreate::manifest(cluster, workload).await?["spec"].clone()
    } else {
        let found = get(cluster, workload).await.map(Some);
        let Some(object) = unless_removed(cluster, workload, found, None).await? else {
            return Ok(PodSpec::default());
        };
        let spec = &object.data["spec"];
        let template = match workload.kind.as_str() {
            "CronJob" => &spec["jobTemplate"]["spec"]["template"],
            _ => &spec["template"],
        };
        template["spec"].clone()
    };
    if !json["containers"].is_array() {
        return Ok(PodSpec::default());
    }
    serde_json::from_value(json)
        .map_err(|error| Stop::refused(format!("the pod template of {workload}: {error}")))
}

/// Whether a workload of this name exists with its UID.
pub async fn exists(cluster: &Cluster, workload: &Workload) -> Result<bool, Stop> {
    if !workload.resource.is_empty() {
        return Ok(find(cluster, workload).await?.is_some());
    }
    let resource = owners::resource(cluster, &workload.api_version, &workload.kind).await?;
    let known = Workload {
        resource: resource.plural,
        ..workload.clone()
    };
    Ok(find(cluster, &known).await?.is_some())
}

fn api(cluster: &Cluster, workload: &Workload) -> Api<DynamicObject> {
    let (group, version) = workload
        .api_version
        .split_once('/')
        .unwrap_or(("", &workload.api_version));
    let resource = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: workload.api_version.clone(),
        kind: workload.kind.clone(),
        plural: workload.resource.clone(),
    };
    cluster.dynamic(&resource, &workload.namespace)
}

/// The workload of this name, if it is the one with this UID.
async fn find(cluster: &Cluster, workload: &Workload) -> Result<Option<DynamicObject>, Stop> {
    let found = cluster.get(&api(cluster, workload), &workload.name).await?;
    Ok(found.filter(|object| object.uid().as_deref() == Some(workload.uid.as_str())))
}

async fn get(cluster: &Cluster, workload: &Workload) -> Result<DynamicObject, Stop> {
    let found = find(cluster, workload).await?;
    found.ok_or_else(|| Stop::refused(format!("{workload} does not exist any more")))
}

/// What was to be done to a workload, or what there is instead if it is a Job that does not exist
/// any more: one that has ended is removed by its `ttlSecondsAfterFinished` or by its owner. There
/// is nothing to stop then; pods that it may have left are waited for all the same.
async fn unless_removed<T>(
    cluster: &Cluster,
    workload: &Workload,
    done: Result<T, Stop>,
    instead: T,
) -> Result<T, Stop> {
    if !is_job(workload) || !matches!(done, Err(Stop::Refused(_) | Stop::Api(_))) {
        return done;
    }
    if find(cluster, workload).await?.is_some() {
        return done;
    }
    tracing::info!(%workload, "it was removed; its pods are waited for all the same");
    Ok(instead)
}

fn is_job(workload: &Workload) -> bool {
    (workload.group(), workload.kind.as_str()) == ("batch", "Job")
}

/// Whether a kind is none of Kubernetes' own: what may be done to it is for its cluster to say.
fn is_custom(workload: &Workload) -> bool {
    !matches!(workload.group(), "" | "apps" | "batch")
}

/// Our mark on a workload, if it has one.
fn mark_of(object: &DynamicObject, workload: &Workload) -> Result<Option<Frozen>, Stop> {
    let mark = object.annotations().get(names::FROZEN);
    mark.map(|json| serde_json::from_str(json))
        .transpose()
        .map_err(|error| {
            Stop::refused(format!(
                "{workload} has an annotation {} that cannot be read: {error}",
                names::FROZEN
            ))
        })
}

/// The mark that a workload has to carry: what an earlier Job of this release noted about how it
/// was, under our epoch; or how it is now.
fn marked(
    object: &DynamicObject,
    workload: &Workload,
    mark: &Frozen,
    how_it_is: impl FnOnce(&mut Frozen),
) -> Result<Frozen, Stop> {
    match mark_of(object, workload)? {
        Some(earlier) if earlier.release != mark.release => Err(Stop::refused(format!(
            "{workload} is stopped by release {}/{} of pvmigrate",
            earlier.release.namespace, earlier.release.name
        ))),
        Some(earlier) if earlier.epoch > mark.epoch => Err(Stop::Superseded(workload.to_string())),
        Some(earlier) => Ok(Frozen {
            run: mark.run.clone(),
            epoch: mark.epoch,
            ..earlier
        }),
        None => {
            let mut new = mark.clone();
            how_it_is(&mut new);
            Ok(new)
        }
    }
}

/// Our mark, where it is not that of a newer Job.
fn mark_to_lift(
    object: &DynamicObject,
    workload: &Workload,
    epoch: u64,
) -> Result<Option<Frozen>, Stop> {
    match mark_of(object, workload)? {
        Some(mark) if mark.epoch > epoch => Err(Stop::Superseded(workload.to_string())),
        mark => Ok(mark),
    }
}

fn mark_patch(mark: &Frozen) -> Result<Value, Stop> {
    let text = serde_json::to_string(mark).map_err(|error| Stop::Api(error.to_string()))?;
    Ok(json!({"metadata": {"annotations": {names::FROZEN: text}}}))
}
