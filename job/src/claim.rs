//! The claims that the Job makes: the staging claim, and the claim that is made again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::phase::Heading;
use pvmigrate_record::record::{ClaimManifest, Owner, Record, Wishes};

use crate::config::Config;
use crate::quantity::bytes;

pub mod ahead;
pub mod resize;
mod wishes;

pub use wishes::wishes;

/// Annotations that belong to the volume behind a claim, or to kubectl, not to the claim.
const LEFT_BEHIND: [&str; 4] = [
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// What a claim's destination is made from. A wish that cannot be read is refused elsewhere.
pub fn wanted(claim: &PersistentVolumeClaim, config: &Config) -> ClaimManifest {
    ClaimManifest {
        wishes: wishes(claim, config).unwrap_or_default(),
        ..manifest(claim, &[])
    }
}

/// What the claim is made again from. `living` are the UIDs of owners that exist: a claim whose
/// owner is gone would be collected at once.
pub fn manifest(claim: &PersistentVolumeClaim, living: &[String]) -> ClaimManifest {
    let spec = claim.spec.clone().unwrap_or_default();
    let annotations = claim.annotations().iter();
    ClaimManifest {
        labels: claim.labels().clone(),
        annotations: annotations
            .filter(|(key, _)| !is_left_behind(key))
            .filter(|(key, _)| *key != names::EPOCH)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        owners: claim
            .owner_references()
            .iter()
            .filter(|owner| owner.kind != "Pod" && living.contains(&owner.uid))
            .map(owner)
            .collect(),
        access_modes: spec.access_modes.unwrap_or_default(),
        volume_mode: spec.volume_mode.unwrap_or_else(|| "Filesystem".into()),
        storage: storage(
            spec.resources
                .and_then(|resources| resources.requests)
                .as_ref(),
        ),
        capacity: storage(
            claim
                .status
                .as_ref()
                .and_then(|status| status.capacity.as_ref()),
        ),
        wishes: Wishes::default(),
    }
}

/// Takes over what people and operators have written on a claim since it was fenced; what it asks
/// for cannot have changed.
pub fn refresh(manifest: &mut ClaimManifest, claim: &PersistentVolumeClaim) {
    let now = self::manifest(claim, &[]);
    (manifest.labels, manifest.annotations) = (now.labels, now.annotations);
}

/// Whether an annotation is about the volume behind a claim, not about the claim.
pub fn is_left_behind(key: &str) -> bool {
    LEFT_BEHIND.iter().any(|prefix| key.starts_with(prefix))
}

/// The temporary claim that provisions the destination: as large as the source really is, which
/// may be more than was asked for, unless another size was wished. With `volume` it is bound again to one that exists.
pub fn staging_claim(record: &Record, volume: Option<&str>) -> PersistentVolumeClaim {
    let manifest = &record.manifest;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(names::staging_object(&record.run, &record.claim.uid)),
            namespace: Some(record.claim.namespace.clone()),
            labels: Some(BTreeMap::from([
                (names::RUN.into(), record.run.clone()),
                (names::ROLE.into(), names::ROLE_STAGING.into()),
            ])),
            annotations: Some(BTreeMap::from([(
                names::CLAIM.into(),
                record.claim.name.clone(),
            )])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            storage_class_name: Some(record.destination_class.clone()),
            resources: Some(request(size(manifest))),
            volume_name: volume.map(str::to_string),
            ..spec(manifest, Heading::Destination)
        }),
        status: None,
    }
}

/// What a destination has to hold: what was wished, else what the claim asks for or really has.
pub fn size(manifest: &ClaimManifest) -> &str {
    if let Some(wished) = &manifest.wishes.storage {
        wished
    } else if bytes(&manifest.capacity) > bytes(&manifest.storage) {
        &manifest.capacity
    } else {
        &manifest.storage
    }
}

/// A claim of this class with nothing in it but what a manifest says of its volume.
pub fn plain_claim(
    metadata: ObjectMeta,
    manifest: &ClaimManifest,
    class: &str,
) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            storage_class_name: Some(class.into()),
            resources: Some(request(size(manifest))),
            ..spec(manifest, Heading::Destination)
        }),
        status: None,
    }
}

/// The claim under its own name again, on the volume that the record heads for.
pub fn new_claim(record: &Record, volume: &str) -> PersistentVolumeClaim {
    let manifest = &record.manifest;
    let class = match record.heading {
        Heading::Destination => &record.destination_class,
        Heading::Source => &record.source_class,
    };
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(record.claim.name.clone()),
            namespace: Some(record.claim.namespace.clone()),
            labels: Some(manifest.labels.clone()),
            annotations: Some(manifest.annotations.clone()),
            owner_references: Some(manifest.owners.iter().map(owner_reference).collect()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            storage_class_name: Some(class.clone()),
            resources: Some(request(requested(manifest, record.heading))),
            volume_name: Some(volume.to_string()),
            ..spec(manifest, record.heading)
        }),
        status: None,
    }
}

/// What a claim asks for on the volume that it heads for. One that asks for more than its source
/// has, for it is being resized, would never be bound to it again.
pub fn requested(manifest: &ClaimManifest, heading: Heading) -> &str {
    match (heading, &manifest.wishes.storage) {
        (Heading::Destination, Some(wished)) => wished,
        (Heading::Source, _) if resize::is_under_way(manifest) => &manifest.capacity,
        _ => &manifest.storage,
    }
}

/// The access modes of a claim on the volume that it heads for.
pub fn access_modes(manifest: &ClaimManifest, heading: Heading) -> &[String] {
    let wished = &manifest.wishes.access_modes;
    match heading {
        Heading::Destination if !wished.is_empty() => wished,
        _ => &manifest.access_modes,
    }
}

fn spec(manifest: &ClaimManifest, heading: Heading) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(access_modes(manifest, heading).to_vec()),
        volume_mode: Some(manifest.volume_mode.clone()),
        ..PersistentVolumeClaimSpec::default()
    }
}

fn request(storage: &str) -> VolumeResourceRequirements {
    VolumeResourceRequirements {
        requests: Some(BTreeMap::from([(
            "storage".into(),
            Quantity(storage.to_string()),
        )])),
        limits: None,
    }
}

pub fn storage(resources: Option<&BTreeMap<String, Quantity>>) -> String {
    resources
        .and_then(|all| all.get("storage"))
        .map_or_else(|| "0".into(), |q| q.0.clone())
}

fn owner(reference: &OwnerReference) -> Owner {
    Owner {
        api_version: reference.api_version.clone(),
        kind: reference.kind.clone(),
        name: reference.name.clone(),
        uid: reference.uid.clone(),
        controller: reference.controller.unwrap_or_default(),
        block_owner_deletion: reference.block_owner_deletion.unwrap_or_default(),
    }
}

fn owner_reference(owner: &Owner) -> OwnerReference {
    OwnerReference {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: owner.controller.then_some(true),
        block_owner_deletion: owner.block_owner_deletion.then_some(true),
    }
}

#[cfg(test)]
mod tests;
