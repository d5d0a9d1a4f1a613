//! Hold: the spec is not touched. Pods are deleted, the fence refuses their replacements, and after
//! the thaw whatever makes the pods is woken.
//!
//! A controller whose pods were refused waits longer and longer before it tries again. Any change
//! of its object makes it try at once; so each gets an annotation, and again as long as its pods
//! are missing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use pvmigrate_record::names;
use pvmigrate_record::record::{Frozen, Workload};
use serde_json::{Map, Value, json};

use super::ready::is_observed;
use super::{api, find, get, is_custom, mark_of, mark_patch, mark_to_lift, marked, owners};
use crate::cluster::Cluster;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for};

/// How long after it was woken a controller may take before it is woken again; doubled each time.
const WAKE_AGAIN: Duration = Duration::from_secs(1);
const WAKE_AT_LEAST_EVERY: Duration = Duration::from_secs(16);
const OBSERVED_LIMIT: Duration = Duration::from_secs(30);

/// Notes on the workload that it is about to be held. A custom resource that we may not write is
/// held all the same: it is its pods that go.
pub async fn mark(
    cluster: &Cluster,
    workload: &Workload,
    mark: &Frozen,
) -> Result<Timestamp, Stop> {
    let state = match get(cluster, workload).await {
        Err(Stop::Refused(why)) if is_custom(workload) => {
            return Ok(unmarked(workload, mark, &why));
        }
        state => state?,
    };
    // Before it is written: what this refuses is meant.
    marked(&state, workload, mark, |_| {})?;
    let api = api(cluster, workload);
    let written = cluster
        .update(&api, state, |state| {
            let was = marked(state, workload, mark, |_| {})?;
            let is_marked = mark_of(state, workload)?.as_ref() == Some(&was);
            (!is_marked).then(|| mark_patch(&was)).transpose()
        })
        .await;
    match written {
        Ok(state) => Ok(mark_of(&state, workload)?.map_or(mark.at, |mark| mark.at)),
        Err(Stop::Refused(why)) if is_custom(workload) => Ok(unmarked(workload, mark, &why)),
        Err(other) => Err(other),
    }
}

fn unmarked(workload: &Workload, mark: &Frozen, why: &str) -> Timestamp {
    tracing::info!(%workload, %why, "it is held without a mark of its own");
    mark.at
}

/// Wakes what makes the held pods, and takes the mark off. Nothing to do for a workload that was
/// never marked, unless it is one that may not be.
pub async fn let_go(cluster: &Cluster, workload: &Workload, epoch: u64) -> Result<(), Stop> {
    let state = match find(cluster, workload).await {
        Err(Stop::Refused(why)) if is_custom(workload) => {
            tracing::info!(%workload, %why, "it cannot be read; what it controls is woken");
            return wake_below(cluster, workload).await;
        }
        state => state?,
    };
    let Some(state) = state else {
        return Err(Stop::refused(format!("{workload} does not exist any more")));
    };
    if mark_to_lift(&state, workload, epoch)?.is_none() && !is_custom(workload) {
        return Ok(());
    }
    // First what stands below, for without the mark nobody would know that it is to be woken.
    wake_below(cluster, workload).await?;
    let lifted = cluster
        .update(&api(cluster, workload), state, |state| {
            let mark = mark_to_lift(state, workload, epoch)?;
            // Losing its mark wakes a controller too.
            let lift = mark.map(|_| json!({"metadata": {"annotations": {names::FROZEN: null}}}));
            Ok(lift.or_else(|| is_custom(workload).then(wake_patch)))
        })
        .await;
    match lifted {
        Err(Stop::Refused(why)) if is_custom(workload) => {
            tracing::warn!(%workload, %why, "it cannot be woken");
            Ok(())
        }
        other => other.map(|_| ()),
    }
}

/// Takes off what waking has left, and our mark where a Deployment's controller has copied it to a
/// ReplicaSet: `kubectl rollout undo` would bring it back from there. ReplicaSets come last, when
/// nothing is left that could be copied to them.
///
/// `is_woken` says whether any of it may have been woken, by this Job or one before.
pub async fn tidy(cluster: &Cluster, workload: &Workload, is_woken: bool) -> Result<(), Stop> {
    let may_be_copied = workload.kind == "Deployment" || is_custom(workload);
    for copies in [false, true] {
        if copies && !may_be_copied || !copies && !is_woken {
            continue;
        }
        let mut all = owners::all_below(cluster, workload).await?;
        if !copies {
            match find(cluster, workload).await {
                Err(Stop::Refused(why)) if is_custom(workload) => {
                    tracing::debug!(%workload, %why, "it cannot be read");
                }
                state => all.extend(state?.map(|state| (workload.clone(), state))),
            }
        }
        for (owner, state) in all {
            let is_copy = owner.kind == "ReplicaSet" && owner != *workload;
            if is_copy != copies {
                continue;
            }
            match clear(cluster, &owner, state, is_copy).await {
                Err(Stop::Refused(why)) => {
                    tracing::warn!(workload = %owner, %why, "an annotation of ours may stay");
                }
                other => other?,
            }
        }
    }
    Ok(())
}

/// Takes off one object what waking has left, and our mark if it can only be a copy. What a
/// Deployment's controller has not seen yet, it may still copy.
async fn clear(
    cluster: &Cluster,
    owner: &Workload,
    state: DynamicObject,
    is_copy: bool,
) -> Result<(), Stop> {
    let api = api(cluster, owner);
    let mut ours = vec![names::WOKEN];
    ours.extend(is_copy.then_some(names::FROZEN));
    cluster
        .update(&api, state, |state| {
            let left = ours
                .iter()
                .filter(|name| state.annotations().contains_key(**name));
            let gone: Map<String, Value> =
                left.map(|name| (name.to_string(), Value::Null)).collect();
            Ok((!gone.is_empty()).then(|| json!({"metadata": {"annotations": gone}})))
        })
        .await?;
    if owner.kind != "Deployment" {
        return Ok(());
    }
    // Of the kinds that Kubernetes comes with, this one counts changes of annotations too.
    let what = format!("the controller of {owner} to see that our annotations are gone");
    wait_for(
        &api,
        &owner.name,
        &what,
        OBSERVED_LIMIT,
        |state| match state {
            // Another of this name never had them.
            Some(state) if state.uid().as_deref() == Some(&owner.uid) && !is_observed(state) => {
                Seen::NotYet("its observedGeneration is behind".into())
            }
            _ => Seen::Reached(()),
        },
    )
    .await
}

/// Wakes a workload, and what it controls, again and again as long as its pods are missing, and says when
/// it has begun to. Never ends by itself.
pub async fn keep_waking(
    cluster: &Cluster,
    workload: &Workload,
    is_missing: impl Fn() -> bool,
    begun: &AtomicBool,
) -> std::convert::Infallible {
    let mut pause = WAKE_AGAIN;
    loop {
        tokio::time::sleep(pause).await;
        if !is_missing() {
            // It was made, and starts.
            continue;
        }
        pause = (pause * 2).min(WAKE_AT_LEAST_EVERY);
        begun.store(true, Ordering::SeqCst);
        tracing::info!(%workload, "its pods are not Ready yet; it is woken once more");
        if let Err(why) = wake(cluster, workload).await {
            tracing::warn!(%workload, %why, "it cannot be woken");
        }
    }
}

/// Changes the workload and everything below it that makes pods.
async fn wake(cluster: &Cluster, workload: &Workload) -> Result<(), Stop> {
    wake_below(cluster, workload).await?;
    if let Some(state) = find(cluster, workload).await? {
        wake_object(cluster, workload, state).await?;
    }
    Ok(())
}

/// Wakes the objects between a workload and its pods, such as the ReplicaSets of a Deployment. One
/// that cannot be woken is named: its controller tries again by itself, later.
pub async fn wake_below(cluster: &Cluster, workload: &Workload) -> Result<(), Stop> {
    for (owner, state) in owners::below(cluster, workload).await? {
        match wake_object(cluster, &owner, state).await {
            Err(Stop::Refused(why)) => {
                tracing::warn!(workload = %owner, %why, "it cannot be woken");
            }
            other => other?,
        }
    }
    Ok(())
}

async fn wake_object(
    cluster: &Cluster,
    workload: &Workload,
    state: DynamicObject,
) -> Result<(), Stop> {
    let patch = wake_patch();
    cluster
        .update(&api(cluster, workload), state, |_| Ok(Some(patch.clone())))
        .await?;
    Ok(())
}

fn wake_patch() -> Value {
    json!({"metadata": {"annotations": {names::WOKEN: Timestamp::now().to_string()}}})
}
