//! Planned → Staged: the destination exists, bound to the staging claim, a mover has both volumes
//! mounted and waits for its order, and warm passes are done.
//!
//! ```text
//! staging claim  →  mover beside the consumer  →  bound, ready  →  warm passes  →  Staged
//!                     ^                                              │
//!                     └──────── made again where it has died ────────┘
//! ```

mod destination;
mod placement;
mod ready;
pub mod warm;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use pvmigrate_record::order::What;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::Volume;

use crate::causes;
use crate::claim::{ahead, staging_claim};
use crate::migration::{Group, Migration};
use crate::mover::orders::{is_over, last_order};
use crate::mover::{is_told_otherwise, mover_pod, provisioning_pod};
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::fence::sizes_now;
use crate::steps::restore::end_mover;
use crate::stop::Stop;
use crate::wait::{Seen, wait_gone, wait_seen, wait_seen_gone};
use destination::{claim_again, destination_of};
use placement::{consumers, placement};
use ready::stands_ready;
use warm::Warmed;

/// How many movers of one claim may die in warm passes before it counts as failed.
const DEATHS: usize = 3;

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let watch = group.start_watch(&run.cluster).await?;
    try_join_all(
        group
            .at(Phase::Planned)
            .map(|migration| stage(run, migration, &watch)),
    )
    .await?;
    Ok(())
}

async fn stage(run: &Run, migration: &mut Migration, watch: &PodWatch) -> Result<(), Stop> {
    if migration.record.destination.is_none() {
        // It may have waited for long since it was planned, and been resized.
        migration.record.manifest = sizes_now(run, migration).await?;
    }
    let is_used = consumers(&watch.now(), &migration.record.claim.name)
        .next()
        .is_some();
    if migration.record.manifest.is_for_one_pod() && is_used {
        Box::pin(provision(run, migration, watch)).await?;
        return migration.advance(&run.cluster).await;
    }
    let mut deaths = 0;
    loop {
        Box::pin(stand_ready(run, migration, watch)).await?;
        let why = match Box::pin(warm::passes(run, migration, watch)).await? {
            Warmed::Enough => return migration.advance(&run.cluster).await,
            Warmed::Died(why) => why,
        };
        deaths += 1;
        if deaths == DEATHS {
            return Err(Stop::Refused(format!(
                "{DEATHS} movers of claim {} did not live through a warm pass, the last one: {why}",
                migration.record.claim
            )));
        }
        tracing::warn!(claim = %migration.record.claim, %why, "the mover is made again");
    }
}

/// The destination of a claim that no mover can mount beside its consumer. The mover comes when
/// the consumer is gone.
async fn provision(run: &Run, migration: &mut Migration, watch: &PodWatch) -> Result<(), Stop> {
    let placement = placement(run, migration, watch).await?;
    let staging = claim_staging(run, migration, placement.node.as_deref()).await?;
    let wanted = provisioning_pod(&migration.record, &run.config, &placement);
    let pods = migration.pods(&run.cluster);
    run.cluster.create(&pods, &wanted).await?;
    let (destination, state) = wait_provisioned(run, migration, staging).await?;
    migration.record.destination = Some(destination);
    migration.destination_state = Some(state);
    // By its end the destination is free for the mover.
    end_mover(run, migration).await
}

/// The destination is provisioned, and known by its UID; a mover has both volumes mounted.
pub async fn stand_ready(
    run: &Run,
    migration: &mut Migration,
    watch: &PodWatch,
) -> Result<(), Stop> {
    let placement = placement(run, migration, watch).await?;
    let staging = claim_staging(run, migration, placement.node.as_deref()).await?;
    let wanted = mover_pod(&migration.record, &run.config, &placement);
    let pods = migration.pods(&run.cluster);
    let mover = run.cluster.create(&pods, &wanted).await?;
    let (destination, state) = wait_provisioned(run, migration, staging).await?;
    if let Err(stop) = stands_ready(run, &pods, &mover, watch).await {
        return Err(explained(run, migration, stop).await);
    }
    // Known by its UID from here on: whatever happens, no second one is provisioned.
    migration.record.destination = Some(destination);
    migration.destination_state = Some(state);
    Ok(())
}

/// The staging claim exists, for a new volume or for the one that is known. Where the node is known
/// too, a new volume is there already, or not to be had before a pod asks for it.
async fn claim_staging(
    run: &Run,
    migration: &Migration,
    node: Option<&str>,
) -> Result<PersistentVolumeClaim, Stop> {
    clear_leftovers(run, migration).await?;
    let claims = migration.claims(&run.cluster);
    let reused = match &migration.record.destination {
        Some(known) => Some(claim_again(run, migration, known).await?),
        None => None,
    };
    let mut wanted = staging_claim(&migration.record, reused.as_deref());
    if let Some(node) = node.filter(|_| run.provisions_ahead && reused.is_none()) {
        ahead::select(&mut wanted, node);
    }
    let staging = run.cluster.create(&claims, &wanted).await?;
    let seen = run.cluster.claims_seen(&migration.record.claim.namespace);
    match ahead::wait(&seen.await?, &staging, run.config.stage_limit()).await {
        Ok(()) => Ok(staging),
        Err(stop) => Err(explained(run, migration, stop).await),
    }
}

async fn wait_provisioned(
    run: &Run,
    migration: &Migration,
    staging: PersistentVolumeClaim,
) -> Result<(Volume, PersistentVolume), Stop> {
    match wait_bound(run, migration, staging).await {
        Ok(bound) => destination_of(run, migration, &bound).await,
        Err(stop) => Err(explained(run, migration, stop).await),
    }
}

/// With what is said of the staging claim and the mover by those who make them wait.
async fn explained(run: &Run, migration: &Migration, stop: Stop) -> Stop {
    let (namespace, name) = (&migration.record.claim.namespace, migration.staging_name());
    let objects = [("PersistentVolumeClaim", &*name), ("Pod", &*name)];
    causes::explain(&run.cluster, namespace, stop, &objects).await
}

async fn wait_bound(
    run: &Run,
    migration: &Migration,
    staging: PersistentVolumeClaim,
) -> Result<PersistentVolumeClaim, Stop> {
    let name = migration.staging_name();
    let what = format!(
        "a volume of class {} for claim {}",
        migration.record.destination_class, migration.record.claim
    );
    let namespace = &migration.record.claim.namespace;
    let claims = run.cluster.claims_seen(namespace).await?;
    let limit = run.config.stage_limit();
    wait_seen(&claims, (&name, Some(staging)), &what, limit, |claim| {
        let Some(claim) = claim else {
            return Seen::NotYet("the staging claim is not there".into());
        };
        match claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
        {
            Some("Bound") => Seen::Reached(claim.clone()),
            other => Seen::NotYet(format!(
                "staging claim {name} is {}",
                other.unwrap_or("new")
            )),
        }
    })
    .await
}

/// Removes what is used up: a mover that has ended or is ending, that will end because a Job before
/// has given it its final order, or that was told to work otherwise; and the staging claim that was
/// deleted after it.
async fn clear_leftovers(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let pods = migration.pods(&run.cluster);
    let name = migration.staging_name();
    if let Some(pod) = run.cluster.get(&pods, &name).await?
        && is_used_up(&pod, run, migration)
    {
        let uid = pod.uid().unwrap_or_default();
        run.cluster.delete(&pods, pod, None, |_| Ok(())).await?;
        wait_gone(&pods, &name, &uid, run.config.stage_limit()).await?;
    }
    let namespace = &migration.record.claim.namespace;
    let claims = run.cluster.claims_seen(namespace).await?;
    if let Some(claim) = claims.get(&name)
        && claim.metadata.deletion_timestamp.is_some()
    {
        wait_seen_gone(&claims, claim, run.config.stage_limit()).await?;
    }
    Ok(())
}

fn is_used_up(mover: &Pod, run: &Run, migration: &Migration) -> bool {
    mover.metadata.deletion_timestamp.is_some()
        || is_over(mover)
        || last_order(mover).is_some_and(|order| order.what == What::Final && !order.at_end)
        || is_told_otherwise(mover, &migration.record, &run.config)
}
