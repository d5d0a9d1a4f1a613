//! What a claim is made again from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
    /// What was wished to be otherwise on the destination.
    #[serde(skip_serializing_if = "Wishes::is_empty")]
    pub wishes: Wishes,
}

/// What a claim shall have on its destination, and not on its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Wishes {
    /// A Kubernetes quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access_modes: Vec<String>,
}

impl Wishes {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ClaimManifest {
    /// Whether it is a raw block volume.
    pub fn is_block(&self) -> bool {
        self.volume_mode == "Block"
    }

    /// Whether only one pod may use it at a time.
    pub fn is_for_one_pod(&self) -> bool {
        self.access_modes
            .iter()
            .any(|mode| mode == "ReadWriteOncePod")
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
