//! The cluster as a whole, and what was asked of it.

use kube::ResourceExt;

use super::claims;
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};

pub fn api_is_new_enough(observed: &Observed, _: &Config, _: &Plan) -> Vec<String> {
    let (major, minor) = observed.version;
    if (major, minor) >= (1, 30) {
        return Vec::new();
    }
    vec![format!(
        "the API server is version {major}.{minor}: the fence needs Kubernetes 1.30 or newer"
    )]
}

pub fn classes_exist(observed: &Observed, config: &Config, _: &Plan) -> Vec<String> {
    let known: Vec<&str> = observed.classes.keys().map(String::as_str).collect();
    [("sourceSC", &config.source_sc), ("destSC", &config.dest_sc)]
        .into_iter()
        .filter(|(_, class)| !observed.classes.contains_key(*class))
        .filter(|(value, _)| !(config.skip_source_check && *value == "sourceSC"))
        .map(|(value, class)| {
            format!(
                "{value}: StorageClass {class} does not exist; there are {}",
                known.join(", ")
            )
        })
        .collect()
}

pub fn namespaces_exist(observed: &Observed, config: &Config, _: &Plan) -> Vec<String> {
    let missing = config
        .namespaces
        .iter()
        .filter(|name| !observed.namespaces.contains_key(*name));
    missing
        .map(|name| format!("namespaces: namespace {name} does not exist"))
        .collect()
}

pub fn namespaces_are_ordinary(_: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    claims(plan)
        .filter(|claim| claim.namespace().as_deref() == Some("kube-system"))
        .map(|claim| {
            format!("claim {} is in kube-system, which is never fenced: what the cluster itself needs is moved by hand", full_name(claim))
        })
        .collect()
}

pub fn workloads_can_be_stopped(_: &Observed, _: &Config, plan: &Plan) -> Vec<String> {
    plan.refusals.clone()
}
