use serde_json::{Value, json};

use super::*;
use crate::config::tests::config;
use crate::mover::Placement;
use crate::plan::tests::{from, observed, owner, pod, workload};
use crate::preflight::tests::{node, on_node, stays_where_it_is_made};
use crate::sites::Sites;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "zone";

fn term(key: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "db"}}})
}

/// Two nodes in zone a and one in zone b, and a set at 0 of so many claims that keeps apart by this
/// key, on a class whose volumes stay where they are made.
fn cluster(count: usize, key: &str) -> Observed {
    let names: Vec<String> = (0..count).map(|n| format!("data-db-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut observed = observed(&names);
    for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        node(&mut observed, name, &json!({HOST: name, ZONE: zone}));
    }
    stays_where_it_is_made(&mut observed);
    observed.workloads = vec![ObservedWorkload {
        claim_templates: vec!["data".into()],
        replicas: 0,
        apart: vec![from(term(key))],
        ..workload("StatefulSet", "db", &[])
    }];
    observed
}

/// Where the mover of each ordinal may run.
fn seats(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    let sites = Sites::of(observed, &config);
    let nodes = observed.surroundings.nodes.values();
    let allowed = |placement: &Placement| {
        let affinity = placement.node_affinity.as_ref();
        let fit = nodes
            .clone()
            .filter(|node| affinity.is_none_or(|affinity| nodes::is_selected(node, affinity)));
        fit.map(ResourceExt::name_any).collect::<Vec<_>>().join(" ")
    };
    let claims = (0..10).map(|ordinal| format!("data-db-{ordinal}"));
    claims
        .filter_map(|claim| sites.at("shop", &claim).map(&allowed))
        .collect()
}

fn refusals(observed: &Observed) -> Vec<String> {
    let config = config(&[]);
    let plan = crate::plan::plan(observed, &config);
    placement::is_possible(observed, &config, &plan)
}

#[test]
fn each_replica_gets_a_place_of_its_own_that_its_source_can_be_reached_from() {
    for (count, key, on, expected) in [
        (3, HOST, &[][..], &["n1", "n2", "n3"][..]),
        // The first makes way for those that can be nowhere else.
        (3, HOST, &[(1, "n1"), (2, "n2")], &["n3", "n1", "n2"]),
        (2, HOST, &[(0, "n3")], &["n3", "n1"]),
        (2, ZONE, &[], &["n1 n2", "n3"]),
        (2, ZONE, &[(1, "n2")], &["n3", "n2"]),
    ] {
        let mut observed = cluster(count, key);
        for (ordinal, node) in on {
            on_node(&mut observed, &format!("data-db-{ordinal}"), node);
        }
        assert_eq!(seats(&observed), expected, "{count} {key} {on:?}");
        assert_eq!(refusals(&observed), Vec::<String>::new(), "{key} {on:?}");
    }
}

#[test]
fn a_place_too_few_is_refused_by_name_for_the_highest_ordinal() {
    let sentence = |ordinal: u32, key: &str, taken: &str| {
        format!(
            "no node is left for pod {ordinal} of StatefulSet shop/db after the move: its pods keep apart by {key} (required podAntiAffinity), volumes of StorageClass b stay where they are made, and others of its pods need {taken}; leave its claims out (excludeClaims)"
        )
    };
    let observed = cluster(4, HOST);
    assert_eq!(refusals(&observed), [sentence(3, HOST, "n1, n2, n3")]);
    assert_eq!(seats(&observed), ["n1", "n2", "n3", "n1 n2 n3"]);
    assert_eq!(
        refusals(&cluster(3, ZONE)),
        [sentence(2, ZONE, "n1, n2, n3")]
    );

    let mut observed = cluster(3, HOST);
    on_node(&mut observed, "data-db-0", "n2");
    on_node(&mut observed, "data-db-2", "n2");
    assert_eq!(refusals(&observed), [sentence(2, HOST, "n2")]);
}

#[test]
fn of_a_set_that_runs_only_its_replicas_count() {
    let mut observed = cluster(4, HOST);
    observed.workloads[0].replicas = 2;
    assert_eq!(refusals(&observed), Vec::<String>::new());
    observed.workloads[0].replicas = 4;
    assert_eq!(refusals(&observed).len(), 1);
}

#[test]
fn where_siblings_are_already_counts() {
    // One runs, one was not asked for and is on its node, one is done and on its new volume.
    let mut observed = cluster(3, HOST);
    let set = owner("apps/v1", "StatefulSet", "db");
    observed.workloads[0].replicas = 1;
    observed.pods = vec![pod("db-0", set, &["data-db-0"])];
    assert_eq!(seats(&observed)[1..], ["n2", "n3"]);

    let mut observed = cluster(3, HOST);
    for (ordinal, class, node) in [(0, "c", "n2"), (1, "b", "n1")] {
        on_node(&mut observed, &format!("data-db-{ordinal}"), node);
        let spec = observed.claims[ordinal].spec.as_mut().unwrap();
        spec.storage_class_name = Some(class.into());
    }
    assert_eq!(seats(&observed)[2], "n3");
    // Those claims are not even looked at.
    observed
        .claims
        .retain(|claim| claim.name_any() == "data-db-2");
    assert_eq!(seats(&observed), ["n3"]);
}

#[test]
fn a_job_that_takes_over_keeps_to_the_volumes_and_movers_that_are_there() {
    let mut record = crate::mover::tests::record("Filesystem");
    (record.claim.name, record.claim.uid) = ("data-db-1".into(), "u".into());
    let noted = |observed: &mut Observed, record: &pvmigrate_record::record::Record| {
        let volume = observed.volumes.get_mut("pv-data-db-1").unwrap();
        let json = serde_json::to_string(record).unwrap();
        volume.metadata.annotations = Some([(names::RECORD.to_string(), json)].into());
    };
    let new = json!({"metadata": {"name": "new"}, "spec": {"nodeAffinity": {"required": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": HOST, "operator": "In", "values": ["n1"]}]}]}}}});
    let provisioned = |observed: &mut Observed| {
        observed
            .surroundings
            .volumes
            .insert("new".into(), from(new.clone()));
    };

    let mut observed = cluster(2, HOST);
    assert_eq!(seats(&observed), ["n1", "n2"]);
    provisioned(&mut observed);
    record.destination = Some(from(
        json!({"name": "new", "uid": "v", "reclaim_policy": "Delete"}),
    ));
    noted(&mut observed, &record);
    assert_eq!(seats(&observed), ["n2", "n1"]);

    // Killed before the record had it.
    let mut observed = cluster(2, HOST);
    provisioned(&mut observed);
    record.destination = None;
    noted(&mut observed, &record);
    let staging = names::staging_object(&record.run, "u");
    observed
        .surroundings
        .bindings
        .insert(("shop".into(), staging.clone()), "new".into());
    assert_eq!(seats(&observed), ["n2", "n1"]);

    // Killed before anything was provisioned: the mover has its node.
    let mut observed = cluster(2, HOST);
    observed.pods = vec![pod(&staging, None, &["data-db-1", &staging])];
    assert_eq!(seats(&observed), ["n2", "n1"]);

    // On the way back the new volume counts for nothing.
    let mut observed = cluster(2, HOST);
    provisioned(&mut observed);
    record.destination = Some(from(
        json!({"name": "new", "uid": "v", "reclaim_policy": "Delete"}),
    ));
    record.heading = Heading::Source;
    noted(&mut observed, &record);
    assert_eq!(seats(&observed), ["n1", "n2"]);
}

#[test]
fn nothing_is_planned_where_nothing_depends_on_it() {
    let anywhere = ["n1 n2 n3", "n1 n2 n3"];
    for other in [
        json!({"topologyKey": HOST}),
        json!({"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "other"}}}),
        json!({"topologyKey": HOST, "labelSelector": {}, "namespaces": ["elsewhere"]}),
        json!({"topologyKey": HOST, "labelSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}),
        json!({"topologyKey": HOST, "labelSelector": {}, "mismatchLabelKeys": ["app"]}),
    ] {
        let mut observed = cluster(2, HOST);
        observed.workloads[0].apart = vec![from(other.clone())];
        assert_eq!(seats(&observed), anywhere, "{other}");
    }
    // A class that binds at once does not ask where the mover runs.
    let mut observed = cluster(2, HOST);
    let class = observed.classes.get_mut("b").unwrap();
    class.volume_binding_mode = Some("Immediate".into());
    assert_eq!(seats(&observed), anywhere);
    // Nodes without the label keep nothing apart.
    assert_eq!(seats(&cluster(2, "rack")), anywhere);
}

#[test]
fn volumes_of_a_csi_driver_stay_as_its_topology_keys_say() {
    for (keys, by_host, by_zone) in [
        (&[][..], false, false),
        (&[ZONE][..], false, true),
        (&[ZONE, "example.com/node"][..], true, true),
        (&[HOST][..], true, true),
    ] {
        for (key, is_planned) in [(HOST, by_host), (ZONE, by_zone)] {
            let mut observed = cluster(2, key);
            for (name, node) in &mut observed.surroundings.nodes {
                let labels = node.metadata.labels.get_or_insert_default();
                labels.insert("example.com/node".into(), name.clone());
                let driver = json!({"name": "p", "nodeID": name, "topologyKeys": keys});
                let here = json!({"metadata": {"name": name}, "spec": {"drivers": [driver]}});
                let csi_nodes = &mut observed.surroundings.csi_nodes;
                csi_nodes.insert(name.clone(), from(here));
            }
            let is_apart = seats(&observed)[0] != "n1 n2 n3";
            assert_eq!(is_apart, is_planned, "{keys:?} {key}");
        }
    }
}

#[test]
fn nodes_that_share_any_label_are_one_place() {
    let mut observed = cluster(2, HOST);
    observed.workloads[0].apart.push(from(term(ZONE)));
    assert_eq!(seats(&observed), ["n1 n2", "n3"]);
}
