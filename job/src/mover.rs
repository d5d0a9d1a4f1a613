//! The mover's pod: where it runs, what it mounts, what it may do.

pub mod anchor;
mod arguments;
mod bystander;
mod dress;
pub mod orders;
pub mod parting;
mod placement;
mod together;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar, EnvVarSource,
    ExecAction, Lifecycle, LifecycleHandler, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, SeccompProfile,
    SecurityContext, Volume, VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pvmigrate_record::names;
use pvmigrate_record::record::Record;

use crate::config::Config;
pub use arguments::is_told_otherwise;
pub use bystander::{Mounted, bystander};
pub use dress::dressed;
pub use placement::Placement;

/// The name of a mover's container.
const NAME: &str = "mover";

/// The name of the destination among its volumes.
const DESTINATION: &str = "destination";

/// What the engine needs to keep owners, modes, xattrs, capabilities and devices; all of it is
/// allowed by the PodSecurity level `baseline`.
const CAPABILITIES: [&str; 6] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "MKNOD",
    "SETFCAP",
];

/// The pod that copies one claim. It has no token, no network of use, and the source read-only.
pub fn mover_pod(record: &Record, config: &Config, placement: &Placement) -> Pod {
    let name = names::staging_object(&record.run, &record.claim.uid);
    let pod = Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(record.claim.namespace.clone()),
            labels: Some(BTreeMap::from([
                (names::RUN.into(), record.run.clone()),
                (names::ROLE.into(), names::ROLE_MOVER.into()),
                (names::CLAIM_HASH.into(), together::hash(&record.claim.name)),
                // A mesh's proxy would outlive the copy and keep the pod from ending.
                ("sidecar.istio.io/inject".into(), "false".into()),
            ])),
            annotations: Some(BTreeMap::from([
                (names::CLAIM.into(), record.claim.name.clone()),
                ("linkerd.io/inject".into(), "disabled".into()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            restart_policy: Some("Never".into()),
            termination_grace_period_seconds: Some(5),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            node_selector: Some(placement.node_selector.clone()),
            tolerations: Some(placement.tolerations.clone()),
            affinity: placement.affinity(),
            // No fsGroup: the kubelet would rewrite the owners of the source. The consumer's
            // SELinux options: other ones would make the kubelet relabel the live source.
            security_context: Some(PodSecurityContext {
                se_linux_options: placement
                    .security
                    .as_ref()
                    .and_then(|s| s.se_linux_options.clone()),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![container(record, config)],
            volumes: Some(vec![
                // A container may look at a file system without writing to it, and not at a device:
                // the whole volume is read-only then.
                claim_volume("source", &record.claim.name, record.manifest.is_block()),
                claim_volume(DESTINATION, &name, false),
                order_volume(),
            ]),
            ..PodSpec::default()
        }),
        status: None,
    };
    dressed(pod, config)
}

/// A pod that mounts only the destination, and ends at once: where no mover can stand beside the
/// consumer, the destination is provisioned by it, in a place that the consumer can reach.
pub fn provisioning_pod(record: &Record, config: &Config, placement: &Placement) -> Pod {
    let mut pod = mover_pod(record, config, placement);
    let spec = pod.spec.get_or_insert_default();
    let all = spec.volumes.iter_mut();
    all.for_each(|all| all.retain(|volume| volume.name == DESTINATION));
    for container in &mut spec.containers {
        container.args = Some(vec!["--version".into()]);
        let mounts = container.volume_mounts.iter_mut();
        mounts.for_each(|all| all.retain(|mount| mount.name == DESTINATION));
        let devices = container.volume_devices.iter_mut();
        devices.for_each(|all| all.retain(|device| device.name == DESTINATION));
    }
    pod
}

fn container(record: &Record, config: &Config) -> Container {
    let (mounts, devices) = volumes_inside(record);
    let extra = config.mover_extra_capabilities.iter().cloned();
    Container {
        name: NAME.into(),
        image: Some(config.image.clone()),
        image_pull_policy: Some(config.image_pull_policy.clone()),
        command: Some(vec!["/pvmigrate-mover".into()]),
        args: Some(arguments::arguments(record, config)),
        // So that it can tell its kubelet's word from anybody's signal.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction {
                    command: Some(vec!["/pvmigrate-mover".into(), "end".into()]),
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        // A mover that cannot begin says why on stderr.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        env: Some(vec![EnvVar {
            name: "POD_UID".into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.uid".into(),
                    ..ObjectFieldSelector::default()
                }),
                ..EnvVarSource::default()
            }),
            value: None,
        }]),
        resources: config.mover_resources.clone(),
        security_context: Some(SecurityContext {
            run_as_user: Some(0),
            run_as_group: Some(0),
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: Some(
                    CAPABILITIES
                        .iter()
                        .map(ToString::to_string)
                        .chain(extra)
                        .collect(),
                ),
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        volume_devices: Some(devices),
        ..Container::default()
    }
}

/// Where the container finds both volumes and its orders.
fn volumes_inside(record: &Record) -> (Vec<VolumeMount>, Vec<VolumeDevice>) {
    let order = mount("order", names::ORDER_DIR);
    if record.manifest.is_block() {
        let devices = [
            ("source", names::SOURCE_DEVICE),
            (DESTINATION, names::DESTINATION_DEVICE),
        ];
        let devices = devices.map(|(name, path)| VolumeDevice {
            name: name.into(),
            device_path: path.into(),
        });
        return (vec![order], devices.into());
    }
    let source = VolumeMount {
        read_only: Some(true),
        ..mount("source", names::SOURCE_MOUNT)
    };
    let destination = mount(DESTINATION, names::DESTINATION_MOUNT);
    (vec![source, destination, order], Vec::new())
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn claim_volume(name: &str, claim: &str, read_only: bool) -> Volume {
    Volume {
        name: name.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.into(),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    }
}

/// The pod's own annotation as a file: how it is told what to do, without network or token.
fn order_volume() -> Volume {
    Volume {
        name: "order".into(),
        downward_api: Some(DownwardAPIVolumeSource {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "order".into(),
                field_ref: Some(ObjectFieldSelector {
                    field_path: format!("metadata.annotations['{}']", names::ORDER),
                    ..ObjectFieldSelector::default()
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
            ..DownwardAPIVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
pub mod tests;
