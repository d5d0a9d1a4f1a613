//! Thawed → Done: the volume left behind is kept for a way back, or given to its provisioner.
//!
//! A volume object is never deleted by us: with policy Retain that would leak what is behind it.
//! It gets its policy Delete back while it is Released, and its provisioner does the rest.

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::phase::{Heading, Phase};
use serde_json::json;

use crate::config::SourceVolumes;
use crate::migration::{Group, Migration};
use crate::run::Run;
use crate::steps::reserve::delete_staging;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// A claim that never existed: a volume that refers to it is Released, and free for no other.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    try_join_all(
        group
            .at(Phase::Thawed)
            .map(|migration| finish(run, migration)),
    )
    .await?;
    Ok(())
}

async fn finish(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    migration.unmark_claim(&run.cluster).await?;
    match migration.record.heading {
        Heading::Destination => {
            unmark_destination(run, migration).await?;
            leave_source(run, migration).await
        }
        Heading::Source => {
            delete_staging(run, migration).await?;
            dispose_of_destination(run, migration).await?;
            migration.advance(&run.cluster).await
        }
    }
}

/// The destination is an ordinary volume from here on, with its lasting policy.
async fn unmark_destination(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let state = migration.destination_volume(&run.cluster).await?;
    let patch = json!({
        "metadata": {
            "labels": {names::RUN: null, names::ROLE: null},
            "annotations": {names::SOURCE: null, names::RECLAIM_POLICY: null},
        },
        "spec": {"persistentVolumeReclaimPolicy": run.lasting_policy(&migration.record)},
    });
    let run_of = migration.record.run.clone();
    run.cluster
        .update(&run.cluster.all::<PersistentVolume>(), state, |state| {
            Ok((state.labels().get(names::RUN) == Some(&run_of)).then(|| patch.clone()))
        })
        .await?;
    Ok(())
}

async fn leave_source(run: &Run, migration: &mut Migration) -> Result<(), Stop> {
    let source = migration.record.source.clone();
    let provisioned = migration
        .volume
        .annotations()
        .contains_key("pv.kubernetes.io/provisioned-by");
    if run.config.source_volumes == SourceVolumes::Keep {
        return migration.advance(&run.cluster).await;
    }
    if !provisioned {
        tracing::warn!(volume = %source.name, "no provisioner made this volume, so none can delete it; it is kept");
        return migration.advance(&run.cluster).await;
    }
    // The record goes with the volume: it says Done in the write that lets the volume go.
    migration
        .advance_with(
            &run.cluster,
            json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}}),
        )
        .await?;
    if let Err(stop) = wait_deleted(run, &source.name, &source.uid).await {
        tracing::warn!(volume = %source.name, why = %stop, "the source is not deleted yet; its provisioner goes on");
    }
    Ok(())
}

/// Gives back what was provisioned for a migration that did not come about.
async fn dispose_of_destination(run: &Run, migration: &Migration) -> Result<(), Stop> {
    let Some(destination) = &migration.record.destination else {
        return Ok(());
    };
    let api = run.cluster.all::<PersistentVolume>();
    let found = run.cluster.get(&api, &destination.name).await?;
    let Some(state) =
        found.filter(|state| state.uid().as_deref() == Some(destination.uid.as_str()))
    else {
        return Ok(());
    };
    // One that is reserved by name is not Released: it has to refer to a claim that is gone.
    let reference = json!({"kind": "PersistentVolumeClaim", "apiVersion": "v1", "uid": NOBODY,
        "namespace": migration.record.claim.namespace, "name": migration.staging_name()});
    run.cluster
        .update_json(&api, state, |state| {
            let held = state
                .spec
                .as_ref()
                .and_then(|spec| spec.claim_ref.clone())
                .unwrap_or_default();
            Ok(held.uid.is_none().then(|| {
                vec![json!({"op": "replace", "path": "/spec/claimRef", "value": reference})]
            }))
        })
        .await?;
    let what = format!("volume {} to be Released", destination.name);
    let limit = run.config.volume_delete_limit();
    let released = wait_for(&api, &destination.name, &what, limit, |state| {
        let Some(state) = state else {
            return Seen::Reached(None);
        };
        match state
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
        {
            Some("Released" | "Failed") => Seen::Reached(Some(state.clone())),
            other => Seen::NotYet(format!("it is {}", other.unwrap_or("new"))),
        }
    })
    .await?;
    let Some(state) = released else { return Ok(()) };
    let patch = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
    run.cluster
        .update(&api, state, |_| Ok(Some(patch.clone())))
        .await?;
    if let Err(stop) = wait_deleted(run, &destination.name, &destination.uid).await {
        tracing::warn!(volume = %destination.name, why = %stop, "the unused destination is not deleted yet; its provisioner goes on");
    }
    Ok(())
}

async fn wait_deleted(run: &Run, name: &str, uid: &str) -> Result<(), Stop> {
    let what = format!("the provisioner to delete volume {name}");
    let api = run.cluster.all::<PersistentVolume>();
    wait_for(
        &api,
        name,
        &what,
        run.config.volume_delete_limit(),
        |state| match state {
            Some(state) if state.uid().as_deref() == Some(uid) => {
                let message = state
                    .status
                    .as_ref()
                    .and_then(|status| status.message.clone());
                Seen::NotYet(message.unwrap_or_else(|| "it still exists".into()))
            }
            _ => Seen::Reached(()),
        },
    )
    .await
}
