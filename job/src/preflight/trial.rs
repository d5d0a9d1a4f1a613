//! The proof that the destination's class makes volumes as they are needed: a claim, and a pod that
//! mounts it, for each distinct combination of access modes, volume mode and place. Where a group that
//! begins first has such a claim, these are its staging claim and its mover.
//!
//! ```text
//! clear what a Job left that was killed  →  some at a time:  claim (and pod) made
//!     →  the pod ran to its end  →  pod, claim and volume are removed, whatever came of it
//! ```

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use pvmigrate_record::phase::Heading;
use pvmigrate_record::record::ClaimManifest;

use super::{Asked, placement, provisioner};
use crate::claim::{access_modes, size, wanted};
use crate::config::Config;
use crate::migration::Group;
use crate::mover::Placement;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};
use crate::quantity::bytes;
use crate::stop::Stop;

mod attempt;
mod movers;
mod objects;
mod removal;

use movers::Movers;
pub use removal::clear;

/// How many trials one preflight makes at most. Places beyond that are in zones, or have claims of
/// a kind, that were tried elsewhere.
const MOST: usize = 12;

/// `first` are the groups that begin first, where nothing else stands against the run: what can be
/// tried by their movers is, and these stay if nothing is refused.
pub async fn destination_works(
    asked: Asked<'_>,
    first: Vec<&mut Group>,
) -> Result<Vec<String>, Stop> {
    let (run, observed) = (asked.run, asked.observed);
    // Without the Lease, others of this release may be at work, and their trials are theirs.
    if !run.config.preflight_only {
        removal::clear(run).await?;
    }
    if run.config.skip_preflight {
        return Ok(Vec::new());
    }
    let Some(class) = observed.classes.get(&run.config.dest_sc) else {
        return Ok(Vec::new());
    };
    if let Some(why) = untried(observed, class) {
        tracing::info!(%why, "no trial is made");
        return Ok(Vec::new());
    }
    let mut movers = Movers::of(run, first).await?;
    let Trials {
        by_pods,
        by_movers,
        left_out,
    } = trials(observed, &run.config, asked.plan, &movers.suited());
    movers.choose(&by_movers);
    if left_out > 0 {
        tracing::info!(
            left_out,
            "not every place is tried, but every kind of claim in every zone"
        );
    }
    // As many claims as a quota has to have room for anyway.
    let at_once = run.config.parallelism_groups.get().min(MOST);
    let attempts: Vec<BoxFuture<_>> = by_pods
        .iter()
        .enumerate()
        .map(|(number, trial)| attempt::attempt(run, class, number, trial).boxed())
        .collect();
    let attempts = stream::iter(attempts).buffered(at_once);
    let others = async {
        let refused: Vec<Option<String>> = attempts.try_collect().await?;
        Ok(refused.into_iter().flatten().collect())
    };
    movers.tried_beside(others).await
}

/// Why nothing is tried: a trial would take a volume that somebody has made by hand.
fn untried(observed: &Observed, class: &StorageClass) -> Option<String> {
    let name = class.name_any();
    if provisioner::is_by_hand(class) {
        return Some(format!("StorageClass {name} has no provisioner"));
    }
    let available = provisioner::available(observed, &name).next()?;
    Some(format!(
        "volume {} of StorageClass {name} is Available, and a trial could take it",
        available.name_any()
    ))
}

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
    fn words(&self) -> String {
        let manifest = &self.manifest;
        let node = self.placement.node.as_deref();
        words(&manifest.access_modes, &manifest.volume_mode, node)
    }
}

/// What is tried, as a person would say it.
fn words(access_modes: &[String], volume_mode: &str, node: Option<&str>) -> String {
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
struct ByMover {
    first: usize,
    /// The one after it.
    next: Option<usize>,
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
struct Trials {
    /// By a claim and a pod of their own.
    by_pods: Vec<Trial>,
    by_movers: Vec<ByMover>,
    /// How many places are not tried.
    left_out: usize,
}

/// The distinct combinations, first one of each kind in each zone. Of those that are alike the first
/// that is `suited`, by namespace and name, is tried by its mover.
fn trials(observed: &Observed, config: &Config, plan: &Plan, suited: &[String]) -> Trials {
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
    let mut all = Trials::default();
    for alike in first.into_iter().chain(others) {
        match alike.by_mover {
            Some(by_mover) => all.by_movers.push(by_mover),
            None if all.by_pods.len() == MOST => all.left_out += 1,
            None => all.by_pods.push(alike.trial),
        }
    }
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

fn zone(node: &k8s_openapi::api::core::v1::Node) -> Option<&String> {
    node.labels().get("topology.kubernetes.io/zone")
}

#[cfg(test)]
mod tests;
