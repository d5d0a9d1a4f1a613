//! Proof that the fence is in force: a dry run of a pod that mounts the claim is refused, by
//! each layer, on every API server that can be reached, over new connections.
//!
//! A probe differs from a user's pod in nothing that the rules read, but for the mark that keeps
//! it from being spared.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec,
    ResourceRequirements, SeccompProfile, SecurityContext, Volume,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use pvmigrate_record::names;
use pvmigrate_record::record::Record;
use tokio::time::Instant;

use super::{Fence, in_cluster};
use crate::stop::Stop;

/// Refusals in a row, each over a connection of its own, that prove a layer.
const IN_A_ROW: usize = 3;
/// How long the layers may take to be in force, or out of it.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
const LAYERS: [&str; 2] = [names::LAYER_POLICY, names::LAYER_WEBHOOK];

/// What an API server said to a probe.
enum Answer {
    /// This layer refused it, in our own words.
    RefusedByUs,
    Allowed,
    /// Somebody else refused it, or nobody could answer.
    Other(String),
}

impl Fence {
    /// Proves that no new pod may mount the claims of these records.
    pub async fn prove_closed(&self, records: &[&Record]) -> Result<(), Stop> {
        let servers = self.api_servers().await?;
        let started = Instant::now();
        for record in records {
            for layer in LAYERS {
                for server in &servers {
                    let mut in_a_row = 0;
                    while in_a_row < IN_A_ROW {
                        match self.ask(server.as_deref(), record, layer).await? {
                            Answer::RefusedByUs => in_a_row += 1,
                            answer if started.elapsed() > LIMIT => {
                                return Err(Stop::refused(format!(
                                    "the fence of claim {} could not be proved in {} s: the {layer} {}; nothing was stopped",
                                    record.claim,
                                    LIMIT.as_secs(),
                                    answer.reason()
                                )));
                            }
                            _ => {
                                in_a_row = 0;
                                tokio::time::sleep(PAUSE).await;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until pods may mount the claims of these records again: a controller whose first try
    /// is refused waits longer and longer before it tries again.
    pub async fn prove_open(&self, records: &[&Record]) -> Result<(), Stop> {
        let servers = self.api_servers().await?;
        let started = Instant::now();
        for record in records {
            for layer in LAYERS {
                for server in &servers {
                    while self.ask(server.as_deref(), record, layer).await?.is_ours() {
                        if started.elapsed() > LIMIT {
                            return Err(Stop::Api(format!(
                                "the {layer} still refuses pods that mount claim {} after {} s",
                                record.claim,
                                LIMIT.as_secs()
                            )));
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// The addresses of the API servers that answer; the configured one (none) is always asked.
    async fn api_servers(&self) -> Result<Vec<Option<String>>, Stop> {
        let mut servers = vec![None];
        if !in_cluster() {
            return Ok(servers);
        }
        let api: Api<EndpointSlice> = self.cluster.namespaced("default");
        let Some(slice) = self.cluster.get(&api, "kubernetes").await? else {
            return Ok(servers);
        };
        let port = slice
            .ports
            .iter()
            .flatten()
            .find_map(|port| port.port)
            .unwrap_or(443);
        for address in slice
            .endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.addresses)
        {
            let host = if address.contains(':') {
                format!("[{address}]")
            } else {
                address.clone()
            };
            let url = format!("https://{host}:{port}");
            let reached = match self.cluster.new_connection(Some(&url)) {
                Ok(client) => client
                    .apiserver_version()
                    .await
                    .map(|_| ())
                    .map_err(|e| e.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match reached {
                Ok(()) => servers.push(Some(url)),
                Err(why) => {
                    tracing::warn!(%url, %why, "this API server cannot be reached by its own address; it is asked through the Service only");
                }
            }
        }
        Ok(servers)
    }

    async fn ask(
        &self,
        server: Option<&str>,
        record: &Record,
        layer: &str,
    ) -> Result<Answer, Stop> {
        let client: Client = self
            .cluster
            .new_connection(server)
            .map_err(|error| Stop::Api(error.to_string()))?;
        let api: Api<Pod> = Api::namespaced(client, &record.claim.namespace);
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let ours = format!("pvmigrate is migrating claim {} ", record.claim);
        Ok(
            match api
                .create(&params, &probe(record, layer, &self.config.image))
                .await
            {
                Ok(_) => Answer::Allowed,
                Err(kube::Error::Api(status))
                    if status.code == 403 && status.message.contains(&ours) =>
                {
                    Answer::RefusedByUs
                }
                Err(kube::Error::Api(status)) => Answer::Other(status.message),
                Err(error) => Answer::Other(error.to_string()),
            },
        )
    }
}

impl Answer {
    /// A refusal by a layer of ours, or for want of it. What else stands against a probe is not
    /// the fence's affair.
    fn is_ours(&self) -> bool {
        match self {
            Self::RefusedByUs => true,
            Self::Allowed => false,
            Self::Other(what) => what.contains("fence.pvmigrate.io"),
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::RefusedByUs => "did not refuse often enough in a row".into(),
            Self::Allowed => "lets a pod that mounts it pass".into(),
            Self::Other(what) => format!("was not reached, the API server said: {what}"),
        }
    }
}

/// As plain a pod as the strictest namespace admits.
fn probe(record: &Record, layer: &str, image: &str) -> Pod {
    let least = |amount: &str| Quantity(amount.to_string());
    let resources = BTreeMap::from([("cpu".into(), least("1m")), ("memory".into(), least("1Mi"))]);
    Pod {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}-probe",
                names::staging_object(&record.run, &record.claim.uid)
            )),
            namespace: Some(record.claim.namespace.clone()),
            labels: Some(BTreeMap::from([
                (names::ROLE.into(), names::ROLE_PROBE.into()),
                (names::PROBE.into(), layer.to_string()),
            ])),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(65532),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![Container {
                name: "probe".into(),
                image: Some(image.to_string()),
                resources: Some(ResourceRequirements {
                    requests: Some(resources.clone()),
                    limits: Some(resources),
                    ..ResourceRequirements::default()
                }),
                security_context: Some(SecurityContext {
                    allow_privilege_escalation: Some(false),
                    capabilities: Some(Capabilities {
                        drop: Some(vec!["ALL".into()]),
                        add: None,
                    }),
                    ..SecurityContext::default()
                }),
                ..Container::default()
            }],
            volumes: Some(vec![Volume {
                name: "claim".into(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: record.claim.name.clone(),
                    ..PersistentVolumeClaimVolumeSource::default()
                }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }),
        status: None,
    }
}
