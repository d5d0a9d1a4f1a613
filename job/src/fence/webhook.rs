//! The fence's second layer: what the API server asks the webhook about.
//!
//! By name, so that a webhook that does not answer stops nobody but those who are meant.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, RuleWithOperations, ServiceReference, ValidatingWebhook,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use pvmigrate_record::names;

use super::objects::Scope;

impl Scope {
    pub fn webhook(&self) -> ValidatingWebhookConfiguration {
        let claims = self.claims.iter();
        let claims = claims.flat_map(|(ns, names)| names.iter().map(move |n| format!("{ns}/{n}")));
        let claims = list(claims);
        let workloads = list(self.workloads.iter().map(|workload| {
            let kind = workload.kind.to_lowercase();
            format!("{kind}s/{}/{}", workload.namespace, workload.name)
        }));
        let mounts = format!(
            "has(object.spec.volumes) && object.spec.volumes.exists(v, has(v.persistentVolumeClaim) && (request.namespace + '/' + v.persistentVolumeClaim.claimName) in {claims})"
        );
        let takes = format!("(request.namespace + '/' + object.metadata.name) in {claims}");
        let stopped = format!(
            "(request.resource.resource + '/' + request.namespace + '/' + request.name) in {workloads}"
        );
        // Absent, replicas are 1 in a workload, and 0 in a Scale, which omits its zero.
        let replicas = |object: &str| {
            format!(
                "{object}.?spec.?replicas.orValue(request.?subResource.orValue('') == 'scale' ? 0 : 1)"
            )
        };
        let up = format!("{} > {}", replicas("object"), replicas("oldObject"));
        let scaled = ["deployments", "statefulsets", "replicasets"];
        let scaled = scaled
            .iter()
            .flat_map(|r| [(*r).to_string(), format!("{r}/scale")]);
        ValidatingWebhookConfiguration {
            metadata: self.metadata(),
            webhooks: Some(vec![
                self.rule(
                    "pods",
                    "",
                    "CREATE",
                    vec!["pods".into()],
                    vec![condition("mounts-a-fenced-claim", mounts)],
                ),
                self.rule(
                    "claims",
                    "",
                    "CREATE",
                    vec!["persistentvolumeclaims".into()],
                    vec![condition("takes-a-fenced-name", takes)],
                ),
                self.rule(
                    "workloads",
                    "apps",
                    "UPDATE",
                    scaled.collect(),
                    vec![condition("is-stopped", stopped), condition("scaled-up", up)],
                ),
            ]),
        }
    }

    fn rule(
        &self,
        name: &str,
        group: &str,
        operation: &str,
        resources: Vec<String>,
        more: Vec<MatchCondition>,
    ) -> ValidatingWebhook {
        let conditions = std::iter::once(self.not_spared(names::LAYER_WEBHOOK)).chain(more);
        ValidatingWebhook {
            name: format!("{name}.fence.pvmigrate.io"),
            admission_review_versions: vec!["v1".into()],
            client_config: WebhookClientConfig {
                ca_bundle: Some(ByteString(self.ca.clone())),
                service: Some(ServiceReference {
                    name: self.webhook_service.clone(),
                    namespace: self.release.namespace.clone(),
                    path: Some(format!("/fence/{}", self.generation)),
                    port: Some(names::WEBHOOK_PORT),
                }),
                url: None,
            },
            failure_policy: Some("Fail".into()),
            match_policy: Some("Equivalent".into()),
            side_effects: "None".into(),
            timeout_seconds: Some(5),
            namespace_selector: Some(self.namespaces()),
            object_selector: None,
            match_conditions: Some(conditions.collect()),
            rules: Some(vec![RuleWithOperations {
                api_groups: Some(vec![group.into()]),
                api_versions: Some(vec!["v1".into()]),
                operations: Some(vec![operation.into()]),
                resources: Some(resources),
                scope: Some("Namespaced".into()),
            }]),
        }
    }
}

fn condition(name: &str, expression: String) -> MatchCondition {
    MatchCondition {
        name: name.into(),
        expression,
    }
}

/// A list of strings as CEL writes it. Names of Kubernetes objects need no escaping.
fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    format!("[{}]", names.join(", "))
}
