//! Whether somebody is there to make the destinations.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use pvmigrate_record::phase::Heading;

use super::claims;
use crate::claim::{access_modes, size, storage, wanted};
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::quantity::bytes;

/// The label that tells nodes apart.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// What a class names where its volumes are made by hand.
const NOBODY: &str = "kubernetes.io/no-provisioner";

/// A CSI driver has to be registered on a node. Of other provisioners nothing is known: the trial
/// shows whether they work.
pub fn is_alive(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    let Some(class) = observed.classes.get(&config.dest_sc) else {
        return Vec::new();
    };
    let name = class.name_any();
    if is_by_hand(class) {
        return without_volume(observed, class, config, plan);
    }
    let Some(driver) = csi_driver(class, observed) else {
        return Vec::new();
    };
    let mut nodes = observed.surroundings.csi_nodes.keys();
    if nodes.any(|node| is_registered(driver, node, observed)) {
        return Vec::new();
    }
    vec![format!(
        "destSC: CSI driver {driver} of StorageClass {name} is registered on no node: its node plugin does not run"
    )]
}

/// Where volumes are made by hand, they have to be there already.
fn without_volume(
    observed: &Observed,
    class: &StorageClass,
    config: &Config,
    plan: &Plan,
) -> Vec<String> {
    let name = class.name_any();
    let volumes: Vec<_> = available(observed, &name).collect();
    let count = claims(plan).count();
    if volumes.len() < count {
        return vec![format!(
            "destSC: StorageClass {name} has no provisioner, and {} volumes of it are Available for {count} claims: make more",
            volumes.len()
        )];
    }
    let missing =
        claims(plan).filter(|claim| !volumes.iter().any(|volume| suits(volume, claim, config)));
    let missing = missing.map(|claim| {
        format!(
            "destSC: StorageClass {name} has no provisioner, and none of its Available volumes has size, access modes and volumeMode of claim {}: make one",
            full_name(claim)
        )
    });
    missing.collect()
}

/// The volumes of a class that the next claim may take.
pub fn available<'a>(
    observed: &'a Observed,
    class: &'a str,
) -> impl Iterator<Item = &'a PersistentVolume> {
    observed.every_volume().filter(move |volume| {
        let spec = volume.spec.as_ref();
        let phase = volume
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        phase == Some("Available")
            && spec.is_some_and(|spec| {
                spec.storage_class_name.as_deref() == Some(class) && spec.claim_ref.is_none()
            })
    })
}

fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim, config: &Config) -> bool {
    let spec = volume.spec.clone().unwrap_or_default();
    let (wanted, has) = (wanted(claim, config), spec.access_modes.unwrap_or_default());
    let modes = access_modes(&wanted, Heading::Destination);
    let mode = spec.volume_mode.unwrap_or_else(|| "Filesystem".into());
    mode == wanted.volume_mode
        && bytes(&storage(spec.capacity.as_ref())) >= bytes(size(&wanted))
        && modes.iter().all(|mode| has.contains(mode))
}

/// Whether a class makes a volume only when it is known where that is needed.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

pub fn is_by_hand(class: &StorageClass) -> bool {
    class.provisioner == NOBODY
}

/// The driver of a class, where that is a CSI driver that the cluster knows.
pub fn csi_driver<'a>(class: &'a StorageClass, observed: &Observed) -> Option<&'a str> {
    let driver = class.provisioner.as_str();
    let around = &observed.surroundings;
    let mut nodes = around.csi_nodes.keys();
    let is_known =
        around.drivers.contains_key(driver) || nodes.any(|n| is_registered(driver, n, observed));
    is_known.then_some(driver)
}

/// Whether a new volume of the class can be reached only where this label of nodes has one value,
/// that of the node of its first consumer. A provisioner that is no CSI driver, and waits for a
/// consumer, is taken for one of local volumes.
pub fn keeps_to(class: &StorageClass, label: &str, observed: &Observed) -> bool {
    if !waits_for_consumer(class) {
        return false;
    }
    let Some(driver) = csi_driver(class, observed) else {
        return true;
    };
    let around = &observed.surroundings;
    let drivers = around
        .csi_nodes
        .values()
        .flat_map(|node| &node.spec.drivers);
    let keys = drivers.filter(|known| known.name == driver);
    let mut keys = keys.flat_map(|known| known.topology_keys.iter().flatten());
    keys.any(|key| key == label || is_of_one_node(key, observed))
}

/// Whether a label tells each node from the others: drivers have labels of their own for that.
fn is_of_one_node(label: &str, observed: &Observed) -> bool {
    let nodes = observed.surroundings.nodes.values();
    let mut labelled = nodes
        .filter_map(|node| Some((node, node.labels().get(label)?)))
        .peekable();
    labelled.peek().is_some()
        && labelled.all(|(node, value)| {
            *value == node.name_any() || Some(value) == node.labels().get(HOSTNAME)
        })
}

pub fn is_registered(driver: &str, node: &str, observed: &Observed) -> bool {
    let found = observed.surroundings.csi_nodes.get(node);
    found.is_some_and(|found| found.spec.drivers.iter().any(|d| d.name == driver))
}

#[cfg(test)]
mod tests;
