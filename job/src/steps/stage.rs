//! Planned → Staged: the destination exists, bound to the staging claim, a mover has both volumes
//! mounted and waits for its order, and warm passes are done.
//!
//! ```text
//! staging claim  →  mover beside the consumer  →  bound, ready  →  warm passes  →  Staged
//!                     ^                                              │
//!                     └──────── made again where it has died ────────┘
//! ```

mod destination;
pub mod early;
mod make;
mod placement;
mod ready;
mod warm;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::phase::Phase;

use crate::causes;
use crate::migration::{Group, Migration};
use crate::mover::orders::last_order;
use crate::mover::provisioning_pod;
use crate::pods::PodWatch;
use crate::run::Run;
use crate::steps::fence::sizes_now;
use crate::steps::restore::end_mover;
use crate::stop::Stop;
use crate::wait::{Seen, wait_seen};
use destination::destination_of;
use make::{claim_staging, make_mover, new_pod};
use placement::{consumers, placement};
use ready::{runs, stands_ready};
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
        let first = warm::first(run, migration, watch)?;
        let (mover, staging) = Box::pin(make_mover(run, migration, watch, first.as_ref())).await?;
        let is_ordered = first.is_some() && last_order(&mover) == first;
        let ready = if is_ordered {
            // That it is ready shows in what it makes of its order.
            runs(run, &mover, watch).await
        } else {
            stands_ready(run, &migration.pods(&run.cluster), &mover, watch).await
        };
        know_destination(run, migration, &staging).await?;
        let is_deleted = watch.mover(&mover.name_any()).is_none();
        let warmed = match ready {
            Err(Stop::Refused(why)) if is_deleted => Warmed::Died(why),
            ready => {
                explained_if(run, migration, ready).await?;
                let uid = mover.uid().unwrap_or_default();
                let given = first.filter(|_| is_ordered);
                let given = given.map(|first| first.read_by(&uid));
                Box::pin(warm::passes(run, migration, watch, given)).await?
            }
        };
        let why = match warmed {
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
    new_pod(run, migration, &wanted).await?;
    let staging = wait_provisioned(run, migration, staging).await?;
    know_destination(run, migration, &staging).await?;
    // By its end the destination is free for the mover.
    end_mover(run, migration).await
}

/// The destination is provisioned, and known by its UID; a mover has both volumes mounted.
pub async fn stand_ready(
    run: &Run,
    migration: &mut Migration,
    watch: &PodWatch,
) -> Result<(), Stop> {
    let (mover, staging) = Box::pin(make_mover(run, migration, watch, None)).await?;
    let ready = stands_ready(run, &migration.pods(&run.cluster), &mover, watch).await;
    know_destination(run, migration, &staging).await?;
    explained_if(run, migration, ready).await
}

/// From here on the destination is known by its UID: whatever happens, no second one is provisioned.
///
/// It is read when a mover has it, or never will: so far the attacher of its volume has written it.
async fn know_destination(
    run: &Run,
    migration: &mut Migration,
    staging: &PersistentVolumeClaim,
) -> Result<(), Stop> {
    let (destination, state) = destination_of(run, migration, staging).await?;
    migration.record.destination = Some(destination);
    migration.destination_state = Some(state);
    Ok(())
}

async fn wait_provisioned(
    run: &Run,
    migration: &Migration,
    staging: PersistentVolumeClaim,
) -> Result<PersistentVolumeClaim, Stop> {
    let bound = wait_bound(run, migration, staging).await;
    explained_if(run, migration, bound).await
}

async fn explained_if<T>(
    run: &Run,
    migration: &Migration,
    done: Result<T, Stop>,
) -> Result<T, Stop> {
    match done {
        Err(stop) => Err(explained(run, migration, stop).await),
        done => done,
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
