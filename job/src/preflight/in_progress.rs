//! What is being done with a claim's volume by others, and would break or be broken.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::claims;
use crate::claim::storage;
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::quantity::bytes;

/// What holds a claim while a snapshot of it is taken.
pub const SNAPSHOT_FINALIZER: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";

/// Conditions of a claim that is being resized, or whose resize has failed.
const RESIZING: [&str; 4] = [
    "Resizing",
    "FileSystemResizePending",
    "ControllerResizeError",
    "NodeResizeError",
];

pub fn nothing_is_in_progress(observed: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        let name = full_name(claim);
        for snapshot in snapshots_of(observed, claim) {
            all.push(format!(
                "VolumeSnapshot {} of claim {name} is not ready to use: wait until it is, or delete it",
                snapshot.name_any()
            ));
        }
        let waiting = observed.surroundings.clones.values();
        for clone in waiting.filter(|other| is_clone(other, claim)) {
            all.push(format!(
                "claim {} is to become a clone of claim {name} and is not Bound: wait until it is, or delete it",
                full_name(clone)
            ));
        }
        if let Some(how) = resize(claim) {
            all.push(format!(
                "claim {name} is being resized ({how}): wait until that has ended; one that waits for the file system needs a pod that mounts it"
            ));
        }
    }
    all
}

/// The snapshots of a claim that are not ready yet.
pub fn snapshots_of<'a>(
    observed: &'a Observed,
    claim: &'a PersistentVolumeClaim,
) -> impl Iterator<Item = &'a DynamicObject> {
    let all = observed.surroundings.snapshots.iter();
    all.filter(move |snapshot| {
        let source = &snapshot.data["spec"]["source"]["persistentVolumeClaimName"];
        snapshot.namespace() == claim.namespace()
            && source.as_str() == claim.metadata.name.as_deref()
            && snapshot.data["status"]["readyToUse"].as_bool() != Some(true)
    })
}

fn is_clone(other: &PersistentVolumeClaim, claim: &PersistentVolumeClaim) -> bool {
    let Some(source) = other
        .spec
        .as_ref()
        .and_then(|spec| spec.data_source.as_ref())
    else {
        return false;
    };
    let phase = other
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    source.kind == "PersistentVolumeClaim"
        && Some(&source.name) == claim.metadata.name.as_ref()
        && other.namespace() == claim.namespace()
        && phase == Some("Pending")
}

/// How a resize of the claim stands, unless there is none.
fn resize(claim: &PersistentVolumeClaim) -> Option<String> {
    let status = claim.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let resizing: Vec<&str> = conditions
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.type_.as_str())
        .filter(|condition| RESIZING.contains(condition))
        .collect();
    if !resizing.is_empty() {
        return Some(resizing.join(", "));
    }
    let requests = claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref();
    let (has, asks) = (storage(status.capacity.as_ref()), storage(requests));
    // Without a word about its capacity there is nothing to compare.
    status.capacity.as_ref()?;
    (bytes(&has)? < bytes(&asks)?).then(|| format!("it has {has} and asks for {asks}"))
}

#[cfg(test)]
mod tests;
