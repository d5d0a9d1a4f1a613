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
use pvmigrate_record::record::{ClaimManifest, Owner, Record};

use crate::quantity::bytes;

/// Annotations that belong to the volume behind a claim, or to kubectl, not to the claim.
const LEFT_BEHIND: [&str; 4] = [
    "pv.kubernetes.io/",
    "volume.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// What the claim is made again from. `living` are the UIDs of owners that exist: a claim whose
/// owner is gone would be collected at once.
pub fn manifest(claim: &PersistentVolumeClaim, living: &[String]) -> ClaimManifest {
    let spec = claim.spec.clone().unwrap_or_default();
    let annotations = claim.annotations().iter();
    ClaimManifest {
        labels: claim.labels().clone(),
        annotations: annotations
            .filter(|(key, _)| !LEFT_BEHIND.iter().any(|prefix| key.starts_with(prefix)))
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
    }
}

/// The temporary claim that provisions the destination: as large as the source really is, which
/// may be more than was asked for. With `volume` it is bound again to one that exists.
pub fn staging_claim(record: &Record, volume: Option<&str>) -> PersistentVolumeClaim {
    let manifest = &record.manifest;
    let larger = if bytes(&manifest.capacity) > bytes(&manifest.storage) {
        &manifest.capacity
    } else {
        &manifest.storage
    };
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
            resources: Some(request(larger)),
            volume_name: volume.map(str::to_string),
            ..spec(manifest)
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
            resources: Some(request(&manifest.storage)),
            volume_name: Some(volume.to_string()),
            ..spec(manifest)
        }),
        status: None,
    }
}

fn spec(manifest: &ClaimManifest) -> PersistentVolumeClaimSpec {
    PersistentVolumeClaimSpec {
        access_modes: Some(manifest.access_modes.clone()),
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
