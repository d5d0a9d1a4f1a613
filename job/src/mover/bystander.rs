//! A pod that mounts claims and does nothing with them: as little as a pod can be, allowed by
//! PodSecurity `restricted`.

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec,
    SeccompProfile, SecurityContext, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pvmigrate_record::names;

use super::{Placement, dressed};
use crate::config::Config;

/// Nobody in particular.
const USER: i64 = 65532;

/// A claim that it mounts.
pub struct Mounted {
    pub claim: String,
    pub is_block: bool,
}

/// The pod; its container does what `argument` tells the mover's program.
pub fn bystander(
    config: &Config,
    metadata: ObjectMeta,
    placement: &Placement,
    mounted: &[Mounted],
    argument: &str,
) -> Pod {
    let all = || mounted.iter().enumerate();
    let of_kind = |is_block| all().filter(move |(_, one)| one.is_block == is_block);
    let mounts = of_kind(false).map(|(number, _)| VolumeMount {
        name: name(number),
        mount_path: format!("{}/{number}", names::DESTINATION_MOUNT),
        ..VolumeMount::default()
    });
    let devices = of_kind(true).map(|(number, _)| VolumeDevice {
        name: name(number),
        device_path: format!("{}-{number}", names::DESTINATION_DEVICE),
    });
    let volumes = all().map(|(number, one)| Volume {
        name: name(number),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: one.claim.clone(),
            read_only: None,
        }),
        ..Volume::default()
    });
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
                name: "bystander".into(),
                image: Some(config.image.clone()),
                image_pull_policy: Some(config.image_pull_policy.clone()),
                command: Some(vec!["/pvmigrate-mover".into(), argument.into()]),
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
                volume_mounts: Some(mounts.collect()),
                volume_devices: Some(devices.collect()),
                ..Container::default()
            }],
            volumes: Some(volumes.collect()),
            ..PodSpec::default()
        }),
        status: None,
    };
    dressed(pod, config)
}

fn name(number: usize) -> String {
    format!("volume-{number}")
}
