//! Verified → Reserved: the staging claim is gone, or going, and the volume that the claim heads for is
//! reserved for the claim's name.
//!
//! ```text
//! mover ended by its kubelet's word  →  mover deleted  →  staging claim deleted  →  volume Released,
//!     or with an anchor: held by nobody but that claim, which is Terminating
//!     →  claimRef = {namespace, name} without uid: only a claim of that name can take it
//! ```

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::Record;
use serde_json::json;

use crate::claim::refresh;
use crate::migration::{Group, Migration};
use crate::pods::{PodWatch, has_ended};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for, wait_seen, wait_seen_gone};

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let names = group.claims.iter().map(|claim| &claim.record.claim.name);
    let anchored: Vec<String> = names
        .filter(|name| group.is_anchored(name))
        .cloned()
        .collect();
    let Group { claims, watch, .. } = group;
    let watch = watch.as_deref();
    // From here until Rebound the claims may be missing: nothing may collect the fence.
    let records: Vec<Record> = claims.iter().map(|claim| claim.record.clone()).collect();
    let records: Vec<&Record> = records.iter().collect();
    let verified = claims
        .iter_mut()
        .filter(|claim| claim.record.phase == Phase::Verified);
    let reserved = verified.map(|migration| {
        let is_anchored = anchored.contains(&migration.record.claim.name);
        reserve(run, migration, watch, is_anchored)
    });
    tokio::try_join!(try_join_all(reserved), run.fence.raise(&records))?;
    Ok(())
}

async fn reserve(
    run: &Run,
    migration: &mut Migration,
    watch: Option<&PodWatch>,
    is_anchored: bool,
) -> Result<(), Stop> {
    let mut going = None;
    if migration.record.heading == Heading::Destination {
        nobody_came(migration, watch)?;
        let claim = only_protected(run, migration).await?;
        refresh(&mut migration.record.manifest, &claim);
        tracing::debug!(claim = %migration.record.claim, "nobody came");
        end_mover(run, migration, watch).await?;
        tracing::debug!(claim = %migration.record.claim, "the mover has ended");
        let staging = ask_staging(run, migration).await?;
        if is_anchored {
            going = staging.and_then(|staging| staging.uid());
        } else if let Some(staging) = staging {
            staging_gone(run, staging).await?;
        }
        tracing::debug!(claim = %migration.record.claim, "the staging claim is gone, or going");
    }
    let claim = migration.record.claim.clone();
    let state = migration.heading_state(&run.cluster).await?;
    let is_taken = |state: &PersistentVolume| is_bound(state) && !is_of(state, going.as_deref());
    let state = wait_free(run, state, is_taken).await?;
    tracing::debug!(%claim, "the volume is released");
    let reference = json!({
        "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.namespace, "name": claim.name,
    });
    let reserved = run
        .cluster
        .update_json(&run.cluster.all::<PersistentVolume>(), state, |state| {
            let held = state
                .spec
                .as_ref()
                .and_then(|spec| spec.claim_ref.clone())
                .unwrap_or_default();
            let is_reserved = held.uid.is_none()
                && held.namespace.as_deref() == Some(claim.namespace.as_str())
                && held.name.as_deref() == Some(claim.name.as_str());
            if is_taken(state) {
                return Err(Stop::Refused(format!(
                    "volume {} was bound by somebody else",
                    state.name_any()
                )));
            }
            Ok((!is_reserved).then(|| {
                vec![json!({"op": "replace", "path": "/spec/claimRef", "value": reference})]
            }))
        })
        .await?;
    migration.set_heading_state(reserved);
    migration.advance(&run.cluster).await
}

pub fn is_bound(volume: &PersistentVolume) -> bool {
    volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some("Bound")
}

/// Whether a volume is bound to the staging claim with this UID, which is deleted and stays only for
/// as long as an anchor does: nobody else can use that claim any more.
fn is_of(volume: &PersistentVolume, going: Option<&str>) -> bool {
    let held = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.as_ref());
    going.is_some() && held.and_then(|held| held.uid.as_deref()) == going
}

/// Waits until a volume whose claim is gone, or going, says so. One that anybody else is bound to is
/// never touched.
async fn wait_free(
    run: &Run,
    known: PersistentVolume,
    is_taken: impl Fn(&PersistentVolume) -> bool,
) -> Result<PersistentVolume, Stop> {
    let name = known.name_any();
    let what = format!("volume {name} to be Released");
    let volumes = run.cluster.volumes_seen().await?;
    let limit = run.config.freeze_limit();
    let known = (name.as_str(), Some(known));
    wait_seen(&volumes, known, &what, limit, |state| match state {
        Some(state) if !is_taken(state) => Seen::Reached(state.clone()),
        state => released(state, &name),
    })
    .await
}

pub fn released(state: Option<&PersistentVolume>, name: &str) -> Seen<PersistentVolume> {
    match state {
        Some(state) if is_bound(state) => Seen::NotYet("it is Bound".into()),
        Some(state) => Seen::Reached(state.clone()),
        None => Seen::Never(format!("volume {name} is gone")),
    }
}

/// A create that was admitted before the fence can be stored late; a gap may have hidden one.
pub fn nobody_came(migration: &Migration, watch: Option<&PodWatch>) -> Result<(), Stop> {
    let claim = &migration.record.claim;
    let late = match watch {
        Some(watch) => watch.late(&claim.name),
        None => Some("the pods were not watched".into()),
    };
    match late {
        Some(why) => Err(Stop::Repeat(format!("claim {claim}: {why}"))),
        None => Ok(()),
    }
}

/// The claim is the one that was fenced, and only its protection keeps it.
async fn only_protected(run: &Run, migration: &Migration) -> Result<PersistentVolumeClaim, Stop> {
    let wanted = &migration.record.claim;
    let claim = migration.claim_seen(&run.cluster).await?;
    let claim = claim.filter(|claim| claim.uid().as_deref() == Some(wanted.uid.as_str()));
    let claim = claim
        .ok_or_else(|| Stop::refused(format!("claim {wanted} was deleted by somebody else")))?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Stop::refused(format!(
            "claim {wanted} is being deleted by somebody else"
        )));
    }
    match claim
        .finalizers()
        .iter()
        .find(|finalizer| *finalizer != "kubernetes.io/pvc-protection")
    {
        Some(other) => Err(Stop::refused(format!(
            "claim {wanted} has the finalizer {other}: it would stay Terminating for as long as its owner wants"
        ))),
        None => Ok(claim),
    }
}

/// Deletes the mover, and lets go of it once its kubelet has reported it ended: only then are both
/// volumes free. Asking it to end makes the kubelet look at once; on its own it looks every second.
async fn end_mover(run: &Run, migration: &Migration, watch: Option<&PodWatch>) -> Result<(), Stop> {
    let pods = migration.pods(&run.cluster);
    let name = migration.staging_name();
    if let Some(ended) = watch.and_then(|watch| watch.mover(&name)).filter(has_ended) {
        return run.cluster.delete(&pods, ended, Some(0), |_| Ok(())).await;
    }
    let Some(pod) = run.cluster.get(&pods, &name).await? else {
        return Ok(());
    };
    if !has_ended(&pod) {
        run.cluster.delete(&pods, pod, None, |_| Ok(())).await?;
    }
    tracing::debug!(name, "the mover is told to end");
    let what = format!("mover {name} to end");
    let limit = run.config.freeze_limit();
    let ended: Option<Pod> = wait_for(&pods, &name, &what, limit, |pod| match pod {
        None => Seen::Reached(None),
        Some(pod) if has_ended(pod) => Seen::Reached(Some(pod.clone())),
        Some(_) => Seen::NotYet("its kubelet reports it running".into()),
    })
    .await?;
    match ended {
        Some(pod) => run.cluster.delete(&pods, pod, Some(0), |_| Ok(())).await,
        None => Ok(()),
    }
}

pub async fn delete_staging(run: &Run, migration: &Migration) -> Result<(), Stop> {
    match ask_staging(run, migration).await? {
        Some(staging) => staging_gone(run, staging).await,
        None => Ok(()),
    }
}

/// Has the staging claim deleted; returns it as it was, if there is one.
async fn ask_staging(
    run: &Run,
    migration: &Migration,
) -> Result<Option<PersistentVolumeClaim>, Stop> {
    let claims = migration.claims(&run.cluster);
    let namespace = &migration.record.claim.namespace;
    let seen = run.cluster.claims_seen(namespace).await?;
    let Some(staging) = seen.get(&migration.staging_name()) else {
        return Ok(None);
    };
    run.cluster
        .delete(&claims, staging.clone(), None, |_| Ok(()))
        .await?;
    Ok(Some(staging))
}

async fn staging_gone(run: &Run, staging: PersistentVolumeClaim) -> Result<(), Stop> {
    let namespace = staging.namespace().unwrap_or_default();
    let seen = run.cluster.claims_seen(&namespace).await?;
    wait_seen_gone(&seen, staging, run.config.freeze_limit()).await
}
