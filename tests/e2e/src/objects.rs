//! Objects for tests, as small as the API server takes them. Whoever needs more changes the fields
//! of what comes out.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource,
    Pod, PodSpec, PodTemplateSpec, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// A claim, or a StatefulSet's claim template, and where a container sees it.
#[derive(Debug, Clone)]
pub struct Mount {
    pub claim: String,
    pub path: String,
}

/// Claim `data` at `/data`.
pub fn mount(claim: &str) -> Mount {
    Mount {
        claim: claim.into(),
        path: format!("/{claim}"),
    }
}

/// A claim of 64 MiB for one node, or a StatefulSet's template of such claims.
pub fn claim(name: &str, class: &str) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: named(name),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".into()]),
            storage_class_name: Some(class.into()),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".into(),
                    Quantity("64Mi".into()),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// A pod that runs a shell script; see [`stay`] for one that goes on.
pub fn pod(name: &str, image: &str, script: &str, mounts: &[Mount]) -> Pod {
    let mut spec = pod_spec(image, script, mounts);
    spec.volumes = Some(volumes(mounts));
    Pod {
        metadata: labelled(name),
        spec: Some(spec),
        ..Pod::default()
    }
}

/// A Deployment of one pod with these claims.
pub fn deployment(name: &str, image: &str, script: &str, mounts: &[Mount]) -> Deployment {
    let mut spec = pod_spec(image, script, mounts);
    spec.volumes = Some(volumes(mounts));
    Deployment {
        metadata: labelled(name),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: selector(name),
            template: template(name, spec),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// A StatefulSet, with a claim of its own for each pod and each mount, of this class.
pub fn stateful_set(
    name: &str,
    replicas: i32,
    class: &str,
    image: &str,
    script: &str,
    mounts: &[Mount],
) -> StatefulSet {
    let templates = mounts
        .iter()
        .map(|mount| claim(&mount.claim, class))
        .collect();
    StatefulSet {
        metadata: labelled(name),
        spec: Some(StatefulSetSpec {
            replicas: Some(replicas),
            selector: selector(name),
            service_name: Some(name.into()),
            template: template(name, pod_spec(image, script, mounts)),
            volume_claim_templates: Some(templates),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// The script, then staying until asked to end. Process 1 gets only the signals that it handles.
pub fn stay(script: &str) -> String {
    format!("trap 'exit 0' TERM\n{script}\nwhile :; do sleep 1000 & wait; done")
}

fn pod_spec(image: &str, script: &str, mounts: &[Mount]) -> PodSpec {
    let mounts = mounts.iter().map(|mount| VolumeMount {
        name: volume_name(&mount.claim),
        mount_path: mount.path.clone(),
        ..VolumeMount::default()
    });
    PodSpec {
        termination_grace_period_seconds: Some(2),
        automount_service_account_token: Some(false),
        containers: vec![Container {
            name: "app".into(),
            image: Some(image.into()),
            image_pull_policy: Some("IfNotPresent".into()),
            command: Some(vec!["sh".into(), "-c".into(), script.into()]),
            volume_mounts: Some(mounts.collect()),
            ..Container::default()
        }],
        ..PodSpec::default()
    }
}

fn volumes(mounts: &[Mount]) -> Vec<Volume> {
    let volume = |mount: &Mount| Volume {
        name: volume_name(&mount.claim),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: mount.claim.clone(),
            read_only: None,
        }),
        ..Volume::default()
    };
    mounts.iter().map(volume).collect()
}

/// A pod's volume may have 63 characters in its name, a claim 253.
fn volume_name(claim: &str) -> String {
    claim.chars().take(63).collect()
}

fn template(name: &str, spec: PodSpec) -> PodTemplateSpec {
    let metadata = ObjectMeta {
        labels: Some(labels(name)),
        ..ObjectMeta::default()
    };
    PodTemplateSpec {
        metadata: Some(metadata),
        spec: Some(spec),
    }
}

fn selector(name: &str) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels(name)),
        ..LabelSelector::default()
    }
}

fn labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".into(), name.into())])
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    }
}

fn labelled(name: &str) -> ObjectMeta {
    ObjectMeta {
        labels: Some(labels(name)),
        ..named(name)
    }
}
