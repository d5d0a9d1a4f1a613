//! What is to be done: claims and the workloads that use them, tied together in groups. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::ResourceExt;
use pvmigrate_record::record::{Outcome, Workload};

use crate::config::Config;
use crate::observe::{Observed, ObservedWorkload, controller, record_of};
use crate::pods::mounted_claims;

/// What a run does, and what it leaves.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub groups: Vec<PlannedGroup>,
    /// Claims of the source class that are not migrated, and why.
    pub left: Vec<(String, String)>,
    /// Whether some of those have failed in this run.
    pub has_failed: bool,
    /// What stands against the whole run, found while planning.
    pub refusals: Vec<String>,
}

/// Claims and workloads that are stopped, moved and started as one.
#[derive(Clone, Debug)]
pub struct PlannedGroup {
    pub name: String,
    pub namespace: String,
    pub claims: Vec<PersistentVolumeClaim>,
    pub workloads: Vec<Workload>,
}

/// Plans the claims that no unfinished record covers.
pub fn plan(observed: &Observed, config: &Config) -> Plan {
    let mut plan = Plan::default();
    let mut claims = Vec::new();
    for claim in &observed.claims {
        if Observed::class_of(claim) != Some(config.source_sc.as_str()) {
            continue;
        }
        match why_left(claim, observed, config) {
            Some((why, failed)) => {
                plan.has_failed |= failed;
                plan.left.push((full_name(claim), why));
            }
            None => claims.push(claim),
        }
    }
    let mut by_namespace: BTreeMap<String, Vec<&PersistentVolumeClaim>> = BTreeMap::new();
    for claim in claims {
        by_namespace
            .entry(claim.namespace().unwrap_or_default())
            .or_default()
            .push(claim);
    }
    for (namespace, claims) in by_namespace {
        let (groups, refusals) = groups(&namespace, &claims, observed);
        plan.groups.extend(groups);
        plan.refusals.extend(refusals);
    }
    plan
}

/// Why a claim of the source class is not part of the run, and whether because it failed.
fn why_left(
    claim: &PersistentVolumeClaim,
    observed: &Observed,
    config: &Config,
) -> Option<(String, bool)> {
    if let Some((kind, name)) = controller(claim)
        && kind == "Pod"
    {
        let why = format!("it belongs to pod {name} (a generic ephemeral volume) and goes with it");
        return Some((why, false));
    }
    let Some(volume) = observed.volume_of(claim) else {
        let why = "it is not bound to a volume, so there is nothing to move; delete it and make it again on the other class";
        return Some((why.into(), false));
    };
    let record = record_of(volume)?.ok()?;
    let failed_here = record.run == config.run()
        && record.is_finished()
        && record.outcome == Some(Outcome::Failed);
    if failed_here && !config.retry_failed {
        let why = record
            .failure
            .map_or_else(String::new, |failure| failure.message);
        let why = format!("it failed in this run ({why}); set retryFailed to try it again");
        return Some((why, true));
    }
    None
}

/// Ties the claims of a namespace to their workloads.
fn groups(
    namespace: &str,
    claims: &[&PersistentVolumeClaim],
    observed: &Observed,
) -> (Vec<PlannedGroup>, Vec<String>) {
    let names: BTreeSet<String> = claims.iter().map(|claim| claim.name_any()).collect();
    let mut refusals = Vec::new();
    // Each claim starts as a set of its own; a workload that uses several joins them.
    let mut sets: Vec<(BTreeSet<String>, BTreeSet<Workload>)> = names
        .iter()
        .map(|name| (BTreeSet::from([name.clone()]), BTreeSet::new()))
        .collect();
    let mut users: BTreeMap<Workload, BTreeSet<String>> = BTreeMap::new();
    for workload in observed
        .workloads
        .iter()
        .filter(|w| w.namespace == namespace)
    {
        let used = claims_of_workload(workload, &names);
        if !used.is_empty() {
            match steered(workload, observed) {
                Steered::ByNobody => {
                    users.entry(word(workload)).or_default().extend(used);
                }
                Steered::ByWorkload => {}
                Steered::By(other) => refusals.push(format!(
                    "{} {namespace}/{} mounts {}, and is controlled by {other}: only Deployments, StatefulSets and ReplicaSets that nothing else controls can be stopped; scale it down yourself, or leave its namespace out",
                    workload.kind, workload.name, list(&used)
                )),
            }
        }
    }
    for pod in observed
        .pods
        .iter()
        .filter(|pod| pod.namespace().as_deref() == Some(namespace))
    {
        let used: BTreeSet<String> = mounted_claims(pod)
            .filter(|claim| names.contains(claim))
            .collect();
        if used.is_empty() || is_ours(pod) {
            continue;
        }
        match workload_of(pod, observed) {
            Ok(workload) => users.entry(workload).or_default().extend(used),
            Err(owner) => refusals.push(format!(
                "pod {namespace}/{} mounts {} and {owner}: it cannot be stopped and started again; delete it, or leave its namespace out",
                pod.name_any(), list(&used)
            )),
        }
    }
    for (workload, used) in users {
        let (mut joined, apart): (Vec<_>, Vec<_>) = sets
            .into_iter()
            .partition(|(claims, _)| !claims.is_disjoint(&used));
        let mut set = joined.pop().expect("every used claim is in a set");
        for (claims, workloads) in joined {
            set.0.extend(claims);
            set.1.extend(workloads);
        }
        set.1.insert(workload);
        sets = apart;
        sets.push(set);
    }
    sets.sort();
    let groups = sets
        .into_iter()
        .map(|(members, workloads)| PlannedGroup {
            name: group_name(namespace, &members, &workloads),
            namespace: namespace.to_string(),
            claims: claims
                .iter()
                .filter(|c| members.contains(&c.name_any()))
                .map(|c| (*c).clone())
                .collect(),
            workloads: workloads.into_iter().collect(),
        })
        .collect();
    (groups, refusals)
}

/// A group is called after its first workload, or its first claim where nothing uses it.
fn group_name(
    namespace: &str,
    claims: &BTreeSet<String>,
    workloads: &BTreeSet<Workload>,
) -> String {
    match (workloads.first(), claims.first()) {
        (Some(workload), _) => format!(
            "{namespace}/{}/{}",
            workload.kind.to_lowercase(),
            workload.name
        ),
        (None, claim) => format!("{namespace}/claim/{}", claim.map_or("", String::as_str)),
    }
}

/// The claims, of these names, that a workload's pods mount: by its template, and by its claim
/// templates for every ordinal that has a claim, also of workloads that are now at 0.
fn claims_of_workload(workload: &ObservedWorkload, names: &BTreeSet<String>) -> BTreeSet<String> {
    let mut used: BTreeSet<String> = template_claims(&workload.template)
        .filter(|claim| names.contains(claim))
        .collect();
    for template in &workload.claim_templates {
        let prefix = format!("{template}-{}-", workload.name);
        used.extend(
            names
                .iter()
                .filter(|name| is_ordinal_of(name, &prefix))
                .cloned(),
        );
    }
    used
}

fn is_ordinal_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|ordinal| !ordinal.is_empty() && ordinal.bytes().all(|b| b.is_ascii_digit()))
}

fn template_claims(template: &PodTemplateSpec) -> impl Iterator<Item = String> {
    let volumes = template
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    volumes
        .iter()
        .filter_map(|v| v.persistent_volume_claim.as_ref())
        .map(|c| c.claim_name.clone())
}

enum Steered {
    ByNobody,
    /// A ReplicaSet of a Deployment: the Deployment is the workload.
    ByWorkload,
    By(String),
}

fn steered(workload: &ObservedWorkload, observed: &Observed) -> Steered {
    let Some((kind, name)) = &workload.controller else {
        return Steered::ByNobody;
    };
    let known = observed
        .workloads
        .iter()
        .any(|w| w.kind == kind && &w.name == name && w.namespace == workload.namespace);
    if known {
        Steered::ByWorkload
    } else {
        Steered::By(format!("{kind} {name}"))
    }
}

/// The workload at the top of a pod's owners; or, as a clause, why there is none.
fn workload_of(pod: &Pod, observed: &Observed) -> Result<Workload, String> {
    let namespace = pod.namespace().unwrap_or_default();
    let find = |(kind, name): &(String, String)| {
        observed
            .workloads
            .iter()
            .find(|w| w.kind == kind && &w.name == name && w.namespace == namespace)
    };
    let owner = controller(pod).ok_or("has no owner")?;
    let mut workload = find(&owner).ok_or(format!("is controlled by {} {}", owner.0, owner.1))?;
    while let Some(above) = &workload.controller {
        workload = find(above).ok_or(format!("is controlled by {} {}", above.0, above.1))?;
    }
    Ok(word(workload))
}

fn word(workload: &ObservedWorkload) -> Workload {
    Workload {
        kind: workload.kind.into(),
        namespace: workload.namespace.clone(),
        name: workload.name.clone(),
        uid: workload.uid.clone(),
    }
}

/// Our own movers are no consumers. Their names are ours alone: they carry the run.
fn is_ours(pod: &Pod) -> bool {
    use pvmigrate_record::names;
    let labels = pod.labels();
    labels
        .get(names::ROLE)
        .is_some_and(|role| role == names::ROLE_MOVER)
        && labels
            .get(names::RUN)
            .is_some_and(|run| pod.name_any().starts_with(&format!("pvmigrate-{run}-")))
}

pub fn full_name(claim: &PersistentVolumeClaim) -> String {
    format!(
        "{}/{}",
        claim.namespace().unwrap_or_default(),
        claim.name_any()
    )
}

fn list(names: &BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("claim {name}")).collect();
    names.join(", ")
}

#[cfg(test)]
pub mod tests;
