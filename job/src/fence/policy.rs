//! The fence's first layer: a policy that the API server itself evaluates, and its binding.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation, Variable,
};
use pvmigrate_record::{names, refusal};

use super::objects::Scope;

impl Scope {
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
}
