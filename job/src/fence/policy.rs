//! The fence's first layer: a policy that the API server itself evaluates, and its binding.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
    ValidatingAdmissionPolicySpec, Validation, Variable,
};
use pvmigrate_record::{names, refusal};

use super::cel::replicas_up;
use super::objects::Scope;

impl Scope {
    pub fn policy(&self) -> ValidatingAdmissionPolicy {
        ValidatingAdmissionPolicy {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Fail".into()),
                param_kind: Some(ParamKind {
                    api_version: Some("v1".into()),
                    kind: Some("ServiceAccount".into()),
                }),
                match_constraints: Some(MatchResources {
                    namespace_selector: Some(self.namespaces_of_the_run()),
                    resource_rules: Some(vec![
                        rule("", "v1", "CREATE", &["pods", "persistentvolumeclaims"]),
                        rule("*", "*", "UPDATE", &["*/scale"]),
                    ]),
                    ..MatchResources::default()
                }),
                match_conditions: Some(vec![self.not_spared(names::LAYER_POLICY)]),
                variables: Some(vec![
                    variable("fenced", &lines(names::FENCED)),
                    variable("volumes", &lines(names::FENCED_VOLUMES)),
                    variable("stopped", &lines(names::STOPPED)),
                    variable("mounted", MOUNTED),
                    variable("copied", COPIED),
                ]),
                validations: Some(self.validations()),
                ..ValidatingAdmissionPolicySpec::default()
            }),
            status: None,
        }
    }

    fn validations(&self) -> Vec<Validation> {
        let (class, run) = (&self.setting.destination_class, &self.setting.run);
        let about = format!("to StorageClass {class} (run {run}): ");
        let follow = refusal::follow(&self.setting.release, run).replace('\'', "\\'");
        let sentence = |claim: &str, rule: &str| {
            format!(
                "'pvmigrate is migrating claim ' + request.namespace + '/' + {claim} + ' {about}{rule} until that is done; {follow}'"
            )
        };
        let volume = format!(
            "'pvmigrate is migrating a claim of namespace ' + request.namespace + ' {about}no other claim may ask for its PersistentVolume ' + object.spec.volumeName + ' until that is done; {follow}'"
        );
        let stopped = format!(
            "'pvmigrate stops ' + request.resource.resource + ' ' + request.namespace + '/' + request.name + ' while it migrates its claims {about}it will be scaled back up by itself when that is done; {follow}'"
        );
        let hit = |names: &str| format!("variables.{names}.filter(n, n in variables.fenced)");
        let is_scale = "request.?subResource.orValue('') == 'scale'";
        let key = "request.resource.group + '/' + request.resource.resource + '/' + request.name";
        vec![
            validation(
                format!("{}.size() == 0", hit("mounted")),
                sentence(&format!("{}[0]", hit("mounted")), "no pod may mount it"),
            ),
            validation(
                format!("!({IS_CLAIM} && object.metadata.?name.orValue('') in variables.fenced)"),
                sentence("object.metadata.name", "no other claim may take its name"),
            ),
            validation(
                format!("{}.size() == 0", hit("copied")),
                sentence(
                    &format!("{}[0]", hit("copied")),
                    "no claim may be made from it",
                ),
            ),
            validation(
                format!(
                    "!({IS_CLAIM} && object.?spec.?volumeName.orValue('') in variables.volumes)"
                ),
                volume,
            ),
            validation(
                format!(
                    "!({is_scale} && ({key}) in variables.stopped && {})",
                    replicas_up()
                ),
                stopped,
            ),
        ]
    }

    pub fn binding(&self) -> ValidatingAdmissionPolicyBinding {
        ValidatingAdmissionPolicyBinding {
            metadata: self.metadata(),
            spec: Some(ValidatingAdmissionPolicyBindingSpec {
                policy_name: Some(names::fence_object(&self.setting.release)),
                validation_actions: Some(vec!["Deny".into()]),
                param_ref: Some(ParamRef {
                    name: Some(names::fence_claims(&self.setting.release)),
                    namespace: Some(self.setting.release.namespace.clone()),
                    parameter_not_found_action: Some("Deny".into()),
                    selector: None,
                }),
                ..ValidatingAdmissionPolicyBindingSpec::default()
            }),
        }
    }
}

const IS_CLAIM: &str = "request.resource.resource == 'persistentvolumeclaims'";

/// The claims that a pod mounts. That of an ephemeral volume is named after the pod.
const MOUNTED: &str = "request.resource.resource == 'pods' ? object.?spec.?volumes.orValue([]).map(v, has(v.ephemeral) ? object.metadata.?name.orValue('') + '-' + v.name : v.?persistentVolumeClaim.?claimName.orValue('')) : []";

/// The claims that a new claim would be a copy of.
const COPIED: &str = "request.resource.resource == 'persistentvolumeclaims' ? [object.?spec.?dataSource, object.?spec.?dataSourceRef].map(s, s.?kind.orValue('') == 'PersistentVolumeClaim' ? s.?name.orValue('') : '') : []";

/// The names that the parameters hold under this prefix for the request's namespace.
fn lines(prefix: &str) -> String {
    let value = format!("params.metadata.?annotations[?('{prefix}' + request.namespace)]");
    format!(r"{value}.hasValue() ? {value}.value().split('\n') : []")
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable {
        name: name.into(),
        expression: expression.into(),
    }
}

fn validation(expression: String, message: String) -> Validation {
    Validation {
        expression,
        message_expression: Some(message),
        reason: Some("Forbidden".into()),
        ..Validation::default()
    }
}

fn rule(group: &str, version: &str, operation: &str, on: &[&str]) -> NamedRuleWithOperations {
    NamedRuleWithOperations {
        api_groups: Some(vec![group.into()]),
        api_versions: Some(vec![version.into()]),
        operations: Some(vec![operation.into()]),
        resources: Some(on.iter().map(|&resource| resource.into()).collect()),
        scope: Some("Namespaced".into()),
        ..NamedRuleWithOperations::default()
    }
}
