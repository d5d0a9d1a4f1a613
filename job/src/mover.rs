//! The mover's pod: where it runs, what it mounts, what it may do.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EnvVar,
    EnvVarSource, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, PersistentVolumeClaimVolumeSource, Pod,
    PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pvmigrate_record::names;
use pvmigrate_record::order::{Level, THREADS};
use pvmigrate_record::record::Record;

use crate::config::Config;

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
            containers: vec![container(config)],
            volumes: Some(vec![
                claim_volume("source", &record.claim.name),
                claim_volume("destination", &name),
                order_volume(),
            ]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn container(config: &Config) -> Container {
    let extra = config.mover_extra_capabilities.iter().cloned();
    Container {
        name: "mover".into(),
        image: Some(config.image.clone()),
        image_pull_policy: Some(config.image_pull_policy.clone()),
        command: Some(vec!["/pvmigrate-mover".into()]),
        args: Some(arguments(config)),
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
        volume_mounts: Some(vec![
            VolumeMount {
                read_only: Some(true),
                ..mount("source", names::SOURCE_MOUNT)
            },
            mount("destination", names::DESTINATION_MOUNT),
            mount("order", names::ORDER_DIR),
        ]),
        ..Container::default()
    }
}

/// Whether a mover, of a Job before, was told to work otherwise than it would be now.
pub fn is_told_otherwise(pod: &Pod, config: &Config) -> bool {
    let spec = pod.spec.iter();
    let mut containers = spec.flat_map(|spec| &spec.containers);
    // What admission has added beside it is told nothing by us.
    !containers.any(|container| container.args.as_ref() == Some(&arguments(config)))
}

/// What differs from what a mover does by itself.
fn arguments(config: &Config) -> Vec<String> {
    let mut all = vec!["serve".to_string()];
    let mut say = |flag: &str, value: String| all.push(format!("--{flag}={value}"));
    if config.mover_verify != Level::default() {
        say("verify", config.mover_verify.name().into());
    }
    for pattern in &config.mover_exclude {
        say("exclude", pattern.clone());
    }
    if let Ok(Some(bandwidth)) = config.mover_bandwidth() {
        say("bandwidth", bandwidth.to_string());
    }
    for attribute in &config.mover_lose {
        say("lose", attribute.name().into());
    }
    if config.mover_threads != THREADS {
        say("threads", config.mover_threads.to_string());
    }
    if config.mover_selinux {
        all.push("--selinux".into());
    }
    all
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn claim_volume(name: &str, claim: &str) -> Volume {
    Volume {
        name: name.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.into(),
            ..PersistentVolumeClaimVolumeSource::default()
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
mod tests {
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

    #[test]
    fn a_mover_is_told_what_differs_from_its_defaults() {
        assert_eq!(arguments(&config(&[])), ["serve"]);
        let config = config(&[
            ("PVMIGRATE_MOVER_VERIFY", "none"),
            ("PVMIGRATE_MOVER_EXCLUDE", "-a\nb,c"),
            ("PVMIGRATE_MOVER_BANDWIDTH", "1Ki"),
            ("PVMIGRATE_MOVER_LOSE", "acls,owner"),
            ("PVMIGRATE_MOVER_SELINUX", "true"),
            ("PVMIGRATE_MOVER_THREADS", "2"),
        ]);
        let expected = "serve --verify=none --exclude=-a --exclude=b,c --bandwidth=1024 --lose=acls --lose=owner --threads=2 --selinux";
        assert_eq!(arguments(&config).join(" "), expected);
    }

    #[test]
    fn a_mover_of_an_unused_claim_is_not_pinned() {
        assert_eq!(Placement::default().affinity(), None);
    }
}
