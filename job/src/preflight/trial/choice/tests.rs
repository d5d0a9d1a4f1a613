use serde_json::json;

use super::*;
use crate::config::tests::config;
use crate::plan::plan;
use crate::plan::tests::{from, observed};
use crate::preflight::tests::{node, on_node};

/// What is tried: the claims' modes, the node, and the size.
fn tried(observed: &Observed) -> (Vec<(String, String, String)>, usize) {
    let tried = tried_beside(observed, &[]);
    let told = tried.by_pods.into_iter().map(|trial| {
        let node = trial.placement.node.unwrap_or_default();
        let modes = trial.manifest.access_modes.join(",");
        (modes, node, trial.manifest.storage)
    });
    (told.collect(), tried.left_out)
}

/// The same, where some claims are suited to be tried by their movers.
fn tried_beside(observed: &Observed, suited: &[&str]) -> Trials {
    let config = config(&[]);
    let suited: Vec<String> = suited.iter().map(ToString::to_string).collect();
    trials(observed, &config, &plan(observed, &config), &suited)
}

fn sized(observed: &mut Observed, claim: usize, size: &str) {
    let spec = observed.claims[claim].spec.as_mut().unwrap();
    spec.resources = Some(from(json!({"requests": {"storage": size}})));
}

#[test]
fn claims_that_are_alike_are_tried_once_and_as_small_as_the_smallest() {
    let mut observed = observed(&["x", "y", "z"]);
    node(&mut observed, "n1", &json!({}));
    node(&mut observed, "n2", &json!({}));
    for (claim, size) in [(0, "3Gi"), (1, "1Gi"), (2, "2Gi")] {
        sized(&mut observed, claim, size);
    }
    let expected = ("ReadWriteOnce".into(), String::new(), "1Gi".into());
    assert_eq!(tried(&observed), (vec![expected], 0));
}

#[test]
fn every_node_that_a_claim_is_bound_to_is_a_place() {
    let mut observed = observed(&["x", "y"]);
    for (name, claim) in [("n1", 0), ("n2", 1)] {
        node(&mut observed, name, &json!({}));
        sized(&mut observed, claim, "1Gi");
    }
    on_node(&mut observed, "x", "n1");
    on_node(&mut observed, "y", "n2");
    let at = |node: &str| ("ReadWriteOnce".into(), node.into(), "1Gi".into());
    assert_eq!(tried(&observed), (vec![at("n1"), at("n2")], 0));
}

#[test]
fn the_first_claim_that_its_mover_can_try_stands_for_those_like_it_and_for_its_zone() {
    let mut observed = observed(&["w", "x", "y", "z"]);
    for (name, zone) in [("n1", "a"), ("n2", "a"), ("n3", "b")] {
        let zone = json!({"topology.kubernetes.io/zone": zone});
        node(&mut observed, name, &zone);
    }
    for (claim, name) in [("w", "n1"), ("x", "n1"), ("y", "n2"), ("z", "n3")] {
        on_node(&mut observed, claim, name);
    }
    let tried = |suited: &[&str]| {
        let tried = tried_beside(&observed, suited);
        let nodes = tried.by_pods.into_iter();
        let nodes = nodes.map(|trial| trial.placement.node.unwrap_or_default());
        (nodes.collect::<Vec<_>>(), tried.by_movers)
    };
    let of = |claims: &[&str]| -> Vec<String> {
        let namespace = observed.claims[0].namespace().unwrap();
        claims
            .iter()
            .map(|claim| format!("{namespace}/{claim}"))
            .collect()
    };
    let [x, w, y, z] = ["x", "w", "y", "z"].map(|claim| of(&[claim]).remove(0));
    let nodes = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let by_mover = |first, next| ByMover { first, next };
    assert_eq!(tried(&[]), (nodes(&["n1", "n3", "n2"]), vec![]));
    let two = vec![by_mover(0, Some(1))];
    assert_eq!(tried(&[&x, &w]), (nodes(&["n3", "n2"]), two));
    // Zone a needs no other, so zone b comes first.
    let one = vec![by_mover(0, None)];
    assert_eq!(tried(&[&y]), (nodes(&["n3", "n1"]), one));
    let all = vec![by_mover(1, Some(3)), by_mover(0, None), by_mover(2, None)];
    assert_eq!(tried(&[&z, &x, &y, &w]), (nodes(&[]), all));
}

#[test]
fn of_claims_that_are_alike_the_first_two_are_known_in_whatever_order_they_come() {
    let two = |places: [usize; 3]| {
        let first = ByMover {
            first: places[0],
            next: None,
        };
        let both = first.and(places[1]).and(places[2]);
        (both.first, both.next)
    };
    for places in [[3, 5, 9], [9, 5, 3], [5, 3, 9], [9, 3, 5]] {
        assert_eq!(two(places), (3, Some(5)), "{places:?}");
    }
}

#[test]
fn where_there_are_too_many_places_each_zone_has_one_first() {
    let names: Vec<String> = (0..30).map(|number| format!("c{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut observed = observed(&names);
    for (number, claim) in names.iter().enumerate() {
        let zone = if number == 29 { "b" } else { "a" };
        let name = format!("n{number:02}");
        node(
            &mut observed,
            &name,
            &json!({"topology.kubernetes.io/zone": zone}),
        );
        on_node(&mut observed, claim, &name);
    }
    let (tried, left_out) = tried(&observed);
    assert_eq!((tried.len(), left_out), (MOST, 30 - MOST));
    assert_eq!(tried[0].1, "n00");
    assert_eq!(tried[1].1, "n29");
}

#[test]
fn no_more_is_made_at_a_time_than_groups_may_be_moved() {
    let alike = |by_mover: Option<(usize, usize)>| Alike {
        kind_in_zone: String::new(),
        trial: trial(
            &observed(&["x"]).claims[0],
            &config(&[]),
            Placement::default(),
        ),
        by_mover: by_mover.map(|(first, next)| ByMover {
            first,
            next: Some(next),
        }),
    };
    let shared = |count: usize, others: usize, at_once: usize| {
        let suited = (0..count).map(|number| alike(Some((number, number + count))));
        let others = (0..others).map(|_| alike(None));
        let all = shared_out(suited.chain(others).collect(), at_once);
        let nexts = all.by_movers.iter().filter(|one| one.next.is_some());
        let movers = (all.by_movers.len(), nexts.count());
        (movers, all.by_pods.len(), all.pods_at_once)
    };
    // By movers, the next ones of these; by pods, of which so many at a time.
    assert_eq!(shared(2, 0, 4), ((2, 2), 0, 1));
    assert_eq!(shared(2, 0, 3), ((2, 1), 0, 1));
    assert_eq!(shared(1, 1, 4), ((1, 1), 1, 2));
    assert_eq!(shared(5, 0, 4), ((3, 0), 2, 1));
    assert_eq!(shared(1, 1, 1), ((0, 0), 2, 1));
    assert_eq!(shared(0, 3, 4), ((0, 0), 3, 4));
}
