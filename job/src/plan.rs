//! What is to be done: claims and the workloads that use them, tied together in groups. Pure.
//!
//! ```text
//! claims of the class ─ who uses them (owners) ─ how each is frozen (method) ─ what moves as one (ties)
//!      └─ left: why                                                               └─ wave, budgets
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use pvmigrate_record::record::{Freezing, Outcome};

use crate::config::Config;
use crate::observe::{Observed, controller, record_of};

mod budgets;
mod downtime;
mod lanes;
mod method;
mod owners;
mod show;
mod ties;
mod unused;
mod waves;

pub use downtime::{Moved, Weight};
pub use lanes::{Lane, lane, stopped_by};
pub use show::Shown;
pub use unused::unused;

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
#[derive(Clone, Debug, Default)]
pub struct PlannedGroup {
    pub name: String,
    pub namespace: String,
    pub claims: Vec<PersistentVolumeClaim>,
    pub freeze: Vec<Freezing>,
    /// Why each workload is frozen as it is, for the log.
    pub why: Vec<String>,
    /// PodDisruptionBudgets that the freeze does not ask.
    pub overridden: Vec<String>,
    /// Groups of a lower wave move first.
    pub wave: i64,
}

/// Plans the claims that no unfinished record covers.
pub fn plan(observed: &Observed, config: &Config) -> Plan {
    let mut plan = Plan::default();
    let mut by_namespace: BTreeMap<String, Vec<&PersistentVolumeClaim>> = BTreeMap::new();
    for claim in &observed.claims {
        if !config.selects_claim(claim, observed.volume_of(claim)) {
            continue;
        }
        match why_left(claim, observed, config) {
            Some((why, failed)) => {
                plan.has_failed |= failed;
                plan.left.push((full_name(claim), why));
            }
            None => by_namespace
                .entry(claim.namespace().unwrap_or_default())
                .or_default()
                .push(claim),
        }
    }
    for (namespace, claims) in by_namespace {
        plan_namespace(&mut plan, &namespace, &claims, observed, config);
    }
    lanes::leave_stopped(&mut plan, observed, config);
    plan
}

fn plan_namespace(
    plan: &mut Plan,
    namespace: &str,
    claims: &[&PersistentVolumeClaim],
    observed: &Observed,
    config: &Config,
) {
    let names = claims.iter().map(|claim| claim.name_any()).collect();
    let (users, refusals) = owners::users(namespace, &names, observed, config);
    plan.refusals.extend(refusals);
    let (ties, refusals) = ties::tie(&names, users, observed, config);
    plan.refusals.extend(refusals);
    for tie in ties {
        let claims: Vec<PersistentVolumeClaim> = claims
            .iter()
            .filter(|claim| tie.claims.contains(&claim.name_any()))
            .map(|claim| (*claim).clone())
            .collect();
        let (wave, refusals) = waves::wave(&claims, &tie.users);
        plan.refusals.extend(refusals);
        let (overridden, refusals) = budgets::judge(&tie.users, observed, config);
        plan.refusals.extend(refusals);
        plan.groups.push(PlannedGroup {
            name: tie.name(namespace),
            namespace: namespace.to_string(),
            claims,
            why: tie.users.iter().map(ties::Frozen::sentence).collect(),
            freeze: tie.users.into_iter().map(|user| user.freezing).collect(),
            overridden,
            wave,
        });
    }
    // A set that rolls has a group for each of its ordinals, and says each thing once.
    let mut said = std::collections::BTreeSet::new();
    plan.refusals.retain(|why| said.insert(why.clone()));
}

/// Why a claim of the source class is not part of the run, and whether because it failed.
fn why_left(
    claim: &PersistentVolumeClaim,
    observed: &Observed,
    config: &Config,
) -> Option<(String, bool)> {
    if config.excludes(claim) {
        return Some(("excludeClaims names it".into(), false));
    }
    if let Some(owner) = controller(claim)
        && owner.kind == "Pod"
    {
        let why = format!(
            "it belongs to pod {} (a generic ephemeral volume) and goes with it",
            owner.name
        );
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

pub fn full_name(claim: &PersistentVolumeClaim) -> String {
    format!(
        "{}/{}",
        claim.namespace().unwrap_or_default(),
        claim.name_any()
    )
}

#[cfg(test)]
pub mod tests;
