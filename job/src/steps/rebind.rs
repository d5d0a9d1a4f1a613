//! Vacated → Rebound: the claim exists again, bound to the volume it heads for, both ways.

use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::Volume;
use serde_json::json;
use tokio::time::Instant;

use crate::causes;
use crate::claim::new_claim;
use crate::migration::{Group, Migration};
use crate::pods::mounted_claims;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{Seen, wait_gone, wait_seen};

/// How long a refusal of the new claim, by a quota or by somebody's webhook, is tried again.
const REFUSAL_LIMIT: Duration = Duration::from_secs(20);
const BIND_LIMIT: Duration = Duration::from_secs(60);
/// How long the volume controller may take to notice a reservation.
const NOTICE_LIMIT: Duration = Duration::from_secs(3);

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    try_join_all(
        group
            .at(Phase::Vacated)
            .map(|migration| rebind(run, migration)),
    )
    .await?;
    Ok(())
}

/// Asks whether the claim could be made again, before its application is stopped for it. Under
/// another name, for its own is taken. Returns whether there is room for it beside the others.
pub async fn is_accepted(run: &Run, migration: &Migration) -> Result<bool, Stop> {
    let mut claim = new_claim(&migration.record, &migration.destination()?.name);
    claim.metadata.name = Some(format!("{}-new", migration.staging_name()));
    match run
        .cluster
        .dry_run(&migration.claims(&run.cluster), &claim)
        .await
    {
        // What the staging claim takes of it, of the same class and no less, is free by then.
        Err(Stop::Refused(why)) if why.contains("exceeded quota") => Ok(false),
        Err(Stop::Refused(why)) => Err(Stop::Refused(format!(
            "claim {} could not be made again: {why}",
            migration.record.claim
        ))),
        other => other.map(|()| true),
    }
}

async fn rebind(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    let heading = migration.record.heading_volume().cloned();
    let heading = heading.ok_or_else(|| Stop::refused("the record names no destination"))?;
    let claims = migration.claims(&run.cluster);
    let wanted = new_claim(&migration.record, &heading.name);
    wait_noticed(run, migration).await?;
    let started = Instant::now();
    let claim = loop {
        let made = run.cluster.create(&claims, &wanted).await;
        match made {
            Ok(claim) if on_volume(&claim, &heading) => break claim,
            Ok(foreign) => remove_foreign(run, migration, foreign).await?,
            // Retried, named, then taken back: the claim is missing, and so is its application.
            Err(Stop::Refused(why)) if started.elapsed() < REFUSAL_LIMIT => {
                tracing::warn!(claim = %migration.record.claim, %why, "the claim is refused; trying again");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(other) => return Err(other),
        }
    };
    migration.record.claim.uid = wait_bound(run, migration, claim).await?;
    // Saved together with what lets the fence down, when all claims of the group are here.
    migration.reach()
}

/// Waits until the volume controller has noticed that the volume is reserved, which it says by
/// Available. A claim that it sees before that is Pending until it looks at everything again, every 15 s:
/// by what it knew the volume was another claim's. It decides nothing, so it is not waited for long.
async fn wait_noticed(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    let known = migration.heading_state(&run.cluster).await?;
    let name = known.name_any();
    let what = format!("volume {name} to be Available");
    let volumes = run.cluster.volumes_seen().await?;
    let known = (name.as_str(), Some(known));
    let claim = &migration.record.claim.name;
    let noticed = wait_seen(&volumes, known, &what, NOTICE_LIMIT, |state| {
        let status = state.and_then(|state| state.status.as_ref());
        let spec = state.and_then(|state| state.spec.as_ref());
        let held = spec.and_then(|spec| spec.claim_ref.as_ref());
        // By a Job before, that has made the claim.
        let is_bound =
            held.is_some_and(|held| held.uid.is_some() && held.name.as_ref() == Some(claim));
        match (state, status.and_then(|status| status.phase.as_deref())) {
            (Some(state), Some("Available")) => Seen::Reached(state.clone()),
            (Some(state), _) if is_bound => Seen::Reached(state.clone()),
            (_, phase) => Seen::NotYet(format!("it is {}", phase.unwrap_or("new"))),
        }
    });
    match noticed.await {
        Ok(state) => migration.set_heading_state(state),
        Err(Stop::Refused(why)) => tracing::info!(%why, "the claim is made all the same"),
        Err(other) => return Err(other),
    }
    Ok(())
}

fn on_volume(claim: &PersistentVolumeClaim, volume: &Volume) -> bool {
    claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.as_deref())
        == Some(volume.name.as_str())
        && claim.metadata.deletion_timestamp.is_none()
}

/// A claim under the name that is not ours is never taken for progress: one that is unbound and
/// unused goes; of any other the volume is kept, and the group stops and names it.
async fn remove_foreign(
    run: &Run,
    migration: &Migration,
    claim: PersistentVolumeClaim,
) -> Result<(), Stop> {
    let name = migration.record.claim.name.clone();
    let claims = migration.claims(&run.cluster);
    let uid = claim.uid().unwrap_or_default();
    if claim.metadata.deletion_timestamp.is_some() {
        return wait_gone(&claims, &name, &uid, run.config.freeze_limit()).await;
    }
    let pods = migration.pods(&run.cluster);
    let pods = run.cluster.list(&pods).await?;
    let user = pods
        .iter()
        .find(|pod| mounted_claims(pod).any(|mounted| mounted == name));
    let volume = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone());
    if volume.is_none() && user.is_none() {
        tracing::warn!(claim = %migration.record.claim, "somebody made an empty claim under this name; it is deleted");
        run.cluster.delete(&claims, claim, None, |_| Ok(())).await?;
        return wait_gone(&claims, &name, &uid, run.config.freeze_limit()).await;
    }
    if let Some(volume) = &volume
        && let Some(state) = run
            .cluster
            .get(&run.cluster.all::<PersistentVolume>(), volume)
            .await?
    {
        let keep = json!({"spec": {"persistentVolumeReclaimPolicy": "Retain"}});
        run.cluster
            .update(&run.cluster.all(), state, |_| Ok(Some(keep.clone())))
            .await?;
    }
    Err(Stop::Api(format!(
        "somebody made another claim {}, on volume {} and used by pod {}: its volume is set to Retain; delete that pod and that claim, and the migration goes on",
        migration.record.claim,
        volume.as_deref().unwrap_or("none"),
        user.map_or_else(|| "none".into(), ResourceExt::name_any),
    )))
}

/// Waits until claim and volume are bound to each other; returns the claim's UID.
async fn wait_bound(
    run: &Run,
    migration: &mut Migration,
    made: PersistentVolumeClaim,
) -> Result<String, Stop> {
    let uid = made.uid().unwrap_or_default();
    let volume = migration.heading_state(&run.cluster).await?;
    let volume_name = volume.name_any();
    let namespace = &migration.record.claim.namespace;
    let name = &migration.record.claim.name;
    let what = format!(
        "claim {} to be Bound to volume {volume_name}",
        migration.record.claim
    );
    let claims = run.cluster.claims_seen(namespace).await?;
    let known = (name.as_str(), Some(made));
    let bound = wait_seen(&claims, known, &what, BIND_LIMIT, |claim| match claim {
        Some(claim) if claim.uid().as_deref() != Some(&uid) => {
            Seen::Never(format!("claim {name} was replaced by somebody else"))
        }
        Some(claim) => match claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
        {
            Some("Bound") => Seen::Reached(()),
            other => Seen::NotYet(format!("it is {}", other.unwrap_or("new"))),
        },
        None => Seen::Never(format!("claim {name} was deleted by somebody else")),
    })
    .await;
    if let Err(stop) = bound {
        return Err(causes::explain(
            &run.cluster,
            namespace,
            stop,
            &[("PersistentVolumeClaim", name)],
        )
        .await);
    }
    let what = format!(
        "volume {volume_name} to be Bound to claim {}",
        migration.record.claim
    );
    let volumes = run.cluster.volumes_seen().await?;
    let known = (volume_name.as_str(), Some(volume));
    let state = wait_seen(&volumes, known, &what, BIND_LIMIT, |state| {
        let Some(state) = state else {
            return Seen::Never(format!("volume {volume_name} is gone"));
        };
        let holds = state
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref())
            .and_then(|r| r.uid.as_deref());
        let phase = state
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        if holds == Some(&uid) && phase == Some("Bound") {
            Seen::Reached(state.clone())
        } else {
            Seen::NotYet(format!(
                "it is {} and holds UID {}",
                phase.unwrap_or("new"),
                holds.unwrap_or("none")
            ))
        }
    })
    .await?;
    migration.set_heading_state(state);
    Ok(uid)
}
