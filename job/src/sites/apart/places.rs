//! Places: nodes that a pod anti-affinity takes for one; and who gets which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use kube::ResourceExt;

use crate::observe::Observed;

/// The labels of nodes that make up a place, with their values; one of them is enough.
pub type Place = BTreeSet<(String, String)>;

/// What a replica gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Seat {
    In(Place),
    /// Nodes without the labels, where nothing is kept apart.
    Unlabelled,
    /// All that it can reach is needed by others.
    Nowhere,
}

impl Seat {
    /// Where the movers of who sits here have to run; none if nothing is kept for it.
    pub fn selector(&self, keys: &BTreeSet<String>) -> Option<NodeSelector> {
        let term = |rules: Vec<NodeSelectorRequirement>| NodeSelectorTerm {
            match_expressions: Some(rules),
            ..NodeSelectorTerm::default()
        };
        let rule = |key: &String, operator: &str, values| NodeSelectorRequirement {
            key: key.clone(),
            operator: operator.into(),
            values,
        };
        let terms = match self {
            Self::Nowhere => return None,
            Self::Unlabelled => {
                let rules = keys.iter().map(|key| rule(key, "DoesNotExist", None));
                vec![term(rules.collect())]
            }
            Self::In(place) => {
                let mut values: BTreeMap<&String, Vec<String>> = BTreeMap::new();
                for (key, value) in place {
                    values.entry(key).or_default().push(value.clone());
                }
                let rules = values.into_iter();
                rules
                    .map(|(key, values)| term(vec![rule(key, "In", Some(values))]))
                    .collect()
            }
        };
        Some(NodeSelector {
            node_selector_terms: terms,
        })
    }
}

/// Nodes that have a value of one of the keys in common are one place, however many are between.
pub fn places(observed: &Observed, keys: &BTreeSet<String>) -> Vec<Place> {
    let mut all: Vec<Place> = Vec::new();
    for node in observed.surroundings.nodes.values() {
        let mut own = labels(node, keys);
        all.retain(|place| {
            let is_other = place.is_disjoint(&own);
            if !is_other {
                own.extend(place.iter().cloned());
            }
            is_other
        });
        if !own.is_empty() {
            all.push(own);
        }
    }
    all
}

fn labels(node: &Node, keys: &BTreeSet<String>) -> Place {
    let of_keys = node.labels().iter().filter(|(key, _)| keys.contains(*key));
    of_keys
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// A seat for each replica, of which these are the nodes that it can reach.
pub fn seats(reached: &[Vec<&Node>], places: &[Place], keys: &BTreeSet<String>) -> Vec<Seat> {
    let place = |node: &Node| {
        let own = labels(node, keys);
        places.iter().position(|place| !place.is_disjoint(&own))
    };
    let is_free = |nodes: &[&Node]| nodes.iter().any(|node| place(node).is_none());
    let wanted: Vec<Vec<usize>> = reached
        .iter()
        .map(|nodes| {
            let bound = nodes.iter().filter(|_| !is_free(nodes));
            bound.filter_map(|node| place(node)).collect()
        })
        .collect();
    let seats = reached.iter().zip(assign(&wanted));
    seats
        .map(|(nodes, assigned)| match assigned {
            Some(place) => Seat::In(places[place].clone()),
            None if is_free(nodes) => Seat::Unlabelled,
            None => Seat::Nowhere,
        })
        .collect()
}

/// Gives each of some a place of its own among those that it wants. As many as can be get one, and
/// none that comes before gives way to one that comes later.
fn assign(wanted: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut holders: BTreeMap<usize, usize> = BTreeMap::new();
    for who in 0..wanted.len() {
        find(who, wanted, &mut holders, &mut BTreeSet::new());
    }
    let mut all = vec![None; wanted.len()];
    for (place, who) in holders {
        all[who] = Some(place);
    }
    all
}

/// Finds a place for one, where others take another of theirs for it.
fn find(
    who: usize,
    wanted: &[Vec<usize>],
    holders: &mut BTreeMap<usize, usize>,
    asked: &mut BTreeSet<usize>,
) -> bool {
    let (free, held): (Vec<&usize>, Vec<&usize>) = wanted[who]
        .iter()
        .partition(|place| !holders.contains_key(place));
    for place in free.into_iter().chain(held) {
        if !asked.insert(*place) {
            continue;
        }
        let holder = holders.get(place).copied();
        if holder.is_none_or(|holder| find(holder, wanted, holders, asked)) {
            holders.insert(*place, who);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_can_be_get_a_place_and_those_before_give_none_away() {
        for (wanted, expected) in [
            (&[&[0, 1][..], &[0]][..], &[Some(1), Some(0)][..]),
            (&[&[0], &[0]], &[Some(0), None]),
            (
                &[&[0, 1], &[0, 1], &[0, 1], &[2]],
                &[Some(0), Some(1), None, Some(2)],
            ),
            (&[&[0, 1], &[1, 2], &[0]], &[Some(1), Some(2), Some(0)]),
            (&[&[], &[0]], &[None, Some(0)]),
        ] {
            let wanted: Vec<Vec<usize>> = wanted.iter().map(|all| all.to_vec()).collect();
            let assigned = assign(&wanted);
            let held = |all: &[Option<usize>]| all.iter().map(Option::is_some).collect::<Vec<_>>();
            assert_eq!(held(&assigned), held(expected), "{wanted:?}");
            let mut taken: Vec<usize> = assigned.iter().copied().flatten().collect();
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), assigned.iter().flatten().count(), "{wanted:?}");
            for (who, place) in assigned.iter().enumerate() {
                assert!(
                    place.is_none_or(|place| wanted[who].contains(&place)),
                    "{wanted:?}"
                );
            }
        }
    }
}
