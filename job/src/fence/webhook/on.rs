//! What the webhook is asked about: resources, as a rule names them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use pvmigrate_record::names;
use pvmigrate_record::record::Freezing;

/// Everything that makes pods and is made by people.
pub fn templates() -> Vec<RuleWithOperations> {
    let apps = on("apps", "v1", ["deployments", "statefulsets", "daemonsets"]);
    let batch = on("batch", "v1", ["cronjobs"]);
    [apps, batch, core("replicationcontrollers")].concat()
}

/// What controllers make too, for an owner of their own: only its pods are refused then.
pub fn made() -> Vec<RuleWithOperations> {
    [
        on("apps", "v1", ["replicasets"]),
        on("batch", "v1", ["jobs"]),
    ]
    .concat()
}

/// The kinds that workloads are of, or subresources of them.
pub fn resources<'a>(
    workloads: impl Iterator<Item = &'a Freezing>,
    subresources: &[&str],
) -> Vec<RuleWithOperations> {
    let mut kinds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for Freezing { workload, .. } in workloads {
        let resources = kinds.entry(&workload.api_version).or_default();
        resources.extend(
            subresources
                .iter()
                .map(|sub| format!("{}{sub}", workload.resource)),
        );
    }
    let rule = |(version, resources): (&str, BTreeSet<String>)| {
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        on(group, version, resources)
    };
    kinds.into_iter().flat_map(rule).collect()
}

pub fn core(resource: &str) -> Vec<RuleWithOperations> {
    on("", "v1", [resource])
}

pub fn on<S: Into<String>>(
    group: &str,
    version: &str,
    resources: impl IntoIterator<Item = S>,
) -> Vec<RuleWithOperations> {
    vec![RuleWithOperations {
        api_groups: Some(vec![group.into()]),
        api_versions: Some(vec![version.into()]),
        operations: None,
        resources: Some(resources.into_iter().map(Into::into).collect()),
        scope: Some("Namespaced".into()),
    }]
}

pub fn cluster<const N: usize>(group: &str, resources: [&str; N]) -> Vec<RuleWithOperations> {
    let mut rules = on(group, "v1", resources);
    for rule in &mut rules {
        rule.scope = Some("Cluster".into());
    }
    rules
}

pub fn is_cluster_scoped(rule: &RuleWithOperations) -> bool {
    rule.scope.as_deref() == Some("Cluster")
}

/// Volumes of a migration, of whichever run.
pub fn of_a_run() -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: names::RUN.into(),
            operator: "Exists".into(),
            values: None,
        }]),
        match_labels: None,
    }
}
