//! The objects that the fence is made of, as they shall be. Pure.
//!
//! Two layers. The policy runs in the API server: its parameters name the fenced
//! claims, so that opening the fence is one small write that takes effect at once (a change of
//! the policy itself takes up to a second). The webhook has a memory and a better sentence.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference,
};
use pvmigrate_record::names;
use pvmigrate_record::record::{Release, Workload};

/// Everything that the objects are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    pub release: Release,
    pub run: String,
    pub destination_class: String,
    /// Fenced claims, by namespace.
    pub claims: BTreeMap<String, BTreeSet<String>>,
    /// Workloads that are, or are about to be, stopped.
    pub workloads: BTreeSet<Workload>,
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
    pub(super) fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(names::fence_object(&self.release)),
            labels: Some(self.labels()),
            owner_references: Some(self.cluster_owner.iter().cloned().collect()),
            ..ObjectMeta::default()
        }
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (names::RUN.into(), self.run.clone()),
            (names::ROLE.into(), names::ROLE_FENCE.into()),
        ])
    }

    /// No namespace but those with a fenced claim is ever asked about.
    pub(super) fn namespaces(&self) -> LabelSelector {
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
    pub(super) fn not_spared(&self, layer: &str) -> MatchCondition {
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
            workloads: BTreeSet::from([Workload {
                kind: "Deployment".into(),
                namespace: "x".into(),
                name: "web".into(),
                uid: "u".into(),
            }]),
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
    fn the_webhook_is_asked_about_fenced_names_only() {
        let webhooks = scope().webhook().webhooks.unwrap();
        let condition = |rule: usize| webhooks[rule].match_conditions.as_ref().unwrap()[1].clone();
        assert!(
            condition(0)
                .expression
                .ends_with("in ['x/one', 'x/two', 'y/three'])")
        );
        assert!(
            condition(1)
                .expression
                .ends_with("in ['x/one', 'x/two', 'y/three']")
        );
        assert!(
            condition(2)
                .expression
                .ends_with("in ['deployments/x/web']")
        );
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
