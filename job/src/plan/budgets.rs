//! PodDisruptionBudgets. A rolling hold evicts, so the API server asks them; what stops as a whole
//! does not ask, and says so.

use std::collections::BTreeMap;

use super::ties::Frozen;
use crate::config::Config;
use crate::observe::{Budget, Observed, is_built_in};

/// The budgets that the freeze of a group does not ask, and those that would never let it happen.
pub fn judge(users: &[Frozen], observed: &Observed, config: &Config) -> (Vec<String>, Vec<String>) {
    let (mut overridden, mut refusals) = (Vec::new(), Vec::new());
    for frozen in users {
        let workload = &frozen.freezing.workload;
        let covers = |budget: &&Budget| {
            let mut labels = frozen.user.labels.iter();
            labels.any(|labels| budget.covers(&workload.namespace, labels))
        };
        for budget in observed.budgets.iter().filter(covers) {
            let name = format!("PodDisruptionBudget {}/{}", budget.namespace, budget.name);
            if frozen.freezing.pod.is_none() || config.hold_ignore_budgets {
                overridden.push(name);
            } else if let Some(why) = budget.never_allows(pods(budget, observed)) {
                refusals.push(format!(
                    "{name} never allows an eviction ({why}), and {workload} is moved pod by pod: loosen it, set hold.ignoreBudgets, or annotate the set with {}: scale",
                    pvmigrate_record::names::FREEZE
                ));
            }
        }
    }
    overridden.sort();
    overridden.dedup();
    (overridden, refusals)
}

/// How many pods the workloads that a budget covers ask for.
fn pods(budget: &Budget, observed: &Observed) -> i32 {
    let covers =
        |namespace: &str, labels: &BTreeMap<String, String>| budget.covers(namespace, labels);
    observed
        .workloads
        .iter()
        .filter(|seen| covers(&seen.workload.namespace, &seen.pod_labels))
        .filter(|seen| {
            let owner = seen.controller.as_ref();
            !owner.is_some_and(|owner| is_built_in(&owner.api_version, &owner.kind))
        })
        .map(|seen| seen.replicas)
        .sum()
}
