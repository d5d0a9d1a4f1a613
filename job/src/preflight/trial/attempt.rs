//! One trial, from its claim to its removal.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};

use super::{Trial, objects, removal};
use crate::causes;
use crate::claim::ahead;
use crate::preflight::provisioner::waits_for_consumer;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// How long a trial goes on after its first warning. Provisioners and kubelets repeat what has
/// failed, and sometimes it goes well the second time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries one combination, and removes it again; returns what stands against it.
pub async fn attempt(
    run: &Run,
    class: &StorageClass,
    number: usize,
    trial: &Trial,
) -> Result<Option<String>, Stop> {
    let metadata = objects::metadata(&run.config, trial, number, run.cluster_owner.as_ref());
    let name = metadata.name.clone().unwrap_or_default();
    let outcome = Box::pin(tried(run, class, trial, &name, metadata)).await;
    // A Job that goes on has other work to do than to wait for a provisioner.
    let then = if outcome.is_ok() && !run.config.preflight_only {
        removal::Volume::Left
    } else {
        removal::Volume::Awaited
    };
    let removed = removal::remove(run, &trial.namespace, &name, then).await;
    let refused = |why: String| refused(&class.name_any(), &trial.claim, &trial.words(), &why);
    match (outcome, removed) {
        (Ok(()), Ok(())) => {
            let (claim, what) = (&trial.claim, trial.words());
            tracing::debug!(%claim, %what, "it was tried and works");
            Ok(None)
        }
        // What does not let go of a trial would not let go of an application's claim either.
        (Ok(()), Err(Stop::Refused(left))) => Ok(Some(refused(format!(
            "and what was made for that does not go: {left}"
        )))),
        (Err(Stop::Refused(why)), removed) => {
            if let Err(left) = removed {
                tracing::warn!(why = %left, trial = %name, "a trial could not be removed");
            }
            Ok(Some(refused(format!("in vain: {why}"))))
        }
        (Err(other), _) | (Ok(()), Err(other)) => Err(other),
    }
}

/// What is said of a trial.
pub fn refused(class: &str, claim: &str, what: &str, why: &str) -> String {
    format!("StorageClass {class} was tried for claims like {claim} ({what}), {why}")
}

async fn tried(
    run: &Run,
    class: &StorageClass,
    trial: &Trial,
    name: &str,
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Result<(), Stop> {
    let claims: Api<PersistentVolumeClaim> = run.cluster.namespaced(&trial.namespace);
    let pods: Api<Pod> = run.cluster.namespaced(&trial.namespace);
    let mut claim = objects::claim(&run.config, trial, metadata.clone());
    let waits_for_a_pod = waits_for_consumer(class);
    if let Some(node) = trial
        .placement
        .node
        .as_ref()
        .filter(|_| run.provisions_ahead)
    {
        ahead::select(&mut claim, node);
    }
    let claim = run.cluster.create(&claims, &claim).await?;
    let limit = run.config.stage_limit();
    let reached = async {
        if waits_for_a_pod {
            let seen = run.cluster.claims_seen(&trial.namespace).await?;
            ahead::wait(&seen, &claim, limit).await?;
            let pod = objects::pod(&run.config, trial, metadata);
            run.cluster.create(&pods, &pod).await?;
            wait_for(&pods, name, "the pod of a trial to end", limit, has_run).await
        } else {
            wait_for(
                &claims,
                name,
                "the claim of a trial to be Bound",
                limit,
                is_bound,
            )
            .await
        }
    };
    patiently(run, &trial.namespace, name, reached).await
}

/// Waits for what is done for a claim and a pod of this name; not for long after a first warning about
/// them. What is in vain is explained.
pub async fn patiently<T>(
    run: &Run,
    namespace: &str,
    name: &str,
    reached: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    let events: Api<Event> = run.cluster.namespaced(namespace);
    let outcome = tokio::select! {
        outcome = reached => outcome,
        () = patience(&events, name) => {
            let seconds = PATIENCE.as_secs();
            Err(Stop::Refused(format!("it failed, and again for {seconds} s")))
        }
    };
    let both = [("PersistentVolumeClaim", name), ("Pod", name)];
    match outcome {
        Err(stop) => Err(causes::explain(&run.cluster, namespace, stop, &both).await),
        done => done,
    }
}

fn has_run(pod: Option<&Pod>) -> Seen<()> {
    let Some(pod) = pod else {
        return Seen::NotYet("it is not there".into());
    };
    let status = pod.status.as_ref();
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Seen::Reached(()),
        Some("Failed") => Seen::Never(causes::of_pod(pod)),
        _ => Seen::NotYet(causes::of_pod(pod)),
    }
}

fn is_bound(claim: Option<&PersistentVolumeClaim>) -> Seen<()> {
    let status = claim.and_then(|claim| claim.status.as_ref());
    match status.and_then(|status| status.phase.as_deref()) {
        Some("Bound") => Seen::Reached(()),
        phase => Seen::NotYet(format!("it is {}", phase.unwrap_or("new"))),
    }
}

/// Warnings that say that a volume is not made or not mounted, or that the pod cannot run. Others
/// are about what a trial does not need, such as a cluster's DNS; and where no node is found, one
/// may be on its way.
const FAILURES: [&str; 9] = [
    "ProvisioningFailed",
    "FailedBinding",
    "FailedAttachVolume",
    "FailedMount",
    "FailedMapVolume",
    "FailedCreatePodSandBox",
    "Failed",
    "BackOff",
    "InspectFailed",
];

/// Returns a while after the first of these warnings about the claim or the pod.
async fn patience(events: &Api<Event>, name: &str) {
    let fields = format!("involvedObject.name={name}");
    let config = watcher::Config::default().fields(&fields);
    let mut seen = watcher(events.clone(), config)
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(event) = seen.next().await {
        let Ok(event) = event else {
            continue;
        };
        if is_failure(&event) {
            tokio::time::sleep(PATIENCE).await;
            return;
        }
    }
    // The watch goes on for ever; were it to end, the wait beside it has its own limit.
    std::future::pending::<()>().await;
}

fn is_failure(event: &Event) -> bool {
    let reason = event.reason.as_deref().unwrap_or_default();
    event.type_.as_deref() == Some("Warning") && FAILURES.contains(&reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_that_is_not_about_the_volume_or_the_pod_is_no_failure() {
        let event = |kind: &str, reason: &str| Event {
            type_: Some(kind.into()),
            reason: Some(reason.into()),
            ..Event::default()
        };
        assert!(is_failure(&event("Warning", "ProvisioningFailed")));
        assert!(is_failure(&event("Warning", "FailedMount")));
        assert!(!is_failure(&event("Warning", "MissingClusterDNS")));
        assert!(!is_failure(&event("Warning", "FailedScheduling")));
        assert!(!is_failure(&event("Normal", "Failed")));
    }
}
