//! A probe: a dry run of a pod that mounts a fenced claim, asked of one API server over a new
//! connection.
//!
//! It differs from a user's pod in nothing that the rules read, but for the mark that keeps it
//! from being spared.

use std::collections::BTreeMap;

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

use super::{Fence, in_cluster};
use crate::stop::Stop;

/// What an API server said to a probe.
pub(super) enum Answer {
    /// This layer refused it, in our own words.
    RefusedByUs,
    Allowed,
    /// Somebody else refused it, or nobody could answer.
    Other(String),
}

impl Fence {
    /// The addresses of all API servers. None stands for the Service, which leads to one of them: it
    /// is asked where they are not known, or one of them does not answer at its own address.
    pub(super) async fn api_servers(&self) -> Result<Vec<Option<String>>, Stop> {
        let mut servers = Vec::new();
        if !in_cluster() {
            return Ok(vec![None]);
        }
        let api: Api<EndpointSlice> = self.cluster.namespaced("default");
        let Some(slice) = self.cluster.get(&api, "kubernetes").await? else {
            return Ok(vec![None]);
        };
        let mut all_answer = true;
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
                    all_answer = false;
                    tracing::warn!(%url, %why, "this API server cannot be reached by its own address; it is asked through the Service only");
                }
            }
        }
        if servers.is_empty() || !all_answer {
            servers.push(None);
        }
        Ok(servers)
    }

    pub(super) async fn ask(
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
