//! What is written on a source volume about the migration of its claim.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::order::PassReport;
use crate::phase::{Event, Heading, ImpossibleStep, Phase, transition};

mod freeze;
mod manifest;

pub use freeze::{Consumer, Freeze, Freezing, Frozen, Method, Workload};
pub use manifest::{ClaimManifest, Owner, Wishes};

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
    /// Groups of a lower wave move first.
    #[serde(default)]
    pub wave: i64,
    pub freeze: Freeze,
    /// The pods that mounted the claim when it was fenced.
    #[serde(default)]
    pub consumers: Vec<Consumer>,
    /// The passes while consumers ran; none where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
    /// The final pass.
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

impl Release {
    /// As "namespace/name".
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
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

/// What the warm passes over a claim did, all of them together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Warm {
    pub passes: u32,
    /// Those that the last pass found.
    pub files: u64,
    /// What was written.
    pub bytes: u64,
    pub seconds: f64,
    /// How long the last of them expected the next pass to take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_seconds: Option<f64>,
}

impl Warm {
    pub fn add(&mut self, pass: &PassReport) {
        self.passes += 1;
        self.files = pass.totals.files;
        self.bytes += pass.totals.bytes;
        self.seconds += pass.seconds;
        self.next_seconds = pass.next_seconds;
    }
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

#[cfg(test)]
mod tests;
