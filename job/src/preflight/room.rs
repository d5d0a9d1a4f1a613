//! Whether there is room for what the migration makes: by quotas, and by what a driver publishes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, ResourceQuota};
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::{claims, nodes, placement};
use crate::claim::{size, wanted};
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::quantity::{bytes, quantity};

/// Staging claims and movers exist beside the claims and their consumers. Of the destination's
/// class, the new claims take the staging claims' places, so there they add up.
pub fn quotas_allow(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    let (mut all, at_once) = (Vec::new(), config.parallelism_groups.get());
    for quota in &observed.surroundings.quotas {
        let namespace = quota.namespace().unwrap_or_default();
        let groups = plan
            .groups
            .iter()
            .filter(|group| group.namespace == namespace);
        let mut sizes: Vec<(u128, u128)> = groups
            .map(|group| (bytes_of(&group.claims, config), group.claims.len() as u128))
            .collect();
        if sizes.is_empty() {
            continue;
        }
        let total = sum(&sizes);
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let bytes_at_once = sum(sizes.iter().take(at_once)).0;
        sizes.sort_unstable_by_key(|(_, claims)| std::cmp::Reverse(*claims));
        let claims_at_once = sum(sizes.iter().take(at_once)).1;
        let of_class = format!("{}.storageclass.storage.k8s.io", config.dest_sc);
        let needs = [
            ("requests.storage".to_string(), bytes_at_once),
            ("persistentvolumeclaims".into(), claims_at_once),
            ("count/persistentvolumeclaims".into(), claims_at_once),
            ("pods".into(), claims_at_once),
            ("count/pods".into(), claims_at_once),
            (format!("{of_class}/requests.storage"), total.0),
            (format!("{of_class}/persistentvolumeclaims"), total.1),
        ];
        all.extend(
            needs
                .iter()
                .filter_map(|(what, need)| short(quota, what, *need)),
        );
    }
    all
}

fn sum<'a>(sizes: impl IntoIterator<Item = &'a (u128, u128)>) -> (u128, u128) {
    let add = |(bytes, claims), size: &(u128, u128)| (bytes + size.0, claims + size.1);
    sizes.into_iter().fold((0, 0), add)
}

fn bytes_of(claims: &[PersistentVolumeClaim], config: &Config) -> u128 {
    claims.iter().map(|claim| needed(claim, config)).sum()
}

fn needed(claim: &PersistentVolumeClaim, config: &Config) -> u128 {
    bytes(size(&wanted(claim, config))).unwrap_or_default()
}

/// What a quota leaves too little of.
fn short(quota: &ResourceQuota, what: &str, need: u128) -> Option<String> {
    let (spec, status) = (quota.spec.as_ref()?, quota.status.as_ref());
    let is_scoped = spec
        .scopes
        .as_ref()
        .is_some_and(|scopes| !scopes.is_empty())
        || spec.scope_selector.is_some();
    // A scope leaves some pods out, and the dry run of a mover shows whether it is one of them.
    if is_scoped && what.ends_with("pods") {
        return None;
    }
    let of = |all: Option<&BTreeMap<String, Quantity>>| bytes(&all?.get(what)?.0);
    let hard = of(status.and_then(|s| s.hard.as_ref())).or_else(|| of(spec.hard.as_ref()))?;
    let used = of(status.and_then(|s| s.used.as_ref())).unwrap_or_default();
    let text = |number: u128| {
        let is_storage = what.ends_with("storage");
        if is_storage {
            quantity(number)
        } else {
            number.to_string()
        }
    };
    (used + need > hard).then(|| {
        format!(
            "quota {}/{} allows {} of {what}, of which {} are used, and the move needs {} more: raise it for the time",
            quota.namespace().unwrap_or_default(),
            quota.name_any(),
            text(hard),
            text(used),
            text(need)
        )
    })
}

/// What the destination's driver publishes, where it does: whether each claim's destination fits
/// somewhere where it may go, and all of them together.
pub fn storage_suffices(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    let published: Vec<&CSIStorageCapacity> = observed
        .surroundings
        .capacities
        .iter()
        .filter(|capacity| capacity.storage_class_name == config.dest_sc)
        .collect();
    let class = observed.classes.get(&config.dest_sc);
    let driver = class.and_then(|class| observed.surroundings.drivers.get(&class.provisioner));
    let is_published = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
    if !is_published || published.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    for site in placement::sites(observed, config, plan) {
        let Ok(nodes) = &site.nodes else {
            continue;
        };
        let reached = published.iter().filter(|capacity| reaches(capacity, nodes));
        let largest = reached
            .map(|capacity| largest(capacity))
            .max()
            .unwrap_or_default();
        let too_large = site
            .claims
            .iter()
            .filter(|claim| needed(claim, config) > largest);
        all.extend(too_large.map(|claim| {
            format!(
                "claim {} needs {}, and where it may go StorageClass {} has room for {} (CSIStorageCapacity)",
                full_name(claim),
                quantity(needed(claim, config)),
                config.dest_sc,
                quantity(largest)
            )
        }));
    }
    all.sort();
    all.dedup();
    let total: u128 = claims(plan).map(|claim| needed(claim, config)).sum();
    let room = published.iter().map(|capacity| free(capacity)).sum();
    if all.is_empty() && total > room {
        all.push(format!(
            "all claims together need {}, and StorageClass {} has room for {} (CSIStorageCapacity)",
            quantity(total),
            config.dest_sc,
            quantity(room)
        ));
    }
    all
}

fn reaches(capacity: &CSIStorageCapacity, nodes: &[&Node]) -> bool {
    let topology = capacity.node_topology.as_ref();
    topology.is_some_and(|selector| nodes.iter().any(|node| nodes::is_labelled(node, selector)))
}

fn free(capacity: &CSIStorageCapacity) -> u128 {
    let free = capacity.capacity.as_ref().and_then(|free| bytes(&free.0));
    free.unwrap_or_default()
}

fn largest(capacity: &CSIStorageCapacity) -> u128 {
    let maximum = capacity.maximum_volume_size.as_ref();
    maximum
        .and_then(|maximum| bytes(&maximum.0))
        .unwrap_or_else(|| free(capacity))
}

#[cfg(test)]
mod tests;
