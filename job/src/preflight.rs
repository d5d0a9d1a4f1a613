//! What can be known before anything is touched. Pure: an ordered list of checks of one shape,
//! whose sentences are reported together.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::record::Frozen;

use crate::config::Config;
use crate::observe::{Observed, record_of};
use crate::plan::{Plan, full_name};

type Check = fn(&Observed, &Config, &Plan) -> Vec<String>;

/// Adding a check is one function and one line.
const CHECKS: [Check; 9] = [
    api_is_new_enough,
    classes_exist,
    namespaces_exist,
    workloads_can_be_stopped,
    namespaces_are_ordinary,
    claims_are_bound_both_ways,
    claims_can_be_copied,
    claims_can_be_made_again,
    nobody_else_is_at_work,
];

/// All that stands against the plan, one sentence each; empty if nothing does.
pub fn refusals(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    CHECKS
        .iter()
        .flat_map(|check| check(observed, config, plan))
        .collect()
}

fn claims(plan: &Plan) -> impl Iterator<Item = &PersistentVolumeClaim> {
    plan.groups.iter().flat_map(|group| &group.claims)
}

fn api_is_new_enough(observed: &Observed, _: &Config, _: &Plan) -> Vec<String> {
    let (major, minor) = observed.version;
    if (major, minor) >= (1, 30) {
        return Vec::new();
    }
    vec![format!(
        "the API server is version {major}.{minor}: the fence needs Kubernetes 1.30 or newer"
    )]
}

fn classes_exist(observed: &Observed, config: &Config, _: &Plan) -> Vec<String> {
    let known: Vec<&str> = observed.classes.keys().map(String::as_str).collect();
    [("sourceSC", &config.source_sc), ("destSC", &config.dest_sc)]
        .into_iter()
        .filter(|(_, class)| !observed.classes.contains_key(*class))
        .map(|(value, class)| {
            format!(
                "{value}: StorageClass {class} does not exist; there are {}",
                known.join(", ")
            )
        })
        .collect()
}

fn namespaces_exist(observed: &Observed, config: &Config, _: &Plan) -> Vec<String> {
    let missing = config
        .namespaces
        .iter()
        .filter(|name| !observed.namespaces.contains_key(*name));
    missing
        .map(|name| format!("namespaces: namespace {name} does not exist"))
        .collect()
}

fn workloads_can_be_stopped(_: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    plan.refusals.clone()
}

fn namespaces_are_ordinary(_: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    claims(plan)
        .filter(|claim| claim.namespace().as_deref() == Some("kube-system"))
        .map(|claim| {
            format!("claim {} is in kube-system, which is never fenced: what the cluster itself needs is moved by hand", full_name(claim))
        })
        .collect()
}

fn claims_are_bound_both_ways(observed: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        let name = full_name(claim);
        let phase = claim
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
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
            continue;
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
        }
        if volume.metadata.deletion_timestamp.is_some() {
            all.push(format!(
                "volume {} of claim {name} is being deleted: its data goes with the claim",
                volume.name_any()
            ));
        }
    }
    all
}

fn claims_can_be_copied(_: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        let spec = claim.spec.clone().unwrap_or_default();
        if spec
            .access_modes
            .iter()
            .flatten()
            .any(|mode| mode == "ReadWriteOncePod")
        {
            all.push(format!("claim {} is ReadWriteOncePod: no mover can stand ready beside its consumer, and this version copies in no other way", full_name(claim)));
        }
    }
    all
}

fn claims_can_be_made_again(_: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        for finalizer in claim.finalizers() {
            if finalizer != "kubernetes.io/pvc-protection" {
                all.push(format!("claim {} has the finalizer {finalizer}: it would not go while its owner wants to keep it", full_name(claim)));
            }
        }
        for owner in claim.owner_references() {
            let known = ["StatefulSet", "Deployment", "ReplicaSet"].contains(&owner.kind.as_str())
                && owner.api_version == "apps/v1";
            if !known {
                all.push(format!("claim {} is owned by {} {}: what its owner does about a missing claim is not known", full_name(claim), owner.kind, owner.name));
            }
        }
    }
    all
}

fn nobody_else_is_at_work(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        let Some(record) = observed.volume_of(claim).and_then(record_of) else {
            continue;
        };
        match record {
            Ok(record) if record.release != config.release() && !record.is_finished() => {
                all.push(format!(
                    "claim {} is under migration by release {}/{} (run {}, {:?}): wait for it",
                    full_name(claim),
                    record.release.namespace,
                    record.release.name,
                    record.run,
                    record.phase
                ));
            }
            Ok(_) => {}
            Err(error) => all.push(format!("the volume of claim {}: {error}", full_name(claim))),
        }
    }
    for workload in plan.groups.iter().flat_map(|group| &group.workloads) {
        let seen = observed
            .workloads
            .iter()
            .find(|seen| seen.uid == workload.uid);
        let Some(mark) = seen.and_then(|seen| seen.frozen.as_deref()) else {
            continue;
        };
        match serde_json::from_str::<Frozen>(mark) {
            Ok(mark) if mark.release == config.release() => {}
            Ok(mark) => all.push(format!(
                "{workload} is stopped by release {}/{} (run {}): wait for it",
                mark.release.namespace, mark.release.name, mark.run
            )),
            Err(error) => all.push(format!(
                "{workload} has a mark of ours that cannot be read: {error}"
            )),
        }
    }
    all
}

#[cfg(test)]
mod tests;
