//! Restored → Thawed: workloads run as they did, and are Ready.

use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Freezing, Method};
use tokio::time::Instant;

use crate::migration::Group;
use crate::mover::anchor;
use crate::pods::{PodWatch, Pods, mounted_claims};
use crate::run::Run;
use crate::stop::Stop;
use crate::{causes, workloads};

/// How soon after the thaw what was held ought to be Ready.
const SOON: Duration = Duration::from_secs(2);
/// The epoch of a group that no Job has taken over, nor copied again.
const FIRST: u64 = 1;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let (freezings, epoch) = (group.freezings(), group.epoch());
    let claims = mounted_before(group);
    let (watch, woken) = (group.watch.clone(), AtomicBool::new(false));
    let thawed = async {
        try_join_all(
            freezings
                .iter()
                .map(|freezing| workloads::start(run, freezing, epoch)),
        )
        .await?;
        let ready = freezings
            .iter()
            .map(|freezing| ready_again(run, freezing, (&claims, watch.as_deref(), &woken)));
        // What is left of the fence is in nobody's way, and is gone the sooner.
        tokio::try_join!(try_join_all(ready), run.fence.leave())
    };
    let mut thawed = pin!(thawed);
    let anchored = anchor::held(group);
    let elsewhere = async {
        match &watch {
            Some(watch) => anchor::needed_elsewhere(&anchored, watch).await,
            None => pending().await,
        }
    };
    let done = tokio::select! {
        done = &mut thawed => done,
        why = elsewhere => {
            tracing::info!(%why, "the new volumes follow it");
            anchor::lift(run, group).await?;
            thawed.await
        }
    };
    anchor::lift(run, group).await?;
    match done {
        Ok(_) => {}
        // A workload that its owner has deleted meanwhile needs no thaw, but has to be named; from
        // here on nothing goes back by itself.
        Err(Stop::Refused(why)) => {
            let why = format!("{why}{}", why_not_ready(run, group).await);
            return Err(Stop::NotReady(why));
        }
        Err(other) => return Err(other),
    }
    let noticed = Timestamp::now();
    let since = |pods: &Pods| {
        let there = pods.seen.values().filter(|seen| !seen.deleted);
        workloads::since(there.map(|seen| &seen.pod), &claims, noticed)
    };
    let ready = if group
        .claims
        .iter()
        .any(|claim| claim.record.stopped.is_some())
    {
        match watch.as_ref().map(|watch| watch.now()) {
            Some(pods) if !pods.gap => since(&pods),
            _ => {
                let api = run.cluster.namespaced(&group.namespace);
                let pods = run.cluster.list(&api).await?;
                workloads::since(pods.iter(), &claims, noticed)
            }
        }
    } else {
        noticed
    };
    // A set is woken only here, where it is late; others when they are let go, and all of them perhaps
    // by a Job before.
    let is_late = woken.load(Ordering::SeqCst) || epoch > FIRST;
    for Freezing {
        workload, method, ..
    } in &freezings
    {
        let is_woken = match method {
            Method::Scale => false,
            Method::Hold => is_late || workload.kind != "StatefulSet",
            Method::Suspend | Method::Recreate => true,
        };
        workloads::tidy(&run.cluster, workload, is_woken).await?;
    }
    for migration in group.at(Phase::Restored) {
        if migration.record.heading == Heading::Destination {
            // An earlier Job may have waited in vain for what is Ready now.
            migration.record.failure = None;
        }
        if migration.record.stopped.is_some() {
            migration.record.ready.get_or_insert(ready);
        }
    }
    group.watch = None;
    // Saved with what becomes of the source.
    for migration in group.at(Phase::Restored) {
        migration.reach()?;
    }
    Ok(())
}

/// The claims that were mounted when the group was fenced.
fn mounted_before(group: &Group) -> Vec<String> {
    let mounted = group
        .claims
        .iter()
        .filter(|claim| !claim.record.consumers.is_empty());
    mounted
        .map(|claim| claim.record.claim.name.clone())
        .collect()
}

/// Waits until a workload is Ready. What was held is woken as long as it is not.
async fn ready_again(
    run: &Run,
    freezing: &Freezing,
    (claims, watch, woken): (&[String], Option<&PodWatch>, &AtomicBool),
) -> Result<(), Stop> {
    let (cluster, workload) = (&run.cluster, &freezing.workload);
    let started = Instant::now();
    let limit = run.config.pod_ready_limit();
    let ready = workloads::wait_ready(cluster, freezing, (claims, watch), limit);
    if freezing.method != Method::Hold {
        return ready.await;
    }
    // Only of a pod of a set it is known what it is called.
    let is_missing = || match (&freezing.pod, watch.map(PodWatch::now)) {
        (Some(name), Some(pods)) if !pods.gap => pods.named(name).is_none(),
        _ => true,
    };
    let ready = tokio::select! {
        ready = ready => ready,
        never = workloads::keep_waking(cluster, workload, is_missing, woken) => match never {},
    };
    let seconds = started.elapsed().as_secs_f64();
    match &ready {
        Ok(()) if started.elapsed() > SOON => {
            tracing::warn!(%workload, seconds, "it was held, and took long to be Ready again");
        }
        Ok(()) => tracing::info!(%workload, seconds, "it was held, and is Ready again"),
        Err(_) => {}
    }
    ready
}

/// What the group's pods say of themselves.
async fn why_not_ready(run: &Run, group: &Group) -> String {
    let api = run.cluster.namespaced(&group.namespace);
    let Ok(pods) = run.cluster.list(&api).await else {
        return String::new();
    };
    let ours = |claim: String| group.claims.iter().any(|m| m.record.claim.name == claim);
    let texts: Vec<String> = pods
        .iter()
        .filter(|pod| mounted_claims(pod).any(ours))
        .map(|pod| format!("; {}", causes::of_pod(pod)))
        .collect();
    texts.concat()
}
