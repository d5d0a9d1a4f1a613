//! What is stopped, moved and started as one.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Failure, Freezing};
use tokio::time::Instant;

use super::Migration;
use crate::cluster::Cluster;
use crate::mover::anchor::Anchor;
use crate::pods::{PodWatch, Wanted};
use crate::stop::Stop;

/// Claims and workloads that are stopped, moved and started as one.
pub struct Group {
    pub name: String,
    pub namespace: String,
    pub claims: Vec<Migration>,
    /// The namespace's pods, from before the fence was proved until its applications are back.
    pub watch: Option<Arc<PodWatch>>,
    /// What keeps its destinations attached, as it was made. Not recorded: a Job that takes over
    /// removes it.
    pub anchors: Vec<Anchor>,
    /// When its sets were last seen as they have to be before a pod of theirs goes.
    pub settled: Option<Instant>,
}

impl Group {
    pub fn new(name: String, namespace: String, claims: Vec<Migration>) -> Self {
        Self {
            name,
            namespace,
            claims,
            watch: None,
            anchors: Vec::new(),
            settled: None,
        }
    }

    /// Groups records by the name that they carry.
    pub fn gather(migrations: Vec<Migration>) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for migration in migrations {
            let (name, run) = (&migration.record.group, &migration.record.run);
            let known = groups
                .iter_mut()
                .find(|g| &g.name == name && &g.claims[0].record.run == run);
            if let Some(group) = known {
                group.claims.push(migration);
            } else {
                let namespace = migration.record.claim.namespace.clone();
                groups.push(Self::new(name.clone(), namespace, vec![migration]));
            }
        }
        groups
    }

    /// The watch on the namespace's pods, which every step between Planned and Rebound needs.
    pub fn watch(&self) -> Result<Arc<PodWatch>, Stop> {
        self.watch
            .clone()
            .ok_or_else(|| Stop::Repeat("the pods were not watched".into()))
    }

    /// Starts the watch, where there is none.
    pub async fn start_watch(&mut self, cluster: &Cluster) -> Result<Arc<PodWatch>, Stop> {
        if let Some(watch) = &self.watch {
            return Ok(watch.clone());
        }
        let ours = |m: &Migration| [m.staging_name(), m.anchor_name()];
        let movers = self.claims.iter().flat_map(|m| {
            let claim = &m.record.claim.name;
            ours(m).map(|name| (name, claim.clone()))
        });
        let shared = self.claims.iter().filter(|m| m.record.manifest.is_shared());
        let wanted = Wanted {
            movers: movers.collect(),
            shared: shared.map(|m| m.record.claim.name.clone()).collect(),
        };
        let watch = Arc::new(PodWatch::start(cluster, &self.namespace, wanted).await?);
        self.watch = Some(watch.clone());
        Ok(watch)
    }

    /// The phase of the claim that is furthest behind: the group's claims move together.
    pub fn behind(&self) -> Phase {
        self.claims
            .iter()
            .map(|claim| claim.record.phase)
            .min()
            .unwrap_or(Phase::Done)
    }

    /// The epoch under which the group's workloads are stopped: it grows when any claim's does.
    pub fn epoch(&self) -> u64 {
        let epochs = self.claims.iter().map(|claim| claim.record.epoch);
        epochs.max().unwrap_or_default()
    }

    /// Where the group's claims head for.
    pub fn headings(&self) -> Vec<Heading> {
        let mut all: Vec<Heading> = self
            .claims
            .iter()
            .map(|claim| claim.record.heading)
            .collect();
        all.dedup();
        all
    }

    /// Whether a pod may have run on a destination: the fence was, or may have been, opened for
    /// a claim that is there. Nothing goes back by itself from then on.
    pub fn is_open(&self) -> bool {
        self.claims.iter().map(|claim| &claim.record).any(|record| {
            record.heading == Heading::Destination
                && (record.phase > Phase::Rebound
                    || record.phase == Phase::Rebound && !record.fence.on)
        })
    }

    /// The claims that a step works on.
    pub fn at(&mut self, phase: Phase) -> impl Iterator<Item = &mut Migration> {
        self.claims
            .iter_mut()
            .filter(move |claim| claim.record.phase == phase)
    }

    /// How the group's workloads are frozen.
    pub fn freezings(&self) -> Vec<Freezing> {
        let all: BTreeSet<Freezing> = self
            .claims
            .iter()
            .flat_map(|claim| claim.record.freeze.workloads.iter().cloned())
            .collect();
        all.into_iter().collect()
    }

    /// Whether an anchor holds the destination of this claim.
    pub fn is_anchored(&self, claim: &str) -> bool {
        self.anchors.iter().any(|anchor| anchor.holds(claim))
    }

    /// Writes the failure into every record of the group.
    pub fn note_failure(&mut self, message: &str, at: Timestamp) {
        for claim in &mut self.claims {
            let phase = claim.record.phase;
            claim.record.failure = Some(Failure {
                phase,
                message: message.to_string(),
                at,
            });
        }
    }
}
