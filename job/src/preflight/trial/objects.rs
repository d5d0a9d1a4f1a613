//! What a trial makes: as little as a claim and a pod can be, allowed by PodSecurity `restricted`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod,
    PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Volume, VolumeDevice,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pvmigrate_record::names;

use super::Trial;
use crate::claim::plain_claim;
use crate::config::Config;
use crate::mover::dressed;

/// Nobody in particular.
const USER: i64 = 65532;

/// Owned by the chart's ClusterRole: uninstalling collects what a Job left that was killed.
pub fn metadata(
    config: &Config,
    trial: &Trial,
    number: usize,
    owner: Option<&OwnerReference>,
) -> ObjectMeta {
    let release = config.release();
    ObjectMeta {
        name: Some(names::trial_object(&config.run(), &config.pod, number)),
        namespace: Some(trial.namespace.clone()),
        labels: Some(BTreeMap::from([
            (names::RUN.into(), config.run()),
            (names::ROLE.into(), names::ROLE_TRIAL.into()),
            ("sidecar.istio.io/inject".into(), "false".into()),
        ])),
        annotations: Some(BTreeMap::from([
            (
                names::RELEASE.into(),
                format!("{}/{}", release.namespace, release.name),
            ),
            ("linkerd.io/inject".into(), "disabled".into()),
        ])),
        owner_references: Some(owner.into_iter().cloned().collect()),
        ..ObjectMeta::default()
    }
}

pub fn claim(config: &Config, trial: &Trial, metadata: ObjectMeta) -> PersistentVolumeClaim {
    plain_claim(metadata, &trial.manifest, &config.dest_sc)
}

/// A pod that mounts the claim and ends at once.
pub fn pod(config: &Config, trial: &Trial, metadata: ObjectMeta) -> Pod {
    let placement = &trial.placement;
    let claim_name = metadata.name.clone().unwrap_or_default();
    let (mounts, devices) = if trial.manifest.is_block() {
        let device = VolumeDevice {
            name: "trial".into(),
            device_path: names::DESTINATION_DEVICE.into(),
        };
        (None, Some(vec![device]))
    } else {
        let mount = VolumeMount {
            name: "trial".into(),
            mount_path: names::DESTINATION_MOUNT.into(),
            ..VolumeMount::default()
        };
        (Some(vec![mount]), None)
    };
    let pod = Pod {
        metadata,
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            termination_grace_period_seconds: Some(1),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            node_selector: Some(placement.node_selector.clone()),
            tolerations: Some(placement.tolerations.clone()),
            affinity: placement.affinity(),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![Container {
                name: "trial".into(),
                image: Some(config.image.clone()),
                image_pull_policy: Some(config.image_pull_policy.clone()),
                command: Some(vec!["/pvmigrate-mover".into(), "--version".into()]),
                // A namespace that admits the mover's resources admits these.
                resources: config.mover_resources.clone(),
                termination_message_policy: Some("FallbackToLogsOnError".into()),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    read_only_root_filesystem: Some(true),
                    capabilities: Some(Capabilities {
                        drop: Some(vec!["ALL".into()]),
                        add: None,
                    }),
                    ..SecurityContext::default()
                }),
                volume_mounts: mounts,
                volume_devices: devices,
                ..Container::default()
            }],
            volumes: Some(vec![Volume {
                name: "trial".into(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name,
                    read_only: None,
                }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }),
        status: None,
    };
    dressed(pod, config)
}
