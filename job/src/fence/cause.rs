//! Why the fence cannot be proved: from what the API server said to a probe, and from what is
//! behind the webhook's Service, to a sentence that says what to do. Pure.

use super::objects::Setting;

/// How the entries of our own webhook configuration end.
pub const OURS: &str = ".fence.pvmigrate.io";

/// What is behind the webhook's Service.
#[derive(Clone, Debug, PartialEq)]
pub enum Behind {
    NoService,
    /// Its pods, each with the reason why it is not Ready if it is not.
    Pods(Vec<(String, Option<String>)>),
}

/// Why a layer did not refuse a probe. `said` is the API server's message; none if it let the
/// probe pass.
pub fn cause(
    setting: &Setting,
    ca_secret: &str,
    layer: &str,
    said: Option<&str>,
    behind: &Behind,
) -> String {
    let Some(said) = said else {
        return format!("the {layer} lets a pod that mounts it pass");
    };
    if let Some(webhook) = quoted(said, "failed calling webhook \"", '"') {
        return if webhook.ends_with(OURS) {
            unanswered(setting, ca_secret, said, behind)
        } else {
            format!(
                "webhook {webhook} does not answer, so that no pod can be made there: {said}; repair it, or find its configuration and delete it: kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
            )
        };
    }
    if let Some(webhook) = quoted(said, "admission webhook \"", '"') {
        return format!(
            "webhook {webhook} stands before it and refuses the pod that is tried: {said}; make it spare pods with the label pvmigrate.io/role=probe"
        );
    }
    if let Some(policy) = quoted(said, "ValidatingAdmissionPolicy '", '\'') {
        return if policy == pvmigrate_record::names::fence_object(&setting.release) {
            format!("the fence's own policy does not work: {said}")
        } else {
            format!(
                "policy {policy} stands before it and refuses the pod that is tried: {said}; make it spare pods with the label pvmigrate.io/role=probe"
            )
        };
    }
    format!("the API server does not get as far as the {layer}: {said}")
}

/// The webhook was asked, and there was no verdict.
fn unanswered(setting: &Setting, ca_secret: &str, said: &str, behind: &Behind) -> String {
    let (namespace, service) = (&setting.release.namespace, &setting.webhook_service);
    if said.contains("x509:") || said.contains("tls:") {
        return format!(
            "the webhook's certificate is not one of the CA in Secret {namespace}/{ca_secret}: {said}; delete that Secret, and the webhook's pods make it again: kubectl -n {namespace} delete secret {ca_secret}"
        );
    }
    if said.contains("pvmigrate: ") {
        return format!(
            "the webhook does not know all that is fenced yet: {said}; see kubectl -n {namespace} logs deployment/{service}"
        );
    }
    let pods = match behind {
        Behind::NoService => {
            return format!(
                "Service {namespace}/{service} does not exist: {said}; install the chart again"
            );
        }
        Behind::Pods(pods) => pods,
    };
    let not_ready: Vec<&str> = pods.iter().filter_map(|(_, why)| why.as_deref()).collect();
    if pods.is_empty() {
        format!(
            "no pod is behind Service {namespace}/{service}: {said}; see kubectl -n {namespace} get deployment {service}"
        )
    } else if not_ready.len() == pods.len() {
        format!(
            "no pod behind Service {namespace}/{service} is Ready ({}): {said}; see kubectl -n {namespace} get pods",
            not_ready.join("; ")
        )
    } else {
        let ready = pods.iter().filter(|(_, why)| why.is_none());
        let ready: Vec<&str> = ready.map(|(name, _)| name.as_str()).collect();
        format!(
            "the API server cannot reach the webhook, though {} is Ready: {said}; see that the port of Service {namespace}/{service} is the pods' own, and that no NetworkPolicy or firewall stands between",
            ready.join(", ")
        )
    }
}

/// What stands between the end of a beginning and the next end.
fn quoted<'a>(text: &'a str, begin: &str, end: char) -> Option<&'a str> {
    let (_, rest) = text.split_once(begin)?;
    rest.split_once(end).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests;
