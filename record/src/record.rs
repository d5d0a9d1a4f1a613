//! What is written on a source volume about the migration of its claim.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::order::PassReport;
use crate::phase::{Event, Heading, ImpossibleStep, Phase, transition};

/// The version of the record's form that this program writes and reads.
pub const VERSION: u32 = 1;

/// The record of one claim. It outlives the claim, its namespace and the Helm release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub version: u32,
    pub release: Release,
    pub run: String,
    /// Grows with every Job that takes over and with every way back.
    pub epoch: u64,
    /// The pod of the Job that works on it, or did last.
    pub job: String,
    pub phase: Phase,
    #[serde(default)]
    pub heading: Heading,
    /// Intent, written before the fence is raised: the webhook reads only this.
    pub fence: Fence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    pub claim: ClaimRef,
    pub source_class: String,
    pub destination_class: String,
    pub source: Volume,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Volume>,
    pub manifest: ClaimManifest,
    /// Names the group: the same in all records of claims that move together.
    pub group: String,
    pub freeze: Freeze,
    /// The pods that mounted the claim when it was fenced.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<PassReport>,
    /// When the group's workloads were stopped, and when they were Ready again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// When each phase was first reached in this heading.
    #[serde(default)]
    pub times: BTreeMap<Phase, Timestamp>,
}

/// A Helm release: records of another one are respected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    pub on: bool,
    /// Grows with every record that is fenced, so that a webhook that has seen one generation
    /// has seen all before it. See `ARCHITECTURE.md`, "The fence".
    pub generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The migration failed; the claim is on its source.
    Failed,
    Aborted,
    RolledBack,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub uid: String,
    /// The reclaim policy before it was set to Retain.
    pub reclaim_policy: String,
}

/// What the claim is made again from, as it was when it was fenced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimManifest {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub owners: Vec<Owner>,
    pub access_modes: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: String,
    /// `spec.resources.requests.storage`, a Kubernetes quantity.
    pub storage: String,
    /// `status.capacity.storage`, a Kubernetes quantity.
    pub capacity: String,
}

impl ClaimManifest {
    /// Whether it is a raw block volume.
    pub fn is_block(&self) -> bool {
        self.volume_mode == "Block"
    }

    /// Whether many nodes may mount it at the same time.
    pub fn is_shared(&self) -> bool {
        let mut modes = self.access_modes.iter();
        modes.any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    }
}

/// An owner reference that is carried over to the new claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// How a group's consumers are stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    pub method: Method,
    pub workloads: Vec<Workload>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// Replicas go to 0 and come back.
    Scale,
    /// The spec is not touched: pods are deleted and their replacements refused.
    Hold,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// How a workload was before it was stopped: the value of its `pvmigrate.io/frozen` annotation.
/// Its presence also keeps another release away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frozen {
    pub release: Release,
    pub run: String,
    pub epoch: u64,
    pub replicas: i32,
    /// When it was stopped: the downtime is counted from here.
    pub at: Timestamp,
    /// A StatefulSet's `whenScaled`, where it was `Delete`: put back last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Consumer {
    pub name: String,
    pub uid: String,
    pub node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub phase: Phase,
    pub message: String,
    pub at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the record is not valid: {0}")]
    Form(#[from] serde_json::Error),
    #[error(
        "the record has version {0}, this program reads version {VERSION}: use the release of pvmigrate that wrote it"
    )]
    Version(u32),
}

impl Record {
    pub fn parse(json: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_str(json)?;
        if version != VERSION {
            return Err(Unreadable::Version(version));
        }
        Ok(serde_json::from_str(json)?)
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a record has only string keys")
    }

    /// Nothing was done yet but to write this record.
    pub fn is_untouched(&self) -> bool {
        self.phase == Phase::Planned
            && self.heading == Heading::Destination
            && self.destination.is_none()
            && !self.fence.on
    }

    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Moves the record on, at a time given by the caller. Turning back forgets the times of the
    /// phases that are no longer true.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<(), ImpossibleStep> {
        let (phase, heading) = transition(self.phase, self.heading, event)?;
        if phase < self.phase {
            self.times
                .retain(|reached, _| *reached <= phase || *reached == Phase::Frozen);
        }
        self.times.entry(phase).or_insert(now);
        (self.phase, self.heading) = (phase, heading);
        Ok(())
    }

    /// The volume that the claim heads for; none while its destination is not known.
    pub fn heading_volume(&self) -> Option<&Volume> {
        match self.heading {
            Heading::Destination => self.destination.as_ref(),
            Heading::Source => Some(&self.source),
        }
    }
}

impl std::fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn record() -> Record {
        Record {
            version: VERSION,
            release: Release {
                namespace: "ops".into(),
                name: "pvmigrate".into(),
            },
            run: "abc".into(),
            epoch: 1,
            job: "pvmigrate-x".into(),
            phase: Phase::Planned,
            heading: Heading::Destination,
            fence: Fence::default(),
            outcome: None,
            claim: ClaimRef {
                namespace: "default".into(),
                name: "data".into(),
                uid: "1".into(),
            },
            source_class: "a".into(),
            destination_class: "b".into(),
            source: Volume {
                name: "pv-1".into(),
                uid: "2".into(),
                reclaim_policy: "Delete".into(),
            },
            destination: None,
            manifest: ClaimManifest::default(),
            group: "default/data".into(),
            freeze: Freeze {
                method: Method::Scale,
                workloads: vec![],
            },
            consumers: vec![],
            pass: None,
            stopped: None,
            ready: None,
            failure: None,
            times: BTreeMap::new(),
        }
    }

    #[test]
    fn a_record_survives_the_annotation() {
        let record = record();
        assert_eq!(Record::parse(&record.to_json()).unwrap(), record);
    }

    #[test]
    fn a_record_of_another_version_is_named_not_guessed() {
        let json = record().to_json().replace("\"version\":1", "\"version\":9");
        let error = Record::parse(&json).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the record has version 9, this program reads version 1: use the release of pvmigrate that wrote it"
        );
    }

    #[test]
    fn resuming_keeps_the_moment_of_the_freeze_for_the_downtime() {
        let mut record = record();
        let at = |second| Timestamp::from_second(second).unwrap();
        for second in 0..5 {
            record.apply(Event::Advance, at(second)).unwrap();
        }
        assert_eq!(record.phase, Phase::Copied);
        record.apply(Event::Resume, at(9)).unwrap();
        assert_eq!(record.phase, Phase::Planned);
        assert_eq!(record.times.get(&Phase::Frozen), Some(&at(3)));
        assert_eq!(record.times.get(&Phase::Copied), None);
    }
}
