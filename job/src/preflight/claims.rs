//! Each claim by itself: whether it is what it seems, and can be copied and made again.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::names;

use super::{claims, in_progress};
use crate::config::Config;
use crate::observe::{Observed, controller, is_built_in};
use crate::plan::{Plan, full_name};

pub fn are_bound_both_ways(observed: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let planned = claims(plan).flat_map(|claim| unbound(observed, claim));
    let lost = observed.claims.iter().filter(|claim| {
        let name = full_name(claim);
        phase(claim) == Some("Lost") && plan.left.iter().any(|(left, _)| *left == name)
    });
    let lost = lost.map(|claim| {
        let spec = claim.spec.as_ref();
        let volume = spec.and_then(|spec| spec.volume_name.as_deref());
        format!(
            "claim {} is Lost: its volume {} does not exist any more; delete the claim, or leave it out",
            full_name(claim),
            volume.unwrap_or_default()
        )
    });
    planned.chain(lost).collect()
}

fn phase(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

fn unbound(observed: &Observed, claim: &PersistentVolumeClaim) -> Vec<String> {
    let mut all = Vec::new();
    let name = full_name(claim);
    let phase = phase(claim);
    if claim.metadata.deletion_timestamp.is_some() {
        all.push(format!(
            "claim {name} is being deleted: wait until it is gone"
        ));
    } else if phase != Some("Bound") {
        all.push(format!(
            "claim {name} is {}: only a Bound claim can be migrated",
            phase.unwrap_or("new")
        ));
    }
    let Some(volume) = observed.volume_of(claim) else {
        return all;
    };
    let held = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.claim_ref.clone())
        .unwrap_or_default();
    if held.uid != claim.uid() {
        all.push(format!(
            "claim {name} says it is bound to volume {}, which holds another claim",
            volume.name_any()
        ));
    } else if let Some(other) = phase_of(volume).filter(|phase| *phase != "Bound") {
        all.push(format!(
            "volume {} of claim {name} is {other}: only a Bound volume can be migrated",
            volume.name_any()
        ));
    }
    if volume.metadata.deletion_timestamp.is_some() {
        all.push(format!(
            "volume {} of claim {name} is being deleted: its data goes with the claim",
            volume.name_any()
        ));
    }
    all
}

fn phase_of(volume: &PersistentVolume) -> Option<&str> {
    volume.status.as_ref()?.phase.as_deref()
}

pub fn can_be_made_again(observed: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        for finalizer in claim.finalizers() {
            let is_explained = finalizer == in_progress::SNAPSHOT_FINALIZER
                && in_progress::snapshots_of(observed, claim).next().is_some();
            if finalizer != "kubernetes.io/pvc-protection" && !is_explained {
                all.push(format!("claim {} has the finalizer {finalizer}: it would not go while its owner wants to keep it", full_name(claim)));
            }
        }
        let asked_for = claim.annotations().get(names::MIGRATE).map(String::as_str) == Some("true");
        let controller = controller(claim).filter(|_| !asked_for);
        if let Some(owner) = controller
            && !is_built_in(&owner.api_version, &owner.kind)
        {
            all.push(format!("claim {} is controlled by {} {}: what that does about a missing claim is not known; annotate the claim with {}: \"true\" to have it migrated all the same", full_name(claim), owner.kind, owner.name, names::MIGRATE));
        }
    }
    all
}
