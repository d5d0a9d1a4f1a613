//! What is worth knowing of a claim and stands against nothing: above all what is not carried over,
//! and why.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;

use super::{backends, claims};
use crate::claim::{is_left_behind, size, wanted};
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};

type Note = fn(&Observed, &Config, &PersistentVolumeClaim, &PersistentVolume) -> Option<String>;

const NOTES: [Note; 6] = [
    reclaim_policy,
    node_affinity,
    mount_options,
    annotations,
    fields,
    host_paths,
];

/// Notes on the claims of a plan, by "namespace/name".
pub fn notes(observed: &Observed, config: &Config, plan: &Plan) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for claim in claims(plan) {
        let Some(volume) = observed.volume_of(claim) else {
            continue;
        };
        let said = NOTES
            .iter()
            .filter_map(|note| note(observed, config, claim, volume));
        let said: Vec<String> = said.collect();
        if !said.is_empty() {
            all.insert(full_name(claim), said);
        }
    }
    all
}

fn reclaim_policy(
    observed: &Observed,
    config: &Config,
    _: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<String> {
    let own = volume
        .spec
        .as_ref()?
        .persistent_volume_reclaim_policy
        .clone()?;
    let of = |class: &str| {
        let class = observed.classes.get(class)?;
        Some(
            class
                .reclaim_policy
                .clone()
                .unwrap_or_else(|| "Delete".into()),
        )
    };
    let (source, destination) = (of(&config.source_sc)?, of(&config.dest_sc)?);
    if own != source {
        Some(format!(
            "reclaim policy {own} is kept: somebody had changed it from its class's {source}"
        ))
    } else if own != destination {
        Some(format!(
            "reclaim policy {own} becomes {destination}, as StorageClass {} has it",
            config.dest_sc
        ))
    } else {
        None
    }
}

fn node_affinity(
    _: &Observed,
    _: &Config,
    _: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<String> {
    volume.spec.as_ref()?.node_affinity.as_ref()?;
    Some(format!(
        "the node affinity of volume {} is not carried over: the new volume has its own provisioner's",
        volume.name_any()
    ))
}

fn mount_options(
    observed: &Observed,
    config: &Config,
    _: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<String> {
    let options = volume
        .spec
        .as_ref()?
        .mount_options
        .clone()
        .unwrap_or_default();
    let class = observed.classes.get(&config.dest_sc)?;
    let new = class.mount_options.clone().unwrap_or_default();
    (options != new && !options.is_empty()).then(|| {
        let new = if new.is_empty() { "none".into() } else { new.join(",") };
        format!(
            "mount options {} are not carried over: they are of another file system; StorageClass {} gives {new}",
            options.join(","),
            config.dest_sc
        )
    })
}

fn annotations(
    _: &Observed,
    _: &Config,
    claim: &PersistentVolumeClaim,
    _: &PersistentVolume,
) -> Option<String> {
    // What every bound claim has says nothing.
    let usual = [
        "bind-completed",
        "bound-by-controller",
        "selected-node",
        "storage-provisioner",
    ];
    let left: Vec<&str> = claim
        .annotations()
        .keys()
        .map(String::as_str)
        .filter(|key| is_left_behind(key))
        .filter(|key| !usual.iter().any(|usual| key.ends_with(usual)))
        .collect();
    (!left.is_empty()).then(|| {
        format!(
            "annotations {} are not carried over: they are about the volume behind the claim, or kubectl's own",
            left.join(", ")
        )
    })
}

fn fields(
    _: &Observed,
    config: &Config,
    claim: &PersistentVolumeClaim,
    _: &PersistentVolume,
) -> Option<String> {
    let spec = claim.spec.as_ref()?;
    let mut left = Vec::new();
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        left.push("dataSource");
    }
    if spec.selector.is_some() {
        left.push("selector");
    }
    if spec.volume_attributes_class_name.is_some() {
        left.push("volumeAttributesClassName");
    }
    let wanted = wanted(claim, config);
    let is_larger = wanted.wishes.storage.is_none() && size(&wanted) != wanted.storage;
    let larger = is_larger.then(|| {
        format!(
            "the destination is made with {}, which the volume has; the claim asks for {}",
            wanted.capacity, wanted.storage
        )
    });
    let left = (!left.is_empty()).then(|| {
        format!(
            "{} of the claim is not carried over: it is about how the old volume was found or made",
            left.join(", ")
        )
    });
    let both: Vec<String> = left.into_iter().chain(larger).collect();
    (!both.is_empty()).then(|| both.join("; "))
}

/// A pod that mounts a node's folder sees what lies in it, and no fence sees the pod.
fn host_paths(
    observed: &Observed,
    _: &Config,
    _: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<String> {
    let spec = volume.spec.as_ref()?;
    let local = spec.local.as_ref().map(|local| &local.path);
    let path = backends::trimmed(local.or(spec.host_path.as_ref().map(|host| &host.path))?);
    let around = &observed.surroundings;
    let here = around.host_paths.iter().filter(|mounted| {
        let node = mounted
            .node
            .as_ref()
            .and_then(|node| around.nodes.get(node));
        let above = backends::trimmed(&mounted.path);
        let is_in = path == above || path.starts_with(&format!("{}/", above.trim_end_matches('/')));
        is_in && node.is_some_and(|node| backends::is_on(volume, node))
    });
    let pods: Vec<String> = here
        .map(|mounted| format!("{} ({})", mounted.pod, mounted.path))
        .collect();
    (!pods.is_empty()).then(|| {
        format!(
            "folder {path} of its volume can also be reached by pods that mount a folder of the node: {}; whether they write there cannot be seen, and nothing keeps them from it",
            pods.join(", ")
        )
    })
}

#[cfg(test)]
mod tests;
