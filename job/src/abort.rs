//! `pvmigrate abort`: ends the release's Job, and what it has begun.
//!
//! ```text
//! anything to end? ─ no ─▶ 0, at once
//!   └─▶ suspend its Jobs ─▶ wait for their pods ─▶ the Lease ─▶ every group to its source, or its end
//! ```
//!
//! It may be killed anywhere and run again: all it knows is on the records.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::ListParams;
use pvmigrate_record::names;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{Cluster, retried};
use crate::config::Config;
use crate::exit::Exit;
use crate::lease::JOB_LABEL;
use crate::observe::record_of;
use crate::stop::Stop;
use crate::{leased, pods, preflight, run};

/// How long the pods of a suspended Job may take to end: their own grace, and some more. One that
/// takes longer is on a node that is lost; its Lease lapses.
const PODS_LIMIT: Duration = Duration::from_secs(45);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const SAY_EVERY: Duration = Duration::from_secs(10);

pub async fn abort(cluster: &Cluster, config: &Config) -> Result<Exit, Stop> {
    let jobs = jobs_at_work(cluster, config).await?;
    if jobs.is_empty() && !has_begun(cluster, config).await? {
        tracing::info!("nothing is under way; there is nothing to abort");
        return Ok(Exit::Done);
    }
    let mut names = Vec::new();
    for job in jobs {
        names.push(job.name_any());
        suspend(cluster, config, job).await?;
    }
    await_pods(cluster, config, &names).await?;
    Box::pin(leased(cluster, config, run::abort)).await
}

/// The Jobs of the release that have not ended: the chart's, and the one whose pod holds the Lease.
async fn jobs_at_work(cluster: &Cluster, config: &Config) -> Result<Vec<Job>, Stop> {
    let namespace = &config.release_namespace;
    let (jobs, pods) = (cluster.namespaced(namespace), cluster.namespaced(namespace));
    let mut names: Vec<String> = vec![config.job.clone()];
    let leases = cluster.namespaced::<Lease>(namespace);
    let lease = cluster.get(&leases, &names::lease(&config.release)).await?;
    let holder = lease
        .and_then(|lease| lease.spec)
        .and_then(|spec| spec.holder_identity)
        .filter(|holder| !holder.is_empty() && *holder != config.pod);
    if let Some(holder) = holder {
        let pod: Option<Pod> = cluster.get(&pods, &holder).await?;
        names.extend(pod.and_then(|pod| pod.labels().get(JOB_LABEL).cloned()));
    }
    names.retain(|name| !name.is_empty());
    names.dedup();
    let mut at_work = Vec::new();
    for name in names {
        let job = cluster.get(&jobs, &name).await?;
        at_work.extend(job.filter(|job| !has_ended(job)));
    }
    Ok(at_work)
}

/// Complete, Failed, or suspended and without a pod.
fn has_ended(job: &Job) -> bool {
    let status = job.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    let is_suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
    let pods = status.map_or(0, |status| {
        status.active.unwrap_or_default() + status.terminating.unwrap_or_default()
    });
    is_suspended && pods == 0
        || conditions.any(|condition| {
            matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
        })
}

/// Whether records, a fence or trials of the release say that something was begun and not ended.
async fn has_begun(cluster: &Cluster, config: &Config) -> Result<bool, Stop> {
    let params = ListParams::default().labels(names::RUN);
    let api = cluster.all::<PersistentVolume>();
    let volumes = retried(|| api.list(&params)).await?;
    let unfinished = volumes.items.iter().any(|volume| {
        matches!(record_of(volume), Some(Ok(record)) if record.release == config.release() && !record.is_finished())
    });
    // Of a fence its parameters are made first, and removed last.
    let fence = names::fence_claims(&config.release());
    let parameters = cluster.namespaced::<ServiceAccount>(&config.release_namespace);
    Ok(unfinished
        || cluster.get(&parameters, &fence).await?.is_some()
        || !preflight::trials_left(cluster, config).await?.is_empty())
}

/// Suspended, a Job keeps its log and makes no more pods; those that it has are told to stop.
async fn suspend(cluster: &Cluster, config: &Config, job: Job) -> Result<(), Stop> {
    tracing::info!(job = %job.name_any(), "the Job is suspended");
    let api = cluster.namespaced::<Job>(&config.release_namespace);
    let name = job.name_any();
    let suspended = cluster
        .update(&api, job, |job| {
            let is = job.spec.as_ref().and_then(|spec| spec.suspend);
            Ok((is != Some(true)).then(|| json!({"spec": {"suspend": true}})))
        })
        .await;
    match suspended {
        // Deleted meanwhile, it is ended as well.
        Err(Stop::Refused(_)) if cluster.get(&api, &name).await?.is_none() => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn await_pods(cluster: &Cluster, config: &Config, jobs: &[String]) -> Result<(), Stop> {
    let api = cluster.namespaced::<Pod>(&config.release_namespace);
    let (started, mut said) = (Instant::now(), Instant::now());
    loop {
        let pods = cluster.list(&api).await?;
        let running = pods.iter().find(|pod| {
            let job = pod.labels().get(JOB_LABEL);
            // One that is on no node yet may come to run, unless it is deleted.
            let is_over = pods::has_ended(pod)
                && (pod.metadata.deletion_timestamp.is_some()
                    || pod
                        .spec
                        .as_ref()
                        .is_some_and(|spec| spec.node_name.is_some()));
            job.is_some_and(|job| jobs.contains(job)) && !is_over
        });
        let Some(pod) = running else { return Ok(()) };
        let (name, seconds) = (pod.name_any(), started.elapsed().as_secs());
        if started.elapsed() > PODS_LIMIT {
            tracing::warn!(pod = %name, seconds, "the Job's pod has not ended; its Lease decides");
            return Ok(());
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            tracing::info!(pod = %name, seconds, "still waiting for the Job's pod to end");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
