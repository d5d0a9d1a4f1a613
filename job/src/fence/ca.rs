//! The webhook's certificate authority: its pods make it when they first start. Where neither is
//! left, an abort does without the webhook.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Api;
use tokio::time::Instant;

use super::Fence;
use crate::stop::Stop;

/// How long the webhook's Secret may be missing.
const LIMIT: Duration = Duration::from_secs(120);
/// The certificates in that Secret.
const KEY: &str = "ca.crt";

impl Fence {
    /// The webhook's CA, waited for.
    pub(super) async fn ca(&self) -> Result<Vec<u8>, Stop> {
        let (namespace, name) = (&self.config.release_namespace, &self.config.ca_secret);
        let started = Instant::now();
        tracing::info!(secret = %name, "reading the webhook's CA");
        loop {
            if let Some(ca) = self.ca_now().await? {
                return Ok(ca);
            }
            if started.elapsed() > LIMIT {
                return Err(Stop::refused(format!(
                    "waited {} s for the webhook to make its CA, Secret {namespace}/{name}, in vain: see kubectl -n {namespace} get pods",
                    LIMIT.as_secs(),
                )));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ca_now(&self) -> Result<Option<Vec<u8>>, Stop> {
        let api: Api<Secret> = self.cluster.namespaced(&self.config.release_namespace);
        let secret = self.cluster.get(&api, &self.config.ca_secret).await?;
        Ok(secret.and_then(certificates))
    }

    /// Before an abort, which has to do with what is there: where the webhook is gone for good,
    /// the policy is all of the fence from here on.
    pub async fn do_without_webhook_if_gone(&mut self) -> Result<(), Stop> {
        if !self.has_webhook || self.ca_now().await?.is_some() {
            return Ok(());
        }
        let pods = self.webhook_pods().await?.unwrap_or_default();
        if is_gone(&pods) {
            tracing::warn!(
                secret = %self.config.ca_secret,
                "the webhook is gone, and its CA with it: from here on the policy alone keeps the fence"
            );
            self.has_webhook = false;
        }
        Ok(())
    }
}

/// Whether none of the webhook's pods will make its CA again.
fn is_gone(pods: &[Pod]) -> bool {
    pods.iter().all(|pod| {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
        has_ended || pod.metadata.deletion_timestamp.is_some()
    })
}

/// All certificates of the CA: while it is changed for another, those of both.
pub(super) fn certificates(secret: Secret) -> Option<Vec<u8>> {
    secret.data?.remove(KEY).map(|ca| ca.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_webhook_is_gone_when_no_pod_is_left_that_would_make_its_ca() {
        let pod = |metadata: Value, phase: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": metadata, "status": {"phase": phase},
            }))
            .unwrap()
        };
        let running = pod(json!({}), "Running");
        let pending = pod(json!({}), "Pending");
        let ending = pod(
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            "Running",
        );
        let failed = pod(json!({}), "Failed");
        for (pods, gone) in [
            (vec![], true),
            (vec![ending.clone()], true),
            (vec![failed.clone(), ending.clone()], true),
            (vec![pending], false),
            (vec![ending, running], false),
        ] {
            assert_eq!(is_gone(&pods), gone, "{pods:?}");
        }
    }
}
