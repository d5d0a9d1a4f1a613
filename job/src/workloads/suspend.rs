//! Suspend: a CronJob starts no more Jobs, and a Job no more pods. What runs is waited for: a pod
//! that is deleted would count against its Job's `backoffLimit`. Where `jobs` says so, running Jobs
//! are suspended too, also those that a CronJob has started: Kubernetes ends their pods, and that
//! counts against nothing.

use jiff::Timestamp;
use kube::api::DynamicObject;
use pvmigrate_record::names;
use pvmigrate_record::record::{Frozen, Method, Workload};
use serde_json::json;

use super::hold::wake_below;
use super::{api, get, mark_of, mark_patch, mark_to_lift, marked, owners, unless_removed};
use crate::cluster::Cluster;
use crate::config::Jobs;
use crate::stop::Stop;

pub async fn stop(
    cluster: &Cluster,
    workload: &Workload,
    mark: &Frozen,
    jobs: Jobs,
) -> Result<Timestamp, Stop> {
    // A Job is left to end by itself: the fence refuses it more pods.
    let is_set = workload.kind == "CronJob" || jobs == Jobs::Suspend;
    let state = get(cluster, workload).await?;
    suspend(cluster, workload, state, mark, is_set).await
}

/// Suspends what a CronJob has started and what runs still. How each was is a mark of its own.
pub async fn stop_below(cluster: &Cluster, cron_job: &Workload, mark: &Frozen) -> Result<(), Stop> {
    let mark = Frozen {
        method: Method::Suspend,
        ..mark.clone()
    };
    for (job, state) in owners::below(cluster, cron_job).await? {
        let stopped = suspend(cluster, &job, state, &mark, true).await;
        unless_removed(cluster, &job, stopped, mark.at).await?;
    }
    Ok(())
}

async fn suspend(
    cluster: &Cluster,
    workload: &Workload,
    state: DynamicObject,
    mark: &Frozen,
    is_set: bool,
) -> Result<Timestamp, Stop> {
    let state = cluster
        .update(&api(cluster, workload), state, |state| {
            let was = marked(state, workload, mark, |mark| {
                mark.suspend = is_set.then(|| is_suspended(state));
            })?;
            let is_marked = mark_of(state, workload)?.as_ref() == Some(&was);
            let set = was.suspend.is_some() && !is_suspended(state);
            if is_marked && !set {
                return Ok(None);
            }
            let mut patch = mark_patch(&was)?;
            if set {
                patch["spec"]["suspend"] = json!(true);
            }
            Ok(Some(patch))
        })
        .await?;
    Ok(mark_of(&state, workload)?.map_or(mark.at, |mark| mark.at))
}

pub async fn start(cluster: &Cluster, workload: &Workload, epoch: u64) -> Result<(), Stop> {
    let state = get(cluster, workload).await?;
    if mark_to_lift(&state, workload, epoch)?.is_none() {
        return Ok(());
    }
    // A Job whose pods were refused waits before it tries again.
    wake_below(cluster, workload).await?;
    resume(cluster, workload, state, epoch).await
}

/// Lets those Jobs run again that were suspended because of their CronJob.
pub async fn start_below(cluster: &Cluster, cron_job: &Workload, epoch: u64) -> Result<(), Stop> {
    for (job, state) in owners::all_below(cluster, cron_job).await? {
        let started = resume(cluster, &job, state, epoch).await;
        unless_removed(cluster, &job, started, ()).await?;
    }
    Ok(())
}

async fn resume(
    cluster: &Cluster,
    workload: &Workload,
    state: DynamicObject,
    epoch: u64,
) -> Result<(), Stop> {
    cluster
        .update(&api(cluster, workload), state, |state| {
            let Some(was) = mark_to_lift(state, workload, epoch)? else {
                return Ok(None);
            };
            let mut patch = json!({"metadata": {"annotations": {
                names::FROZEN: null,
                names::WOKEN: Timestamp::now().to_string(),
            }}});
            match was.suspend {
                Some(false) if is_suspended(state) => patch["spec"]["suspend"] = json!(false),
                Some(before) if before != is_suspended(state) => {
                    tracing::warn!(%workload, "somebody has resumed it meanwhile; it is left as it is");
                }
                _ => {}
            }
            Ok(Some(patch))
        })
        .await?;
    Ok(())
}

fn is_suspended(state: &DynamicObject) -> bool {
    state.data["spec"]["suspend"].as_bool().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cluster::scripted::Scripted;
    use pvmigrate_record::record::Release;

    const JOBS: &str = "/apis/batch/v1/namespaces/shop/jobs";

    fn workload(kind: &str, name: &str) -> Workload {
        Workload {
            api_version: "batch/v1".into(),
            kind: kind.into(),
            resource: format!("{}s", kind.to_lowercase()),
            namespace: "shop".into(),
            name: name.into(),
            uid: name.into(),
        }
    }

    fn release(name: &str) -> Release {
        Release {
            namespace: "ops".into(),
            name: name.into(),
        }
    }

    fn mark(method: Method) -> Frozen {
        Frozen {
            release: release("ours"),
            run: "1".into(),
            epoch: 1,
            method,
            replicas: None,
            suspend: None,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            when_scaled: None,
        }
    }

    fn job(name: &str, owner: &str, spec: &Value, status: &Value) -> (String, Value) {
        let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": owner, "uid": owner, "controller": true});
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "spec": spec, "status": status,
            "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1", "ownerReferences": [owner]},
        });
        (format!("{JOBS}/{name}"), job)
    }

    fn state_of(api: &Scripted, path: &str) -> (Value, bool) {
        let object = api.at(path);
        let marked = object["metadata"]["annotations"][names::FROZEN].is_string();
        (object["spec"]["suspend"].clone(), marked)
    }

    #[tokio::test]
    async fn what_a_cron_job_has_started_is_suspended_and_runs_again_as_it_did() {
        let complete = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        let failed = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        let jobs = [
            job("runs", "nightly", &json!({}), &json!({"active": 1})),
            job("sleeps", "nightly", &json!({"suspend": true}), &json!({})),
            job("complete", "nightly", &json!({}), &complete),
            job("failed", "nightly", &json!({}), &failed),
            job("other", "weekly", &json!({}), &json!({"active": 1})),
        ];
        let api = Scripted::default();
        let all: Vec<&Value> = jobs.iter().map(|(_, job)| job).collect();
        api.put(
            JOBS,
            json!({"apiVersion": "batch/v1", "kind": "JobList", "metadata": {}, "items": all}),
        );
        for (path, job) in &jobs {
            api.put(path, job.clone());
        }
        let (cluster, nightly) = (api.cluster(), workload("CronJob", "nightly"));

        stop_below(&cluster, &nightly, &mark(Method::Hold))
            .await
            .unwrap();
        let [runs, sleeps] = ["runs", "sleeps"].map(|name| format!("{JOBS}/{name}"));
        assert_eq!(*api.writes.lock().unwrap(), [runs.clone(), sleeps.clone()]);
        assert_eq!(state_of(&api, &runs), (json!(true), true));
        assert_eq!(state_of(&api, &sleeps), (json!(true), true));

        let all = [&runs, &sleeps].map(|path| api.at(path));
        api.put(
            JOBS,
            json!({"apiVersion": "batch/v1", "kind": "JobList", "metadata": {}, "items": all}),
        );
        start_below(&cluster, &nightly, 1).await.unwrap();
        assert_eq!(state_of(&api, &runs), (json!(false), false));
        assert_eq!(state_of(&api, &sleeps), (json!(true), false));
    }

    #[tokio::test]
    async fn a_job_that_was_removed_needs_no_stop_and_no_start_and_a_cron_job_does() {
        let cluster = Scripted::default().cluster();
        let (gone, mark) = (workload("Job", "gone"), mark(Method::Suspend));
        let stopped = stop(&cluster, &gone, &mark, Jobs::Wait).await;
        let stopped = unless_removed(&cluster, &gone, stopped, mark.at).await;
        assert_eq!(stopped.unwrap(), mark.at);
        let started = start(&cluster, &gone, 1).await;
        unless_removed(&cluster, &gone, started, ()).await.unwrap();

        let gone = workload("CronJob", "nightly");
        let stopped = stop(&cluster, &gone, &mark, Jobs::Wait).await;
        let stopped = unless_removed(&cluster, &gone, stopped, mark.at).await;
        let why = stopped.unwrap_err().to_string();
        assert_eq!(why, "CronJob shop/nightly does not exist any more");
    }

    #[tokio::test]
    async fn a_job_that_exists_and_was_stopped_by_another_release_is_refused() {
        let other = Frozen {
            release: release("other"),
            ..mark(Method::Suspend)
        };
        let (path, mut theirs) = job("theirs", "nightly", &json!({}), &json!({}));
        theirs["metadata"]["annotations"][names::FROZEN] =
            json!(serde_json::to_string(&other).unwrap());
        let cluster = Scripted::with(&[(&path, theirs)]).cluster();
        let (theirs, mark) = (workload("Job", "theirs"), mark(Method::Suspend));
        let stopped = stop(&cluster, &theirs, &mark, Jobs::Wait).await;
        let stopped = unless_removed(&cluster, &theirs, stopped, mark.at).await;
        let why = stopped.unwrap_err().to_string();
        assert_eq!(
            why,
            "Job shop/theirs is stopped by release ops/other of pvmigrate"
        );
    }
}
