//! Restored → Thawed: workloads run as they did, and are Ready.

use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Freezing, Method};
use tokio::time::Instant;

use crate::migration::Group;
use crate::pods::mounted_claims;
use crate::run::Run;
use crate::stop::Stop;
use crate::{causes, workloads};

/// How soon after the thaw what was held ought to be Ready.
const SOON: Duration = Duration::from_secs(2);

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let (freezings, epoch) = (group.freezings(), group.epoch());
    let claims = mounted_before(group);
    let thawed = async {
        try_join_all(
            freezings
                .iter()
                .map(|freezing| workloads::start(run, freezing, epoch)),
        )
        .await?;
        let ready = freezings
            .iter()
            .map(|freezing| ready_again(run, freezing, &claims));
        // What is left of the fence is in nobody's way, and is gone the sooner.
        tokio::try_join!(try_join_all(ready), run.fence.leave())
    }
    .await;
    match thawed {
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
    let ready = if group
        .claims
        .iter()
        .any(|claim| claim.record.stopped.is_some())
    {
        let api = run.cluster.namespaced(&group.namespace);
        let pods = run.cluster.list(&api).await?;
        workloads::since(pods.iter(), &claims, noticed)
    } else {
        noticed
    };
    for freezing in &freezings {
        workloads::tidy(&run.cluster, &freezing.workload).await?;
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
async fn ready_again(run: &Run, freezing: &Freezing, claims: &[String]) -> Result<(), Stop> {
    let (cluster, workload) = (&run.cluster, &freezing.workload);
    let started = Instant::now();
    let ready = workloads::wait_ready(cluster, freezing, claims, run.config.pod_ready_limit());
    if freezing.method != Method::Hold {
        return ready.await;
    }
    let ready = tokio::select! {
        ready = ready => ready,
        never = workloads::keep_waking(cluster, workload) => match never {},
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
