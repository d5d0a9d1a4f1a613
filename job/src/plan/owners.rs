//! Who uses the claims: from every pod that mounts one, and from every template that names one,
//! also of workloads that are now at 0, the owners are followed up.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use pvmigrate_record::record::Workload;

use crate::config::{BarePods, Config};
use crate::observe::{Observed, ObservedPod, ObservedWorkload, is_built_in};

/// What is frozen for the sake of claims: the topmost owner that makes pods from a template, a
/// custom resource that controls pods itself, or a pod that nothing controls.
#[derive(Clone, Debug)]
pub struct User<'a> {
    pub workload: Workload,
    /// None for a bare pod.
    pub seen: Option<&'a ObservedWorkload>,
    pub claims: BTreeSet<String>,
    /// The `pvmigrate.io/freeze` that counts, and what carries it: the topmost one.
    pub freeze: Option<(&'a Workload, &'a str)>,
    /// The same of `pvmigrate.io/wave`.
    pub wave: Option<(&'a Workload, &'a str)>,
    /// The labels of its pods.
    pub labels: BTreeSet<&'a BTreeMap<String, String>>,
}

/// The users of these claims of a namespace, and what stands against freezing others.
pub fn users<'a>(
    namespace: &str,
    names: &BTreeSet<String>,
    observed: &'a Observed,
    config: &Config,
) -> (Vec<User<'a>>, Vec<String>) {
    let owners = Owners::of(observed, namespace);
    let mut users: BTreeMap<&str, User<'a>> = BTreeMap::new();
    let mut refusals = Vec::new();
    for workload in owners.by_uid.values() {
        let used = claims_of(workload, names);
        if used.is_empty() {
            continue;
        }
        let chain = owners.above(workload);
        // A Deployment keeps ReplicaSets of templates that it has no longer: its pods tell of them.
        if workload.workload.kind != "ReplicaSet" || chain.len() == 1 {
            take(&mut users, &chain, used, &workload.pod_labels);
        }
    }
    for pod in &observed.pods {
        let used: BTreeSet<String> = pod.claims.intersection(names).cloned().collect();
        let is_elsewhere = pod.workload.namespace != namespace;
        if is_elsewhere || used.is_empty() || pod.completed || pod.is_ours() {
            continue;
        }
        match &pod.controller {
            Some(owner) => match owners.by_uid.get(owner.uid.as_str()) {
                Some(seen) => take(&mut users, &owners.above(seen), used, &pod.labels),
                None => refusals.push(unknown(pod, owner, &used)),
            },
            None if config.bare_pods == BarePods::Recreate => {
                users.insert(&pod.workload.uid, bare(pod, used));
            }
            None => refusals.push(format!(
                "pod {namespace}/{} mounts {} and has no owner: nothing would make it again; set barePods to recreate, delete it, or leave its namespace out",
                pod.workload.name,
                list(&used)
            )),
        }
    }
    (users.into_values().collect(), refusals)
}

/// What may own pods in a namespace.
struct Owners<'a> {
    by_uid: BTreeMap<&'a str, &'a ObservedWorkload>,
}

impl<'a> Owners<'a> {
    fn of(observed: &'a Observed, namespace: &str) -> Self {
        let all = observed.workloads.iter();
        let here = all.filter(|seen| seen.workload.namespace == namespace);
        Self {
            by_uid: here
                .map(|seen| (seen.workload.uid.as_str(), seen))
                .collect(),
        }
    }

    /// A workload and what is above it, as far as templates go: what an operator's own resource
    /// makes is frozen by itself, for nobody knows what that resource does about it.
    fn above(&self, from: &'a ObservedWorkload) -> Vec<&'a ObservedWorkload> {
        let mut chain = vec![from];
        let mut top = from;
        while let Some(owner) = &top.controller
            && is_built_in(&owner.api_version, &owner.kind)
            && let Some(above) = self.by_uid.get(owner.uid.as_str())
            && !chain.iter().any(|seen| seen.workload == above.workload)
        {
            chain.push(above);
            top = above;
        }
        chain
    }
}

/// Notes that what is at the top of a chain uses these claims.
fn take<'a>(
    users: &mut BTreeMap<&'a str, User<'a>>,
    chain: &[&'a ObservedWorkload],
    used: BTreeSet<String>,
    labels: &'a BTreeMap<String, String>,
) {
    let Some(top) = chain.last() else { return };
    let entry = users.entry(&top.workload.uid).or_insert_with(|| User {
        workload: top.workload.clone(),
        seen: Some(top),
        claims: BTreeSet::new(),
        freeze: None,
        wave: None,
        labels: BTreeSet::new(),
    });
    entry.claims.extend(used);
    entry.labels.insert(labels);
    let from_top = || chain.iter().rev();
    let freeze = from_top().find_map(|seen| Some((&seen.workload, seen.freeze.as_deref()?)));
    entry.freeze = entry.freeze.or(freeze);
    let wave = from_top().find_map(|seen| Some((&seen.workload, seen.wave.as_deref()?)));
    entry.wave = entry.wave.or(wave);
}

fn bare(pod: &ObservedPod, claims: BTreeSet<String>) -> User<'_> {
    User {
        workload: pod.workload.clone(),
        seen: None,
        claims,
        freeze: None,
        wave: pod.wave.as_deref().map(|wave| (&pod.workload, wave)),
        labels: BTreeSet::from([&pod.labels]),
    }
}

fn unknown(pod: &ObservedPod, owner: &OwnerReference, used: &BTreeSet<String>) -> String {
    format!(
        "pod {}/{} mounts {} and is controlled by {} {}, which is gone or cannot be looked at: nobody can say what would make the pod again; delete it, or leave its namespace out",
        pod.workload.namespace,
        pod.workload.name,
        list(used),
        owner.kind,
        owner.name
    )
}

/// The claims, of these names, that a workload's pods mount: by its template, and by its claim
/// templates for every ordinal that has a claim, also of workloads that are now at 0.
fn claims_of(workload: &ObservedWorkload, names: &BTreeSet<String>) -> BTreeSet<String> {
    let by_template = workload.claims.intersection(names);
    let own = names
        .iter()
        .filter(|claim| ordinal(workload, claim).is_some());
    by_template.chain(own).cloned().collect()
}

/// Which ordinal of a StatefulSet a claim belongs to, by its name.
pub fn ordinal(set: &ObservedWorkload, claim: &str) -> Option<i32> {
    set.claim_templates.iter().find_map(|template| {
        let number = claim
            .strip_prefix(template.as_str())?
            .strip_prefix('-')?
            .strip_prefix(set.workload.name.as_str())?
            .strip_prefix('-')?;
        let is_plain = number.bytes().all(|b| b.is_ascii_digit())
            && (number == "0" || !number.starts_with('0'));
        is_plain.then(|| number.parse().ok()).flatten()
    })
}

fn list(names: &BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("claim {name}")).collect();
    names.join(", ")
}
