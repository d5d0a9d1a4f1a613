//! Other releases, which may be at work on the same claims and workloads.

use pvmigrate_record::record::{Freezing, Frozen};

use super::claims;
use crate::config::Config;
use crate::observe::{Observed, record_of};
use crate::plan::{Plan, full_name};

pub fn nobody_else_is_at_work(observed: &Observed, config: &Config, plan: &Plan) -> Vec<String> {
    let mut all = Vec::new();
    for claim in claims(plan) {
        let Some(record) = observed.volume_of(claim).and_then(record_of) else {
            continue;
        };
        match record {
            Ok(record) if record.release != config.release() && !record.is_finished() => {
                all.push(format!(
                    "claim {} is under migration by release {}/{} (run {}, {:?}): wait for it",
                    full_name(claim),
                    record.release.namespace,
                    record.release.name,
                    record.run,
                    record.phase
                ));
            }
            Ok(_) => {}
            Err(error) => all.push(format!("the volume of claim {}: {error}", full_name(claim))),
        }
    }
    for Freezing { workload, .. } in plan.groups.iter().flat_map(|group| &group.freeze) {
        let seen = observed
            .workloads
            .iter()
            .find(|seen| seen.workload.uid == workload.uid);
        let Some(mark) = seen.and_then(|seen| seen.frozen.as_deref()) else {
            continue;
        };
        match serde_json::from_str::<Frozen>(mark) {
            Ok(mark) if mark.release == config.release() => {}
            Ok(mark) => all.push(format!(
                "{workload} is stopped by release {}/{} (run {}): wait for it",
                mark.release.namespace, mark.release.name, mark.run
            )),
            Err(error) => all.push(format!(
                "{workload} has a mark of ours that cannot be read: {error}"
            )),
        }
    }
    all
}
