//! What is known of the fence while it stands: what is fenced, and the objects as they were made.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use pvmigrate_record::names;
use pvmigrate_record::record::Record;
use tokio::time::Instant;

use super::apply::Made;

/// What the fence has been made to say. Groups change it one at a time.
#[derive(Default)]
pub struct State {
    pub fenced: BTreeMap<(String, String), Fenced>,
    pub ca: Vec<u8>,
    pub standing: Standing,
    /// When the policy was removed last.
    pub taken_down: Option<Instant>,
    /// How often something had to be put back.
    pub repairs: u64,
    /// The API servers that were asked for the last proof, and when they were looked up.
    pub servers: Vec<Option<String>>,
    pub looked_up: Option<Instant>,
    /// It was without an owner, and stays so until it has been empty for a while: the owners of its
    /// four objects are not taken off and put back for each group.
    pub ownerless: bool,
    /// Since when nothing is fenced.
    pub emptied: Option<Instant>,
    /// Of a fence that goes: as the last record that it was opened for, with a claim that nobody has.
    pub sentinel: Option<Record>,
}

pub struct Fenced {
    pub record: Record,
    /// How many repairs there had been when its last proof began.
    pub proved: Option<u64>,
}

/// The objects as they were made; none where there is to be none.
#[derive(Default)]
pub struct Standing {
    pub parameters: Option<Made<ServiceAccount>>,
    pub policy: Option<Made<ValidatingAdmissionPolicy>>,
    pub binding: Option<Made<ValidatingAdmissionPolicyBinding>>,
    pub webhook: Option<Made<ValidatingWebhookConfiguration>>,
}

pub fn key(record: &Record) -> (String, String) {
    let claim = &record.claim;
    (claim.namespace.clone(), claim.name.clone())
}

pub fn sentinel(record: &Record) -> Record {
    let mut sentinel = record.clone();
    sentinel.claim.name = names::fence_sentinel(&record.run);
    sentinel
}

impl State {
    /// Remembers a record that is fenced.
    pub fn note(&mut self, record: &Record) {
        if !record.fence.on {
            return;
        }
        let before = self.fenced.get(&key(record));
        let same = before.filter(|f| f.record.fence.generation == record.fence.generation);
        let fenced = Fenced {
            proved: same.and_then(|fenced| fenced.proved),
            record: record.clone(),
        };
        self.fenced.insert(key(record), fenced);
        self.emptied = None;
        self.sentinel = None;
    }
}
