//! Where a mover runs: with the claim's consumer, else as its workload would.

use std::time::Duration;

use crate::migration::Migration;
use crate::mover::Placement;
use crate::pods::{PodWatch, Pods, SeenPod};
use crate::run::Run;
use crate::stop::Stop;
use crate::{causes, workloads};

/// How long a consumer may look for a node before its mover is placed without it.
const SCHEDULING_LIMIT: Duration = Duration::from_secs(60);

pub async fn placement(
    run: &Run,
    migration: &Migration,
    watch: &PodWatch,
) -> Result<Placement, Stop> {
    let claim = &migration.record.claim;
    // One that looks for a node goes first: a mover would decide for it.
    let what = format!("the consumers of claim {claim} to find their nodes");
    let settled = watch.wait_until(&what, SCHEDULING_LIMIT, |pods| {
        let (placed, homeless): (Vec<_>, Vec<_>) =
            consumers(pods, &claim.name).partition(|pod| pod.node.is_some());
        match homeless.first() {
            Some(pod) if placed.is_empty() => Err(causes::of_pod(&pod.pod)),
            _ => Ok(()),
        }
    });
    if let Err(stop) = settled.await {
        tracing::warn!(why = %stop, "the mover goes where its workload's template allows");
    }
    let pods = watch.now();
    let placed = consumers(&pods, &claim.name).find(|pod| pod.node.is_some());
    if let Some(spec) = placed.and_then(|seen| seen.pod.spec.as_ref()) {
        return Ok(Placement::of(spec));
    }
    if let Some(site) = run.sites.at(&claim.namespace, &claim.name) {
        let mut placement = site.clone();
        // A consumer of a claim that has to be on the same node has decided already.
        let others = site.together.iter();
        placement.node = others
            .filter(|other| run.sites.is_on_one_node(&claim.namespace, other))
            .find_map(|other| consumers(&pods, other).find_map(|pod| pod.node.clone()));
        return Ok(placement);
    }
    match migration.record.freeze.all().next() {
        Some(workload) => Ok(Placement::of(
            &workloads::pod_spec(&run.cluster, workload).await?,
        )),
        None => Ok(Placement::default()),
    }
}

/// The pods that mount a claim and are there to stay.
pub fn consumers<'a>(pods: &'a Pods, claim: &'a str) -> impl Iterator<Item = &'a SeenPod> {
    pods.present(claim).filter(|seen| {
        let phase = seen
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let is_over = matches!(phase, Some("Succeeded" | "Failed"));
        !is_over && seen.pod.metadata.deletion_timestamp.is_none()
    })
}
