//! The mover's pod: where it runs, what it mounts, what it may do.

mod arguments;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar,
    EnvVarSource, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod,
    PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Toleration, Volume, VolumeDevice,
    VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pvmigrate_record::names;
use pvmigrate_record::record::Record;

use crate::config::Config;
pub use arguments::is_told_otherwise;

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

/// Where a mover has to run, taken from the claim's consumer or from the template of its workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// The node of the running consumer: a ReadWriteOnce source can be mounted nowhere else.
    pub node: Option<String>,
    pub node_selector: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub node_affinity: Option<NodeSelector>,
    pub security: Option<PodSecurityContext>,
}

impl Placement {
    /// From the spec of a consumer, or of the template that would make one.
    pub fn of(spec: &PodSpec) -> Self {
        let affinity = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref());
        Self {
            node: spec.node_name.clone(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            node_affinity: affinity.and_then(|a| {
                a.required_during_scheduling_ignored_during_execution
                    .clone()
            }),
            security: spec.security_context.clone(),
        }
    }

    /// The terms of the consumer, each narrowed to its node. By affinity, never by `nodeName`:
    /// that would bypass the scheduler, and a WaitForFirstConsumer claim would wait for ever.
    fn affinity(&self) -> Option<Affinity> {
        let mut terms = self
            .node_affinity
            .clone()
            .map(|selector| selector.node_selector_terms)
            .unwrap_or_default();
        if let Some(node) = &self.node {
            if terms.is_empty() {
                terms.push(NodeSelectorTerm::default());
            }
            for term in &mut terms {
                term.match_fields
                    .get_or_insert_default()
                    .push(NodeSelectorRequirement {
                        key: "metadata.name".into(),
                        operator: "In".into(),
                        values: Some(vec![node.clone()]),
                    });
            }
        }
        (!terms.is_empty()).then(|| Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                    node_selector_terms: terms,
                }),
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        })
    }
}

/// The pod that copies one claim. It has no token, no network of use, and the source read-only.
pub fn mover_pod(record: &Record, config: &Config, placement: &Placement) -> Pod {
    let name = names::staging_object(&record.run, &record.claim.uid);
    Pod {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(record.claim.namespace.clone()),
            labels: Some(BTreeMap::from([
                (names::RUN.into(), record.run.clone()),
                (names::ROLE.into(), names::ROLE_MOVER.into()),
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
            image_pull_secrets: Some(
                config
                    .image_pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect(),
            ),
            containers: vec![container(record, config)],
            volumes: Some(vec![
                // A container may look at a file system without writing to it, and not at a device:
                // the whole volume is read-only then.
                claim_volume("source", &record.claim.name, record.manifest.is_block()),
                claim_volume("destination", &name, false),
                order_volume(),
            ]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn container(record: &Record, config: &Config) -> Container {
    let (mounts, devices) = volumes_inside(record);
    let extra = config.mover_extra_capabilities.iter().cloned();
    Container {
        name: "mover".into(),
        image: Some(config.image.clone()),
        image_pull_policy: Some(config.image_pull_policy.clone()),
        command: Some(vec!["/pvmigrate-mover".into()]),
        args: Some(arguments::arguments(record, config)),
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
        resources: config.mover_resources().ok().flatten(),
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
            ("destination", names::DESTINATION_DEVICE),
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
    let destination = mount("destination", names::DESTINATION_MOUNT);
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
pub mod tests {
    use super::*;
    use crate::config::tests::config;
    use serde_json::json;

    #[test]
    fn a_pinned_mover_keeps_every_term_of_its_consumer() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [], "nodeName": "n1", "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "db", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
            ]}}}
        }))
        .unwrap();
        let placement = Placement::of(&spec);
        let affinity = serde_json::to_value(placement.affinity()).unwrap();
        let terms = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].as_array().unwrap().clone();
        assert_eq!(terms.len(), 2);
        for (term, zone) in terms.iter().zip(["a", "b"]) {
            assert_eq!(term["matchExpressions"][0]["values"][0], zone);
            assert_eq!(
                term["matchFields"][0],
                json!({"key": "metadata.name", "operator": "In", "values": ["n1"]})
            );
        }
        assert_eq!(placement.node_selector["disk"], "ssd");
        assert_eq!(placement.tolerations.len(), 1);
    }

    /// Of a claim of this volume mode.
    pub fn record(volume_mode: &str) -> Record {
        serde_json::from_value(json!({
            "version": 1, "release": {"namespace": "ops", "name": "r"}, "run": "0", "epoch": 1,
            "job": "j", "phase": "Planned", "fence": {"on": false, "generation": 0},
            "claim": {"namespace": "shop", "name": "data", "uid": "u"},
            "sourceClass": "a", "destinationClass": "b",
            "source": {"name": "pv", "uid": "v", "reclaim_policy": "Delete"},
            "manifest": {"volumeMode": volume_mode},
            "group": "g", "freeze": {"method": "scale", "workloads": []}
        }))
        .unwrap()
    }

    #[test]
    fn a_block_volume_is_a_device_and_its_source_read_only() {
        let pod = mover_pod(&record("Block"), &config(&[]), &Placement::default());
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        assert_eq!(
            spec["volumes"][0]["persistentVolumeClaim"],
            json!({"claimName": "data", "readOnly": true})
        );
        assert_eq!(
            spec["volumes"][1]["persistentVolumeClaim"]["readOnly"],
            json!(null)
        );
        let container = &spec["containers"][0];
        assert_eq!(
            container["volumeDevices"],
            json!([
                {"name": "source", "devicePath": "/dev/source"},
                {"name": "destination", "devicePath": "/dev/destination"}
            ])
        );
        assert_eq!(container["volumeMounts"].as_array().unwrap().len(), 1);

        let pod = mover_pod(&record("Filesystem"), &config(&[]), &Placement::default());
        let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["readOnly"], true);
        // A volume that is read-only as a whole would be attached, or mounted, in another way than
        // the consumer's is.
        assert_eq!(
            spec["volumes"][0]["persistentVolumeClaim"],
            json!({"claimName": "data"})
        );
    }

    #[test]
    fn a_mover_of_an_unused_claim_is_not_pinned() {
        assert_eq!(Placement::default().affinity(), None);
    }
}
