//! What is stopped for a claim, how, and how it was before.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Release;

/// How a group's consumers are stopped: workload by workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Freeze {
    pub workloads: Vec<Freezing>,
}

impl Freeze {
    pub fn all(&self) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().map(|freezing| &freezing.workload)
    }
}

/// How one workload is stopped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freezing {
    pub workload: Workload,
    pub method: Method,
    /// Only this pod of it, one ordinal of a StatefulSet; the others go on running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Method {
    /// Replicas go to 0 and come back.
    Scale,
    /// The spec is not touched: pods are deleted and their replacements refused.
    Hold,
    /// A CronJob or a Job makes no more pods; those that run are waited for.
    Suspend,
    /// A pod that nothing would make again: deleted, and made again from its own manifest.
    Recreate,
}

/// What owns consumers. The API's own words, so that it can be found whatever its kind is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// `apps/v1`; `v1` for the core group.
    pub api_version: String,
    pub kind: String,
    /// The plural of the kind, as it stands in URLs and admission requests.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Workload {
    /// The API group; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version
            .rsplit_once('/')
            .map_or("", |(group, _)| group)
    }
}

/// How a workload was before it was stopped: the value of its `pvmigrate.io/frozen` annotation.
/// Its presence also keeps another release away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Frozen {
    pub release: Release,
    pub run: String,
    pub epoch: u64,
    pub method: Method,
    /// How many replicas it had, where those were taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// What `spec.suspend` was, where it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
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

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}
