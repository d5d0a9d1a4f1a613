//! The objects that the fence is made of, as they shall be. Pure.
//!
//! Two layers. The policy runs in the API server: its parameters name the fenced
//! claims, so that opening the fence is one small write that takes effect at once (a change of
//! the policy itself takes up to a second). The webhook has a memory and a better sentence.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef,
    RuleWithOperations, ServiceReference, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, ValidatingWebhook, ValidatingWebhookConfiguration, Validation,
    Variable, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference,
};
use pvmigrate_record::names;
use pvmigrate_record::record::Release;
use pvmigrate_record::refusal;

/// Everything that the objects are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    pub release: Release,
    pub run: String,
    pub destination_class: String,
    /// Fenced claims, by namespace.
    pub claims: BTreeMap<String, BTreeSet<String>>,
    /// The highest generation that is fenced: a webhook that has not seen it must not answer.
    pub generation: u64,
    /// The user name of the Job: its own requests are spared, but for its probes.
    pub job_user: String,
    pub webhook_service: String,
    pub ca: Vec<u8>,
    /// None while a claim is missing: uninstalling must not open the fence over it.
    pub cluster_owner: Option<OwnerReference>,
    pub namespaced_owner: Option<OwnerReference>,
}

impl Scope {
    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(names::fence_object(&self.release)),
            labels: Some(self.labels()),
            owner_references: Some(self.cluster_owner.iter().cloned().collect()),
            ..ObjectMeta::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (names::RUN.into(), self.run.clone()),
            (names::ROLE.into(), names::ROLE_FENCE.into()),
        ])
    }

    /// No namespace but those with a fenced claim is ever asked about.
    fn namespaces(&self) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "kubernetes.io/metadata.name".into(),
                operator: "In".into(),
                values: Some(self.claims.keys().cloned().collect()),
            }]),
            match_labels: None,
        }
    }

    /// The Job's own requests are spared, unless they carry this layer's probe mark.
    fn not_spared(&self, layer: &str) -> MatchCondition {
        MatchCondition {
            name: "not-the-job".into(),
            expression: format!(
                "request.userInfo.username != '{}' || (has(object.metadata.labels) && '{}' in object.metadata.labels && object.metadata.labels['{}'] == '{layer}')",
                self.job_user,
                names::PROBE,
                names::PROBE,
            ),
        }
    }

    /// The parameters of the policy: annotations with the claims' names, one for each namespace.
    ///
    /// On a ServiceAccount, because the API server itself follows those for as long as it runs. It
    /// follows a kind that only policies ask for until the last such policy is deleted, and then
    /// never again (kubernetes/kubernetes#130887): a second fence would find no parameters, or
    /// old ones.
    pub fn parameters(&self) -> ServiceAccount {
        let lines = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join("\n");
        let fenced = self.claims.iter();
        let fenced = fenced.map(|(ns, names)| (format!("{}{ns}", names::FENCED), lines(names)));
        ServiceAccount {
            metadata: ObjectMeta {
                name: Some(names::fence_claims(&self.release)),
                namespace: Some(self.release.namespace.clone()),
                labels: Some(self.labels()),
                annotations: Some(fenced.collect()),
                owner_references: Some(self.namespaced_owner.iter().cloned().collect()),
                ..ObjectMeta::default()
            },
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    pub fn policy(&self) -> ValidatingAdmissionPolicy {
        let about = format!(
            "to StorageClass {} (run {}): ",
            self.destination_class, self.run
        );
        let follow = refusal::follow(&self.release, &self.run).replace('\'', "\\'");
        let sentence = |claim: &str, rule: &str| {
            format!(
                "'pvmigrate is migrating claim ' + request.namespace + '/' + {claim} + ' {about}{rule} until that is done; {follow}'"
            )
        };
        let variable = |name: &str, expression: &str| Variable {
            name: name.into(),
            expression: expression.into(),
        };
        let validation = |expression: &str, message: String| Validation {
            expression: expression.into(),
            message_expression: Some(message),
            reason: Some("Forbidden".into()),
            ..Validation::default()
        };
        ValidatingAdmissionPolicy {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Fail".into()),
                param_kind: Some(ParamKind {
                    api_version: Some("v1".into()),
                    kind: Some("ServiceAccount".into()),
                }),
                match_constraints: Some(MatchResources {
                    namespace_selector: Some(self.namespaces()),
                    resource_rules: Some(vec![NamedRuleWithOperations {
                        api_groups: Some(vec![String::new()]),
                        api_versions: Some(vec!["v1".into()]),
                        operations: Some(vec!["CREATE".into()]),
                        resources: Some(vec!["pods".into(), "persistentvolumeclaims".into()]),
                        ..NamedRuleWithOperations::default()
                    }]),
                    ..MatchResources::default()
                }),
                match_conditions: Some(vec![self.not_spared(names::LAYER_POLICY)]),
                variables: Some(vec![
                    variable(
                        "fenced",
                        &format!(
                            r"has(params.metadata.annotations) && ('{0}' + request.namespace) in params.metadata.annotations ? params.metadata.annotations['{0}' + request.namespace].split('\n') : []",
                            names::FENCED
                        ),
                    ),
                    variable(
                        "mounted",
                        "request.resource.resource == 'pods' && has(object.spec.volumes) ? object.spec.volumes.filter(v, has(v.persistentVolumeClaim)).map(v, v.persistentVolumeClaim.claimName) : []",
                    ),
                    variable(
                        "hit",
                        "variables.mounted.filter(name, name in variables.fenced)",
                    ),
                ]),
                validations: Some(vec![
                    validation(
                        "variables.hit.size() == 0",
                        sentence("variables.hit[0]", "no pod may mount it"),
                    ),
                    validation(
                        "request.resource.resource != 'persistentvolumeclaims' || !(object.metadata.name in variables.fenced)",
                        sentence("object.metadata.name", "no other claim may take its name"),
                    ),
                ]),
                ..ValidatingAdmissionPolicySpec::default()
            }),
            status: None,
        }
    }

    pub fn binding(&self) -> ValidatingAdmissionPolicyBinding {
        ValidatingAdmissionPolicyBinding {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicyBindingSpec {
                policy_name: Some(names::fence_object(&self.release)),
                validation_actions: Some(vec!["Deny".into()]),
                param_ref: Some(ParamRef {
                    name: Some(names::fence_claims(&self.release)),
                    namespace: Some(self.release.namespace.clone()),
                    parameter_not_found_action: Some("Deny".into()),
                    selector: None,
                }),
                ..ValidatingAdmissionPolicyBindingSpec::default()
            }),
        }
    }

    pub fn webhook(&self) -> ValidatingWebhookConfiguration {
        // Absent, replicas are 1 in a workload, and 0 in a Scale, which omits its zero.
        let replicas = |object: &str| {
            format!(
                "{object}.?spec.?replicas.orValue(request.?subResource.orValue('') == 'scale' ? 0 : 1)"
            )
        };
        let up = MatchCondition {
            name: "scaled-up".into(),
            expression: format!("{} > {}", replicas("object"), replicas("oldObject")),
        };
        let mounts_a_claim = MatchCondition {
            name: "mounts-a-claim".into(),
            expression: "has(object.spec.volumes) && object.spec.volumes.exists(v, has(v.persistentVolumeClaim) || has(v.ephemeral))".into(),
        };
        let scaled = ["deployments", "statefulsets", "replicasets"];
        let scaled: Vec<String> = scaled
            .iter()
            .flat_map(|r| [(*r).to_string(), format!("{r}/scale")])
            .collect();
        ValidatingWebhookConfiguration {
            metadata: self.metadata(),
            webhooks: Some(vec![
                self.rule(
                    "pods",
                    "",
                    "CREATE",
                    vec!["pods".into()],
                    Some(mounts_a_claim),
                ),
                self.rule(
                    "claims",
                    "",
                    "CREATE",
                    vec!["persistentvolumeclaims".into()],
                    None,
                ),
                self.rule("workloads", "apps", "UPDATE", scaled, Some(up)),
            ]),
        }
    }

    fn rule(
        &self,
        name: &str,
        group: &str,
        operation: &str,
        resources: Vec<String>,
        condition: Option<MatchCondition>,
    ) -> ValidatingWebhook {
        let conditions = std::iter::once(self.not_spared(names::LAYER_WEBHOOK)).chain(condition);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope {
            release: Release {
                namespace: "ops".into(),
                name: "pvmigrate".into(),
            },
            run: "abc".into(),
            destination_class: "b".into(),
            claims: BTreeMap::from([
                ("x".into(), BTreeSet::from(["one".into(), "two".into()])),
                ("y".into(), BTreeSet::from(["three".into()])),
            ]),
            generation: 7,
            job_user: "system:serviceaccount:ops:pvmigrate".into(),
            webhook_service: "pvmigrate-webhook".into(),
            ca: b"ca".to_vec(),
            cluster_owner: None,
            namespaced_owner: None,
        }
    }

    #[test]
    fn only_namespaces_with_a_fenced_claim_are_asked_about() {
        let scope = scope();
        for selector in scope
            .webhook()
            .webhooks
            .unwrap()
            .into_iter()
            .map(|w| w.namespace_selector.unwrap())
        {
            let expression = &selector.match_expressions.unwrap()[0];
            assert_eq!(expression.values.as_ref().unwrap(), &["x", "y"]);
        }
    }

    #[test]
    fn the_path_carries_the_generation_and_every_rule_fails_closed() {
        for webhook in scope().webhook().webhooks.unwrap() {
            assert_eq!(
                webhook.client_config.service.unwrap().path.unwrap(),
                "/fence/7"
            );
            assert_eq!(webhook.failure_policy.unwrap(), "Fail");
            assert_eq!(webhook.side_effects, "None");
        }
    }

    #[test]
    fn the_parameters_name_the_claims_of_each_namespace() {
        let annotations = scope().parameters().metadata.annotations.unwrap();
        assert_eq!(annotations["fence.pvmigrate.io/x"], "one\ntwo");
        assert_eq!(annotations["fence.pvmigrate.io/y"], "three");
    }

    #[test]
    fn the_probe_mark_of_a_layer_is_what_keeps_the_job_from_being_spared_there() {
        let scope = scope();
        let policy = scope.policy().spec.unwrap().match_conditions.unwrap();
        assert!(
            policy[0]
                .expression
                .contains("!= 'system:serviceaccount:ops:pvmigrate'")
        );
        assert!(policy[0].expression.ends_with("== 'policy')"));
        for webhook in scope.webhook().webhooks.unwrap() {
            assert!(
                webhook.match_conditions.unwrap()[0]
                    .expression
                    .ends_with("== 'webhook')")
            );
        }
    }
}
