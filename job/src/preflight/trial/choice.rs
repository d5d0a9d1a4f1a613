//! What is tried, and how. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::Heading;
use pvmigrate_record::record::ClaimManifest;

use crate::claim::{access_modes, size, wanted};
use crate::config::Config;
use crate::mover::Placement;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::preflight::placement;
use crate::quantity::bytes;

/// How many trials one preflight makes at most. Places beyond that are in zones, or have claims of
/// a kind, that were tried elsewhere.
const MOST: usize = 12;

/// What is tried, for claims that are alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    pub namespace: String,
    /// As the smallest of the claims has it.
    pub manifest: ClaimManifest,
    pub placement: Placement,
    /// One of the claims.
    pub claim: String,
}

impl Trial {
    pub fn words(&self) -> String {
        let manifest = &self.manifest;
        let node = self.placement.node.as_deref();
        words(&manifest.access_modes, &manifest.volume_mode, node)
    }
}

/// What is tried, as a person would say it.
pub fn words(access_modes: &[String], volume_mode: &str, node: Option<&str>) -> String {
    let modes = access_modes.join(", ");
    let node = node.map_or_else(String::new, |node| format!(" on node {node}"));
    format!("{modes}, {volume_mode}{node}")
}

/// Claims that are alike: of one kind, in one place.
struct Alike {
    /// The kind, and the zones of the place.
    kind_in_zone: String,
    /// For the smallest of them.
    trial: Trial,
    by_mover: Option<ByMover>,
}

/// Claims that are alike and can be tried by their movers, by their places among all that can.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByMover {
    pub first: usize,
    /// The one after it.
    pub next: Option<usize>,
}

impl ByMover {
    /// With another one that is alike.
    fn and(self, other: usize) -> Self {
        let next = other.max(self.first);
        Self {
            first: other.min(self.first),
            next: Some(self.next.map_or(next, |known| known.min(next))),
        }
    }
}

/// What is tried, and how.
#[derive(Debug, Default, PartialEq)]
pub struct Trials {
    /// By a claim and a pod of their own, and how many of them at a time.
    pub by_pods: Vec<Trial>,
    pub pods_at_once: usize,
    pub by_movers: Vec<ByMover>,
    /// How many places are not tried.
    pub left_out: usize,
}

/// The distinct combinations, first one of each kind in each zone. Of those that are alike the first
/// that is `suited`, by namespace and name, is tried by its mover.
pub fn trials(observed: &Observed, config: &Config, plan: &Plan, suited: &[String]) -> Trials {
    let mut alike: BTreeMap<String, Alike> = BTreeMap::new();
    for site in placement::sites(observed, config, plan) {
        // An impossible placement is refused by its own check.
        let Ok(nodes) = &site.nodes else {
            continue;
        };
        let mut placement = site.placement;
        let zones: BTreeSet<_> = nodes.iter().filter_map(|node| zone(node)).collect();
        if let [only] = nodes.as_slice() {
            placement.node = Some(only.name_any());
        }
        for claim in site.claims {
            if claim.namespace().as_deref() == Some("kube-system") {
                continue;
            }
            let trial = trial(claim, config, placement.clone());
            let kind = format!(
                "{:?} {}",
                trial.manifest.access_modes, trial.manifest.volume_mode
            );
            let at = match &placement.node {
                Some(node) => node.clone(),
                None => format!("{placement:?}"),
            };
            let place = suited.iter().position(|suited| *suited == trial.claim);
            let known = alike
                .entry(format!("{kind} {at}"))
                .or_insert_with(|| Alike {
                    kind_in_zone: format!("{kind} {zones:?}"),
                    trial: trial.clone(),
                    by_mover: None,
                });
            known.by_mover = match (known.by_mover, place) {
                (Some(known), Some(place)) => Some(known.and(place)),
                (None, Some(first)) => Some(ByMover { first, next: None }),
                (known, None) => known,
            };
            if bytes(size(&trial.manifest)) < bytes(size(&known.trial.manifest)) {
                known.trial = trial;
            }
        }
    }
    let mut alike: Vec<Alike> = alike.into_values().collect();
    // A mover stands for its zone.
    alike.sort_by_key(|alike| alike.by_mover.is_none());
    let mut seen = BTreeSet::new();
    let (first, others): (Vec<_>, Vec<_>) = alike
        .into_iter()
        .partition(|alike| seen.insert(alike.kind_in_zone.clone()));
    let all: Vec<Alike> = first.into_iter().chain(others).collect();
    shared_out(all, config.parallelism_groups.get())
}

/// Who is tried how, with no more claims at a time than groups may be moved: a quota has to have room
/// for as many anyway.
fn shared_out(alike: Vec<Alike>, at_once: usize) -> Trials {
    let can = alike.iter().filter(|alike| alike.by_mover.is_some());
    let needs_pods = can.clone().count() < alike.len() || can.count() > at_once;
    let mut room = at_once.saturating_sub(usize::from(needs_pods));
    let mut all = Trials::default();
    for alike in alike {
        match alike.by_mover.filter(|_| room > 0) {
            Some(by_mover) => {
                room -= 1;
                all.by_movers.push(by_mover);
            }
            None if all.by_pods.len() == MOST => all.left_out += 1,
            None => all.by_pods.push(alike.trial),
        }
    }
    for by_mover in &mut all.by_movers {
        by_mover.next = by_mover.next.filter(|_| room > 0);
        room -= usize::from(by_mover.next.is_some());
    }
    all.pods_at_once = room.saturating_add(1).min(MOST);
    all
}

fn trial(claim: &PersistentVolumeClaim, config: &Config, placement: Placement) -> Trial {
    let whole = wanted(claim, config);
    Trial {
        namespace: claim.namespace().unwrap_or_default(),
        manifest: ClaimManifest {
            access_modes: access_modes(&whole, Heading::Destination).to_vec(),
            volume_mode: whole.volume_mode.clone(),
            storage: size(&whole).to_string(),
            ..ClaimManifest::default()
        },
        placement,
        claim: full_name(claim),
    }
}

fn zone(node: &Node) -> Option<&String> {
    node.labels().get("topology.kubernetes.io/zone")
}

#[cfg(test)]
mod tests;
