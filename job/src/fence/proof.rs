//! Proof that the fence is in force: probes are refused, by each layer, on every API server that can
//! be reached; several times in a row where it is not known which one answers. And proof that it is
//! open again.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pvmigrate_record::names;
use pvmigrate_record::record::Record;
use tokio::time::Instant;

use super::Fence;
use super::cause::{Behind, OURS, cause};
use super::probe::Answer;
use crate::causes;
use crate::cluster::retried;
use crate::stop::Stop;

/// Refusals in a row, each over a connection of its own, that prove a layer where nobody knows which
/// API server is asked. One that is asked at its own address forgets nothing: once is enough.
const IN_A_ROW: usize = 3;
/// For how long the addresses of the API servers are not looked up again.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// How long the layers may take to be in force, or out of it.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two probes; doubled as long as the answer is the wrong one, for an API server takes up
/// to a second to take a policy in.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_AT_MOST: Duration = Duration::from_millis(100);
const SAY_EVERY: Duration = Duration::from_secs(10);

impl Fence {
    fn layers(&self) -> &'static [&'static str] {
        if self.has_webhook {
            &[names::LAYER_POLICY, names::LAYER_WEBHOOK]
        } else {
            &[names::LAYER_POLICY]
        }
    }

    /// Proves that no new pod may mount the claims of these records.
    pub async fn prove_closed(&self, records: &[&Record]) -> Result<(), Stop> {
        if records.is_empty() {
            return Ok(());
        }
        let repairs = self.repairs().await;
        let servers = self.servers_now().await?;
        let started = Instant::now();
        let newest = records.iter().map(|record| record.fence.generation).max();
        for (index, record) in records.iter().enumerate() {
            for layer in self.layers() {
                // A webhook that knows the record that was written last knows those before it.
                let is_known = Some(record.fence.generation) != newest;
                if *layer == names::LAYER_WEBHOOK && is_known {
                    continue;
                }
                for server in &servers {
                    // All claims of a group are fenced by the same writes: what is known of the
                    // first is known of the others, each of which is asked for all the same.
                    let is_any = server.is_none() && index == 0;
                    let in_a_row = if is_any { IN_A_ROW } else { 1 };
                    self.refused(server.as_deref(), record, layer, in_a_row, started)
                        .await?;
                }
            }
        }
        self.proved(records, repairs).await;
        Ok(())
    }

    /// The API servers, looked up now or a moment ago.
    async fn servers_now(&self) -> Result<Vec<Option<String>>, Stop> {
        let state = self.state.lock().await;
        if state
            .looked_up
            .is_some_and(|then| then.elapsed() < KNOWN_FOR)
        {
            return Ok(state.servers.clone());
        }
        drop(state);
        let servers = self.api_servers().await?;
        let mut state = self.state.lock().await;
        (state.servers, state.looked_up) = (servers.clone(), Some(Instant::now()));
        Ok(servers)
    }

    /// Waits until a layer has refused often enough in a row.
    async fn refused(
        &self,
        server: Option<&str>,
        record: &Record,
        layer: &str,
        wanted: usize,
        started: Instant,
    ) -> Result<(), Stop> {
        let (mut in_a_row, mut said) = (0, Instant::now());
        let mut pause = PAUSE;
        while in_a_row < wanted {
            let answer = match self.ask(server, record, layer).await? {
                Answer::RefusedByUs => {
                    in_a_row += 1;
                    continue;
                }
                Answer::Allowed => None,
                Answer::Other(said) => Some(said),
            };
            in_a_row = 0;
            if started.elapsed() > LIMIT {
                let why = self.why(layer, answer.as_deref()).await;
                return Err(Stop::refused(format!(
                    "the fence of claim {} could not be proved in {} s: {why}",
                    record.claim,
                    LIMIT.as_secs()
                )));
            }
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                let why = self.why(layer, answer.as_deref()).await;
                tracing::info!(claim = %record.claim, %why, "still waiting for the fence to be in force");
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_AT_MOST.min(pause * 2);
        }
        Ok(())
    }

    /// Waits until pods may mount the claims of these records again: a controller whose first try
    /// is refused waits longer and longer before it tries again.
    pub async fn prove_open(&self, records: &[&Record]) -> Result<(), Stop> {
        // Those that were asked when it was proved closed: nothing is looked up while applications
        // are stopped.
        let mut servers = self.state.lock().await.servers.clone();
        if servers.is_empty() {
            servers = self.api_servers().await?;
        }
        let fence = names::fence_object(&self.setting.release);
        let started = Instant::now();
        // They are opened by the same writes: what holds for one holds for the others.
        let Some(record) = records.first() else {
            return Ok(());
        };
        for server in &servers {
            loop {
                let answer = self.ask(server.as_deref(), record, names::LAYERS).await?;
                if !is_shut(&fence, &answer) {
                    break;
                }
                if started.elapsed() > LIMIT {
                    let said = match answer {
                        Answer::Other(said) => said,
                        _ => "its own sentence".into(),
                    };
                    return Err(Stop::Api(format!(
                        "the fence still refuses pods that mount claim {} after {} s: {said}",
                        record.claim,
                        LIMIT.as_secs()
                    )));
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn why(&self, layer: &str, said: Option<&str>) -> String {
        match self.behind().await {
            Ok(behind) => cause(&self.setting, &self.config.ca_secret, layer, said, &behind),
            Err(why) => format!(
                "the {layer} does not refuse, the API server says: {}; and what is behind the webhook's Service cannot be read: {why}",
                said.unwrap_or("nothing")
            ),
        }
    }

    /// The webhook's pods, and why those that are not Ready are not.
    async fn behind(&self) -> Result<Behind, Stop> {
        let Some(pods) = self.webhook_pods().await? else {
            return Ok(Behind::NoService);
        };
        let ready = |pod: &Pod| {
            let status = pod.status.iter();
            let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
            conditions.any(|c| c.type_ == "Ready" && c.status == "True")
        };
        let pods = pods.into_iter().map(|pod| {
            let why = (!ready(&pod)).then(|| causes::of_pod(&pod));
            (pod.name_any(), why)
        });
        Ok(Behind::Pods(pods.collect()))
    }

    /// The pods that the webhook's Service chooses; none if there is no such Service.
    pub(super) async fn webhook_pods(&self) -> Result<Option<Vec<Pod>>, Stop> {
        let namespace = &self.config.release_namespace;
        let services: Api<Service> = self.cluster.namespaced(namespace);
        let name = &self.setting.webhook_service;
        let Some(service) = self.cluster.get(&services, name).await? else {
            return Ok(None);
        };
        let selector = service.spec.and_then(|spec| spec.selector);
        let labels: Vec<String> = selector
            .into_iter()
            .flatten()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let api: Api<Pod> = self.cluster.namespaced(namespace);
        let params = ListParams::default().labels(&labels.join(","));
        let pods = retried(|| api.list(&params)).await?;
        Ok(Some(pods.items))
    }
}

/// Whether a probe was refused by a layer of this fence, or for want of it: of its webhook, or of
/// its policy's parameters. What else stands against a probe is not the fence's affair.
pub(super) fn is_shut(fence: &str, answer: &Answer) -> bool {
    match answer {
        Answer::RefusedByUs => true,
        Answer::Allowed => false,
        Answer::Other(said) => {
            said.contains(OURS) || said.contains(&format!("ValidatingAdmissionPolicy '{fence}'"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_shut_while_a_layer_of_it_refuses_or_lacks_something() {
        let unanswered = "Internal error occurred: failed calling webhook \"pods.fence.pvmigrate.io\": failed to call webhook: Post \"https://pvmigrate-webhook.ops.svc:443/fence/4?timeout=5s\": service \"pvmigrate-webhook\" not found";
        let no_parameters = "pods \"pvmigrate-28571450dc-a9cef1c5f59e-probe\" is forbidden: ValidatingAdmissionPolicy 'pvmigrate.ops.pvmigrate' with binding 'pvmigrate.ops.pvmigrate' denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
        let of_others = [
            "admission webhook \"strict.example.org\" denied the request: no",
            "pods \"pvmigrate-28571450dc-a9cef1c5f59e-probe\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=5, limited: pods=5",
            "pods \"pvmigrate-28571450dc-a9cef1c5f59e-probe\" is forbidden: ValidatingAdmissionPolicy 'strict' with binding 'strict' denied request: no probes",
        ];
        let said = |what: &str| Answer::Other(what.into());
        let is_shut = |answer: &Answer| super::is_shut("pvmigrate.ops.pvmigrate", answer);
        assert!(is_shut(&Answer::RefusedByUs));
        assert!(is_shut(&said(unanswered)));
        assert!(is_shut(&said(no_parameters)));
        assert!(!is_shut(&Answer::Allowed));
        for what in of_others {
            assert!(!is_shut(&said(what)), "{what}");
        }
    }
}
