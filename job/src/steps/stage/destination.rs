//! The volume that takes over: provisioned for the staging claim, or known already.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::Heading;
use pvmigrate_record::record::Volume;
use serde_json::json;

use crate::claim::{requested, storage};
use crate::migration::{Migration, volume};
use crate::quantity::bytes;
use crate::run::Run;
use crate::steps::reserve::{is_bound, released};
use crate::stop::Stop;
use crate::wait::wait_for;

/// The volume behind the staging claim, if it can take over.
pub async fn destination_of(
    run: &Run,
    migration: &Migration,
    staging: &PersistentVolumeClaim,
) -> Result<(Volume, PersistentVolume), Stop> {
    let name = staging
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_name.clone())
        .unwrap_or_default();
    let found: Option<PersistentVolume> = run.cluster.get(&run.cluster.all(), &name).await?;
    let found =
        found.ok_or_else(|| Stop::refused(format!("volume {name} vanished after it was bound")))?;
    let spec = found.spec.clone().unwrap_or_default();
    let (has, needs) = (
        storage(spec.capacity.as_ref()),
        requested(&migration.record.manifest, Heading::Destination),
    );
    if bytes(&has) < bytes(needs) {
        return Err(Stop::refused(format!(
            "class {} made volume {name} with {has} for claim {}, which asks for {needs}",
            migration.record.destination_class, migration.record.claim
        )));
    }
    if spec.storage_class_name.as_deref() != Some(migration.record.destination_class.as_str()) {
        return Err(Stop::refused(format!(
            "volume {name} is of class {:?}, not {}",
            spec.storage_class_name, migration.record.destination_class
        )));
    }
    // One that is Filesystem may leave it out.
    let mode = spec.volume_mode.as_deref().unwrap_or("Filesystem");
    if mode != migration.record.manifest.volume_mode {
        return Err(Stop::refused(format!(
            "volume {name} has volumeMode {mode}, claim {} has {}",
            migration.record.claim, migration.record.manifest.volume_mode
        )));
    }
    let known = migration.record.destination.as_ref();
    let volume = Volume {
        uid: found.uid().unwrap_or_default(),
        // What it was before we kept it; a destination that is staged again is kept already.
        reclaim_policy: known.map_or_else(
            || {
                spec.persistent_volume_reclaim_policy
                    .clone()
                    .unwrap_or_else(|| "Delete".into())
            },
            |known| known.reclaim_policy.clone(),
        ),
        name,
    };
    Ok((volume, found))
}

/// It may carry no mark yet, so it is in no view.
async fn wait_released_again(run: &Run, known: &Volume) -> Result<PersistentVolume, Stop> {
    volume(&run.cluster, known).await?;
    let (api, limit) = (run.cluster.all(), run.config.freeze_limit());
    let what = format!("volume {} to be Released", known.name);
    wait_for(&api, &known.name, &what, limit, |state| {
        released(state, &known.name)
    })
    .await
}

/// Reserves a destination that exists for a new staging claim, where the old one is gone: after a
/// way back, or a Job that ended between the claims.
pub async fn claim_again(run: &Run, migration: &Migration, known: &Volume) -> Result<String, Stop> {
    let name = migration.staging_name();
    let staged = run
        .cluster
        .get(&migration.claims(&run.cluster), &name)
        .await?;
    if staged.is_none() {
        let state = wait_released_again(run, known).await?;
        let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1",
            "namespace": migration.record.claim.namespace, "name": name});
        run.cluster
            .update_json(&run.cluster.all::<PersistentVolume>(), state, |state| {
                if is_bound(state) {
                    return Err(Stop::Refused(format!(
                        "volume {} was bound by somebody else",
                        known.name
                    )));
                }
                let held = state
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.claim_ref.clone())
                    .unwrap_or_default();
                if held.name.as_deref() == Some(name.as_str()) && held.uid.is_none() {
                    return Ok(None);
                }
                Ok(Some(vec![
                    json!({"op": "replace", "path": "/spec/claimRef", "value": reference}),
                ]))
            })
            .await?;
    }
    Ok(known.name.clone())
}
