//! Scale: replicas go to 0 and come back. How many there were is noted in the write that takes
//! them away; where only `/scale` can do that, in the write before.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Api, DynamicObject};
use pvmigrate_record::names;
use pvmigrate_record::record::{Frozen, Workload};
use serde_json::json;

use super::{api, get, mark_of, mark_patch, mark_to_lift, marked, ready};
use crate::cluster::Cluster;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// How long a controller may take to see a change of its object.
const OBSERVED_LIMIT: Duration = Duration::from_secs(60);

pub async fn stop(
    cluster: &Cluster,
    workload: &Workload,
    mark: &Frozen,
) -> Result<Timestamp, Stop> {
    let api = api(cluster, workload);
    let mut state = get(cluster, workload).await?;
    if when_scaled(&state) == Some("Delete") {
        state = keep_claims(cluster, &api, state, workload, mark).await?;
    }
    let state = if has_replicas(workload) {
        stop_in_one(cluster, &api, state, workload, mark).await?
    } else {
        stop_by_scale(cluster, &api, state, workload, mark).await?
    };
    Ok(mark_of(&state, workload)?.map_or(mark.at, |frozen| frozen.at))
}

pub async fn start(cluster: &Cluster, workload: &Workload, epoch: u64) -> Result<(), Stop> {
    let api = api(cluster, workload);
    let mut state = get(cluster, workload).await?;
    let in_one = has_replicas(workload);
    if !in_one && mark_of(&state, workload)?.is_some() {
        state = start_by_scale(cluster, &api, state, workload, epoch).await?;
    }
    cluster
        .update(&api, state, |state| {
            let Some(was) = mark_to_lift(state, workload, epoch)? else {
                return Ok(None);
            };
            let mut patch = json!({"metadata": {"annotations": {names::FROZEN: null}}});
            if in_one && ready::replicas(state) == 0 {
                patch["spec"]["replicas"] = json!(was.replicas.unwrap_or(1));
            } else if in_one {
                say_changed(workload);
            }
            if let Some(when_scaled) = &was.when_scaled {
                // Safe together with the replicas: it acts on replicas that are taken away.
                patch["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] =
                    json!(when_scaled);
            }
            Ok(Some(patch))
        })
        .await?;
    Ok(())
}

fn say_changed(workload: &Workload) {
    tracing::warn!(%workload, "somebody has scaled it meanwhile; it is left as it is");
}

/// Whether a kind says in its own spec how many replicas it shall have.
fn has_replicas(workload: &Workload) -> bool {
    matches!(
        (workload.group(), workload.kind.as_str()),
        ("apps", "Deployment" | "StatefulSet" | "ReplicaSet") | ("", "ReplicationController")
    )
}

fn when_scaled(state: &DynamicObject) -> Option<&str> {
    state.data["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"].as_str()
}

fn note_replicas(state: &DynamicObject) -> impl FnOnce(&mut Frozen) {
    let replicas = i32::try_from(ready::replicas(state)).ok();
    move |mark| mark.replicas = replicas
}

/// A set that deletes claims when it is scaled down has to be told not to, and to have heard.
async fn keep_claims(
    cluster: &Cluster,
    api: &Api<DynamicObject>,
    state: DynamicObject,
    workload: &Workload,
    mark: &Frozen,
) -> Result<DynamicObject, Stop> {
    let state = cluster
        .update(api, state, |state| {
            if when_scaled(state) != Some("Delete") {
                return Ok(None);
            }
            let was = marked(state, workload, mark, note_replicas(state))?;
            let mut patch = mark_patch(&Frozen {
                when_scaled: Some("Delete".into()),
                ..was
            })?;
            patch["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = json!("Retain");
            Ok(Some(patch))
        })
        .await?;
    let what = format!("the controller of {workload} to see that claims are to be kept");
    wait_for(
        api,
        &workload.name,
        &what,
        OBSERVED_LIMIT,
        |state| match state {
            Some(state) if ready::is_observed(state) => Seen::Reached(()),
            Some(_) => Seen::NotYet("its observedGeneration is behind".into()),
            None => Seen::Never(format!("{workload} was deleted")),
        },
    )
    .await?;
    Ok(state)
}

async fn stop_in_one(
    cluster: &Cluster,
    api: &Api<DynamicObject>,
    state: DynamicObject,
    workload: &Workload,
    mark: &Frozen,
) -> Result<DynamicObject, Stop> {
    cluster
        .update(api, state, |state| {
            let was = marked(state, workload, mark, note_replicas(state))?;
            let is_marked = mark_of(state, workload)?.as_ref() == Some(&was);
            if ready::replicas(state) == 0 && is_marked {
                return Ok(None);
            }
            let mut patch = mark_patch(&was)?;
            patch["spec"]["replicas"] = json!(0);
            Ok(Some(patch))
        })
        .await
}

/// Only its `/scale` says how many replicas a custom resource has: the note comes first.
async fn stop_by_scale(
    cluster: &Cluster,
    api: &Api<DynamicObject>,
    state: DynamicObject,
    workload: &Workload,
    mark: &Frozen,
) -> Result<DynamicObject, Stop> {
    let replicas = cluster.scale_of(api, &state).await?;
    let state = cluster
        .update(api, state, |state| {
            let was = marked(state, workload, mark, |mark| mark.replicas = Some(replicas))?;
            let is_marked = mark_of(state, workload)?.as_ref() == Some(&was);
            (!is_marked).then(|| mark_patch(&was)).transpose()
        })
        .await?;
    cluster
        .update_scale(api, state, |state, now| {
            match mark_to_lift(state, workload, mark.epoch)? {
                None => Err(Stop::refused(format!(
                    "somebody has taken the mark {} off {workload}",
                    names::FROZEN
                ))),
                Some(_) => Ok((now != 0).then_some(0)),
            }
        })
        .await
}

async fn start_by_scale(
    cluster: &Cluster,
    api: &Api<DynamicObject>,
    state: DynamicObject,
    workload: &Workload,
    epoch: u64,
) -> Result<DynamicObject, Stop> {
    cluster
        .update_scale(api, state, |state, now| {
            let was = mark_to_lift(state, workload, epoch)?;
            let was = was.and_then(|was| was.replicas).unwrap_or(now);
            if now != 0 && now != was {
                say_changed(workload);
            }
            Ok((now == 0 && was != 0).then_some(was))
        })
        .await
}
