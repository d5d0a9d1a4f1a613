//! What the order of groups depends on, and which of them begin first.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolume;
use pvmigrate_record::record::Record;

use super::Run;
use crate::config::Config;
use crate::migration::{Group, Migration};
use crate::observe::Observed;
use crate::plan::{Moved, lane};
use crate::schedule::{Item, Limits, Schedule};

/// The schedule of these groups.
pub fn schedule(run: &Run, groups: &[Group], observed: &Observed) -> Schedule {
    let item = |group| item(group, observed, &run.config);
    let items = groups.iter().map(item).collect();
    let limits = Limits {
        groups: run.config.parallelism_groups.get(),
        per_node: run.config.parallelism_per_node.get(),
    };
    Schedule::new(items, limits)
}

/// The groups that will begin before any other has ended, in their order.
pub fn first<'a>(run: &Run, groups: &'a mut [Group], observed: &Observed) -> Vec<&'a mut Group> {
    let mut schedule = schedule(run, groups, observed);
    let mut all: Vec<_> = groups.iter_mut().map(Some).collect();
    let first = std::iter::from_fn(|| schedule.start());
    first.filter_map(|index| all[index].take()).collect()
}

/// What the order of a group depends on. A set's lane is in its records, so a Job that takes over
/// keeps the order.
fn item(group: &Group, observed: &Observed, config: &Config) -> Item {
    let records = || group.claims.iter().map(|claim| &claim.record);
    let mut movers = BTreeMap::new();
    for claim in &group.claims {
        if let Some(node) = node_of(claim, observed) {
            *movers.entry(node).or_default() += 1;
        }
    }
    Item {
        wave: records()
            .map(|record| record.wave)
            .min()
            .unwrap_or_default(),
        weight: Moved::recorded(&records().collect::<Vec<_>>()).weight(observed, config),
        stops: records().any(|record| !record.freeze.workloads.is_empty()),
        lane: records().find_map(|record| lane(&record.freeze.workloads)),
        movers,
        begun: !records().all(Record::is_untouched),
    }
}

/// Where the mover of a claim will be, as far as that is known before it is made: with its
/// consumer, or where its volume is.
fn node_of(claim: &Migration, observed: &Observed) -> Option<String> {
    let name = &claim.record.claim;
    let consumer = observed.node_of(&name.namespace, &name.name);
    let node = consumer.or_else(|| only_node(&claim.volume));
    node.map(ToString::to_string)
}

/// The node that a volume is on, where there is but one.
fn only_node(volume: &PersistentVolume) -> Option<&str> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    let [term] = affinity.required.as_ref()?.node_selector_terms.as_slice() else {
        return None;
    };
    let mut rules = term.match_expressions.iter().flatten();
    let host = rules.find(|rule| rule.key == "kubernetes.io/hostname" && rule.operator == "In")?;
    match host.values.as_deref()? {
        [node] => Some(node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pvmigrate_record::phase::Phase;
    use pvmigrate_record::record::{Freezing, Method, Workload};

    use serde_json::json;

    use super::*;
    use crate::config::tests::config;
    use crate::mover::tests::record;
    use crate::plan::Weight;
    use crate::plan::tests::{from, pod};

    fn claim(name: &str, capacity: &str) -> Migration {
        let mut record = record("Filesystem");
        record.phase = Phase::Planned;
        record.destination = None;
        record.claim.namespace = "shop".into();
        record.claim.name = name.into();
        record.manifest.capacity = capacity.into();
        let volume = from(
            json!({"metadata": {"name": name}, "spec": {"nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}
                ]}]
            }}}}),
        );
        Migration::new(record, volume)
    }

    fn group(claims: Vec<Migration>) -> Group {
        Group::new("g".into(), "shop".into(), claims)
    }

    fn held(pod: &str) -> Freezing {
        Freezing {
            workload: Workload {
                uid: "uid-db".into(),
                namespace: "shop".into(),
                ..Workload::default()
            },
            method: Method::Hold,
            pod: Some(pod.into()),
        }
    }

    #[test]
    fn movers_are_counted_where_consumers_are_else_where_volumes_are() {
        let observed = Observed {
            pods: vec![pod("p", None, &["x"])],
            ..Observed::default()
        };
        let all = ["x", "y", "z"].map(|name| claim(name, "1Gi"));
        let item = item(&group(all.into()), &observed, &config(&[]));
        let expected = [("n1".to_string(), 1), ("n2".to_string(), 2)];
        assert_eq!(item.movers, expected.into());
    }

    #[test]
    fn a_group_is_ordered_by_the_downtime_that_the_plan_predicts_then_by_size() {
        let mut observed = Observed::default();
        let mut used = group(vec![claim("x", "1Ki"), claim("y", "2Ki")]);
        let weight = |used: &Group, observed: &Observed, warm: &str| {
            item(used, observed, &config(&[("PVMIGRATE_WARM", warm)])).weight
        };
        let is = |seconds: f64, bytes: u128| Weight {
            downtime: Duration::from_secs_f64(seconds),
            bytes,
        };
        // Nobody is stopped: there is nothing to stop, or it does not run.
        assert_eq!(weight(&used, &observed, "true"), is(0.0, 3 << 10));
        for claim in &mut used.claims {
            claim.record.freeze.workloads = vec![held("db-2")];
            claim
                .record
                .source
                .name
                .clone_from(&claim.record.claim.name);
            claim.record.manifest.capacity = "1Gi".into();
        }
        assert_eq!(weight(&used, &observed, "true"), is(0.0, 2 << 30));
        observed.pods = vec![pod("db-2", None, &["x", "y"])];
        assert_eq!(weight(&used, &observed, "true"), is(3.0, 2 << 30));
        assert_eq!(weight(&used, &observed, "false"), is(23.0, 2 << 30));
        // What a pass has measured counts instead.
        let mut pass = pvmigrate_record::order::PassReport::default();
        (pass.totals.bytes, pass.seconds) = (10, 7.5);
        let mut measured = used.claims[0].record.clone();
        measured.pass = Some(pass);
        let json = serde_json::to_string(&measured).unwrap();
        let volume =
            json!({"metadata": {"name": "x", "annotations": {"pvmigrate.io/record": json}}});
        observed.volumes.insert("x".into(), from(volume));
        assert_eq!(weight(&used, &observed, "true"), is(10.5, 10 + (1 << 30)));
    }

    #[test]
    fn lane_wave_and_whether_it_was_begun_are_in_the_records() {
        let observed = Observed::default();
        let mut one = claim("x", "1Gi");
        one.record.freeze.workloads = vec![held("db-2")];
        one.record.wave = -3;
        let planned = item(&group(vec![one.clone()]), &observed, &config(&[]));
        let lane = planned.lane.unwrap();
        assert_eq!((lane.set.as_str(), lane.ordinal), ("uid-db", 2));
        assert_eq!(lane.pod, "shop/db-2");
        assert_eq!((planned.wave, planned.begun), (-3, false));
        assert!(planned.stops);
        one.record.phase = Phase::Staged;
        assert!(item(&group(vec![one]), &observed, &config(&[])).begun);
    }
}
