//! One claim's migration and its record, and the group that moves as one.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::names;
use pvmigrate_record::order::Order;
use pvmigrate_record::phase::{Event, Heading};
use pvmigrate_record::record::{Record, Volume};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::mover::orders::Kept;
use crate::observe::record_of;
use crate::stop::Stop;

mod group;

pub use group::Group;

/// A claim under migration: its record, and the last seen state of the volume that holds it.
#[derive(Clone, Debug)]
pub struct Migration {
    pub record: Record,
    pub volume: PersistentVolume,
    /// The last seen state of the destination, once there is one.
    pub destination_state: Option<PersistentVolume>,
    /// What its mover does when it is asked to end. Not recorded: a Job that takes over repeats
    /// the copy.
    pub parting: Option<Order>,
    /// The log of its mover, where it was heard last.
    pub log: Kept,
}

impl Migration {
    pub fn new(record: Record, volume: PersistentVolume) -> Self {
        Self {
            record,
            volume,
            destination_state: None,
            parting: None,
            log: Kept::default(),
        }
    }

    /// The name of the staging claim and of the mover.
    pub fn staging_name(&self) -> String {
        names::staging_object(&self.record.run, &self.record.claim.uid)
    }

    /// The name of the anchor that is made for this claim, if it is the first of those on its node.
    pub fn anchor_name(&self) -> String {
        names::anchor_object(&self.record.run, &self.record.claim.uid)
    }

    pub fn claims(&self, cluster: &Cluster) -> Api<PersistentVolumeClaim> {
        cluster.namespaced(&self.record.claim.namespace)
    }

    pub fn pods(&self, cluster: &Cluster) -> Api<Pod> {
        cluster.namespaced(&self.record.claim.namespace)
    }

    pub fn destination(&self) -> Result<&Volume, Stop> {
        self.record.destination.as_ref().ok_or_else(|| {
            Stop::refused(format!(
                "the record of claim {} names no destination",
                self.record.claim
            ))
        })
    }

    /// The destination, which is known by its UID and nothing else.
    pub async fn destination_volume(&self, cluster: &Cluster) -> Result<PersistentVolume, Stop> {
        match &self.destination_state {
            Some(seen) => Ok(cluster.volumes_seen().await?.newest(seen.clone())),
            None => volume(cluster, self.destination()?).await,
        }
    }

    /// The volume that the claim shall be bound to in the end.
    pub async fn heading_state(&self, cluster: &Cluster) -> Result<PersistentVolume, Stop> {
        match self.record.heading {
            Heading::Destination => self.destination_volume(cluster).await,
            Heading::Source => Ok(cluster.volumes_seen().await?.newest(self.volume.clone())),
        }
    }

    /// That volume was written.
    pub fn set_heading_state(&mut self, state: PersistentVolume) {
        match self.record.heading {
            Heading::Destination => self.destination_state = Some(state),
            Heading::Source => self.volume = state,
        }
    }

    /// The claim as it is seen; none if it does not exist.
    pub async fn claim_seen(
        &self,
        cluster: &Cluster,
    ) -> Result<Option<PersistentVolumeClaim>, Stop> {
        let claim = &self.record.claim;
        Ok(cluster
            .claims_seen(&claim.namespace)
            .await?
            .get(&claim.name))
    }

    /// Writes the record, and `with` it what else of the source volume changes in the same moment.
    ///
    /// Fails with [`Stop::Superseded`] if a newer Job has written its epoch.
    pub async fn save(&mut self, cluster: &Cluster, with: Value) -> Result<(), Stop> {
        let ours = (self.record.epoch, self.record.job.clone());
        self.write(cluster, with, move |stored| {
            stored.is_none_or(|r| (r.epoch, r.job.clone()) == ours)
        })
        .await
    }

    /// Writes a new epoch, so that nothing that an older Job decided still applies.
    pub async fn take_over(&mut self, cluster: &Cluster, job: &str) -> Result<(), Stop> {
        let before = (self.record.epoch, self.record.job.clone());
        let after = (self.record.epoch + 1, job.to_string());
        (self.record.epoch, self.record.job) = after.clone();
        self.parting = None;
        self.write(cluster, json!({}), move |stored| {
            stored.is_none_or(|r| {
                let stored = (r.epoch, r.job.clone());
                stored == before || stored == after
            })
        })
        .await
    }

    async fn write(
        &mut self,
        cluster: &Cluster,
        with: Value,
        applies: impl Fn(Option<&Record>) -> bool + Send + Sync,
    ) -> Result<(), Stop> {
        let record = &self.record;
        let json = record.to_json();
        let api = cluster.all::<PersistentVolume>();
        let newest = cluster.volumes_seen().await?.newest(self.volume.clone());
        self.volume = cluster
            .update(&api, newest, |state| {
                let stored = record_of(state)
                    .transpose()
                    .map_err(|error| Stop::refused(error.to_string()))?;
                // A finished record is history: another migration of this volume may follow it.
                let stored =
                    stored.filter(|stored| !stored.is_finished() || stored.run == record.run);
                if !applies(stored.as_ref()) {
                    return Err(Stop::Superseded(format!("claim {}", record.claim)));
                }
                let mut patch = with.clone();
                patch["metadata"]["annotations"][names::RECORD] = json!(json);
                patch["metadata"]["labels"][names::RUN] = json!(record.run);
                patch["metadata"]["labels"][names::ROLE] = json!(names::ROLE_SOURCE);
                Ok(Some(patch))
            })
            .await?;
        Ok(())
    }

    /// Writes the epoch into the claim, where it exists: a delete that an older Job decided no
    /// longer applies, by its resourceVersion or by [`still_ours`](Self::still_ours).
    pub async fn mark_claim(&self, cluster: &Cluster) -> Result<(), Stop> {
        let claims = self.claims(cluster);
        let Some(claim) = cluster.get(&claims, &self.record.claim.name).await? else {
            return Ok(());
        };
        let patch =
            json!({"metadata": {"annotations": {names::EPOCH: self.record.epoch.to_string()}}});
        cluster
            .update(&claims, claim, |claim| {
                self.still_ours(claim)?;
                Ok(Some(patch.clone()))
            })
            .await?;
        Ok(())
    }

    /// Takes the epoch off the claim, where a way back or a takeover has left it.
    pub async fn unmark_claim(&self, cluster: &Cluster) -> Result<(), Stop> {
        let claims = self.claims(cluster);
        let Some(claim) = self.claim_seen(cluster).await? else {
            return Ok(());
        };
        let patch = json!({"metadata": {"annotations": {names::EPOCH: null}}});
        cluster
            .update(&claims, claim, |claim| {
                self.still_ours(claim)?;
                Ok(claim
                    .annotations()
                    .contains_key(names::EPOCH)
                    .then(|| patch.clone()))
            })
            .await?;
        Ok(())
    }

    /// Fails if a newer Job has marked the claim.
    pub fn still_ours(&self, claim: &PersistentVolumeClaim) -> Result<(), Stop> {
        let epoch = claim
            .annotations()
            .get(names::EPOCH)
            .and_then(|epoch| epoch.parse::<u64>().ok());
        if epoch.is_some_and(|epoch| epoch > self.record.epoch) {
            return Err(Stop::Superseded(format!("claim {}", self.record.claim)));
        }
        Ok(())
    }

    /// The next phase's fact is true: says so in the record.
    pub async fn advance(&mut self, cluster: &Cluster) -> Result<(), Stop> {
        self.advance_with(cluster, json!({})).await
    }

    pub async fn advance_with(&mut self, cluster: &Cluster, with: Value) -> Result<(), Stop> {
        self.record.apply(Event::Advance, Timestamp::now())?;
        self.save(cluster, with).await?;
        self.say_phase();
        Ok(())
    }

    /// The next phase's fact is true, and is saved with the one after it: a Job that dies in
    /// between makes it true again, and finds it so.
    pub fn reach(&mut self) -> Result<(), Stop> {
        self.record.apply(Event::Advance, Timestamp::now())?;
        self.say_phase();
        Ok(())
    }

    fn say_phase(&self) {
        tracing::info!(claim = %self.record.claim, phase = ?self.record.phase, "phase reached");
    }
}

/// A volume by its name and UID.
pub async fn volume(cluster: &Cluster, wanted: &Volume) -> Result<PersistentVolume, Stop> {
    let found = cluster
        .get(&cluster.all::<PersistentVolume>(), &wanted.name)
        .await?;
    found
        .filter(|volume| volume.uid().as_deref() == Some(wanted.uid.as_str()))
        .ok_or_else(|| {
            Stop::refused(format!(
                "volume {} (UID {}) does not exist any more",
                wanted.name, wanted.uid
            ))
        })
}

#[cfg(test)]
mod tests;
