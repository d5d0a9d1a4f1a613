//! Lanes: the pods of one StatefulSet are moved one after another, the highest ordinal first, as a
//! rolling update does. Derived from what the records hold, so that every Job sees the same.

use std::collections::BTreeMap;

use pvmigrate_record::record::{Freezing, Outcome, Record};

use super::{Plan, PlannedGroup, full_name};
use crate::config::Config;
use crate::observe::{Observed, record_of};

/// A place in a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The UID of the StatefulSet.
    pub set: String,
    pub ordinal: i64,
    /// The pod, for people: `shop/db-2`.
    pub pod: String,
}

/// The lane of a group that is frozen so; none if it may go at any time.
pub fn lane(freeze: &[Freezing]) -> Option<Lane> {
    freeze.iter().find_map(|freezing| {
        let pod = freezing.pod.as_ref()?;
        let (_, ordinal) = pod.rsplit_once('-')?;
        Some(Lane {
            set: freezing.workload.uid.clone(),
            ordinal: ordinal.parse().ok()?,
            pod: format!("{}/{pod}", freezing.workload.namespace),
        })
    })
}

/// Why the rest of a lane does not begin.
pub fn stopped_by(pod: &str) -> String {
    format!(
        "pod {pod} of the same set did not end well, so this one stays on its old volumes; set retryFailed to try it again"
    )
}

/// Leaves what comes after a pod that did not end well in this run, in an earlier Job of it.
pub fn leave_stopped(plan: &mut Plan, observed: &Observed, config: &Config) {
    if config.retry_failed {
        return;
    }
    let records = observed.volumes.values().filter_map(record_of);
    let stopped: BTreeMap<String, Lane> = records
        .flatten()
        .filter(|record| record.run == config.run() && did_not_end_well(record))
        .filter_map(|record| lane(&record.freeze.workloads))
        .map(|lane| (lane.set.clone(), lane))
        .collect();
    let stops = |group: &PlannedGroup| stopped.get(&lane(&group.freeze)?.set);
    let (left, groups) = std::mem::take(&mut plan.groups)
        .into_iter()
        .partition(|group| stops(group).is_some());
    plan.groups = groups;
    for group in &left {
        let Some(by) = stops(group) else { continue };
        plan.has_failed = true;
        let claims = group.claims.iter();
        plan.left
            .extend(claims.map(|claim| (full_name(claim), stopped_by(&by.pod))));
    }
}

fn did_not_end_well(record: &Record) -> bool {
    record.failure.is_some() || record.outcome == Some(Outcome::Failed)
}
