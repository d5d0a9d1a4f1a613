//! The objects that the fence is made of, as they shall be. Pure.
//!
//! Two layers. The policy runs in the API server: its parameters name what is fenced, so that
//! opening the fence is one small write that takes effect at once (a change of the policy itself
//! takes up to a second). The webhook has a memory and a better sentence.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference,
};
use pvmigrate_record::names;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::{Freezing, Method, Record, Release};

/// What a fence is like, whatever is fenced.
#[derive(Clone, Debug)]
pub struct Setting {
    pub release: Release,
    pub run: String,
    pub destination_class: String,
    /// The user name of the Job: its own requests are spared, but for its probes.
    pub job_user: String,
    pub webhook_service: String,
    pub cluster_owner: Option<OwnerReference>,
    pub namespaced_owner: Option<OwnerReference>,
}

/// Everything that the objects are made from.
#[derive(Clone, Debug)]
pub struct Scope {
    pub setting: Setting,
    /// Fenced claims, by namespace.
    pub claims: BTreeMap<String, BTreeSet<String>>,
    /// The same, and their staging claims, which are for nobody but the Job.
    pub ours: BTreeMap<String, BTreeSet<String>>,
    /// Where claims are still to be fenced: the policy covers these namespaces too, and refuses
    /// nothing there.
    pub expected: BTreeSet<String>,
    /// A claim that nobody has, by namespace and name, in the parameters of a fence that goes.
    pub sentinel: Option<(String, String)>,
    /// Sources and destinations of fenced claims.
    pub volumes: BTreeSet<String>,
    /// The StorageClasses that they move to.
    pub classes: BTreeSet<String>,
    /// Workloads that are, or are about to be, stopped.
    pub workloads: BTreeSet<Freezing>,
    /// The highest generation that is fenced: a webhook that has not seen it must not answer.
    pub generation: u64,
    /// A claim is, or will soon be, missing: uninstalling must not open the fence over it.
    pub missing: bool,
    /// The certificates of the webhook's CA, old and new.
    pub ca: Vec<u8>,
}

impl Scope {
    /// The fence over the claims of these records.
    pub fn of<'a>(setting: &Setting, fenced: impl Iterator<Item = &'a Record>, ca: &[u8]) -> Self {
        let mut scope = Self {
            setting: setting.clone(),
            claims: BTreeMap::new(),
            ours: BTreeMap::new(),
            expected: BTreeSet::new(),
            sentinel: None,
            volumes: BTreeSet::new(),
            classes: BTreeSet::new(),
            workloads: BTreeSet::new(),
            generation: 0,
            missing: false,
            ca: ca.to_vec(),
        };
        for record in fenced {
            scope.add(record);
        }
        scope
    }

    fn add(&mut self, record: &Record) {
        let claim = &record.claim;
        let staging = names::staging_object(&record.run, &claim.uid);
        let claims = self.claims.entry(claim.namespace.clone()).or_default();
        claims.insert(claim.name.clone());
        let ours = self.ours.entry(claim.namespace.clone()).or_default();
        ours.extend([claim.name.clone(), staging]);
        let volumes = std::iter::once(&record.source).chain(&record.destination);
        self.volumes.extend(volumes.map(|v| v.name.clone()));
        self.classes.insert(record.destination_class.clone());
        self.workloads.extend(record.freeze.workloads.clone());
        self.generation = self.generation.max(record.fence.generation);
        // From the phase before it on, so that the owners go while the mover ends.
        self.missing |= matches!(
            record.phase,
            Phase::Verified | Phase::Reserved | Phase::Vacated
        );
    }

    /// The workloads that are stopped in one of these ways.
    pub(super) fn stopped<'a>(
        &'a self,
        by: &'a [Method],
    ) -> impl Iterator<Item = &'a Freezing> + Clone {
        let workloads = self.workloads.iter();
        workloads.filter(|freezing| by.contains(&freezing.method))
    }

    pub(super) fn metadata(&self) -> ObjectMeta {
        let owner = self.setting.cluster_owner.iter();
        ObjectMeta {
            name: Some(names::fence_object(&self.setting.release)),
            labels: Some(self.labels()),
            owner_references: Some(owner.filter(|_| !self.missing).cloned().collect()),
            ..ObjectMeta::default()
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (names::RUN.into(), self.setting.run.clone()),
            (names::ROLE.into(), names::ROLE_FENCE.into()),
        ])
    }

    /// No namespace but those with a fenced claim is ever asked about.
    pub(super) fn namespaces(&self) -> LabelSelector {
        one_of(self.claims.keys().cloned().collect())
    }

    /// The same, and those that will have one in this run.
    pub(super) fn namespaces_of_the_run(&self) -> LabelSelector {
        let all: BTreeSet<String> = self.claims.keys().chain(&self.expected).cloned().collect();
        one_of(all.into_iter().collect())
    }

    /// The Job's own requests are spared, unless they carry this layer's probe mark. A deletion
    /// has no object.
    pub(super) fn not_spared(&self, layer: &str) -> MatchCondition {
        MatchCondition {
            name: "not-the-job".into(),
            expression: format!(
                "request.userInfo.username != '{}' || (object != null && object.metadata.?labels[?'{}'].orValue('') in ['{layer}', '{}'])",
                self.setting.job_user,
                names::PROBE,
                names::LAYERS,
            ),
        }
    }

    /// The parameters of the policy: annotations with the names of what is fenced, by namespace.
    ///
    /// On a ServiceAccount, because the API server itself follows those for as long as it runs. It
    /// follows a kind that only policies ask for until the last such policy is deleted, and then
    /// never again (kubernetes/kubernetes#130887): a second fence would find no parameters, or
    /// old ones.
    pub fn parameters(&self) -> ServiceAccount {
        let mut fenced = BTreeMap::new();
        for (namespace, claims) in &self.claims {
            let claims: Vec<&str> = claims.iter().map(String::as_str).collect();
            fenced.insert(format!("{}{namespace}", names::FENCED), claims.join("\n"));
            let volumes: Vec<&str> = self.volumes.iter().map(String::as_str).collect();
            let key = format!("{}{namespace}", names::FENCED_VOLUMES);
            fenced.insert(key, volumes.join("\n"));
        }
        if let Some((namespace, name)) = &self.sentinel {
            fenced.insert(format!("{}{namespace}", names::FENCED), name.clone());
        }
        for Freezing { workload, .. } in self.stopped(&[Method::Scale]) {
            let key = format!("{}{}", names::STOPPED, workload.namespace);
            let lines: &mut String = fenced.entry(key).or_default();
            let separator = if lines.is_empty() { "" } else { "\n" };
            let (group, resource, name) = (workload.group(), &workload.resource, &workload.name);
            *lines = format!("{lines}{separator}{group}/{resource}/{name}");
        }
        let owner = self.setting.namespaced_owner.iter();
        ServiceAccount {
            metadata: ObjectMeta {
                name: Some(names::fence_claims(&self.setting.release)),
                namespace: Some(self.setting.release.namespace.clone()),
                labels: Some(self.labels()),
                annotations: Some(fenced),
                owner_references: Some(owner.filter(|_| !self.missing).cloned().collect()),
                ..ObjectMeta::default()
            },
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }
}

fn one_of(namespaces: Vec<String>) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: "kubernetes.io/metadata.name".into(),
            operator: "In".into(),
            values: Some(namespaces),
        }]),
        match_labels: None,
    }
}

#[cfg(test)]
pub mod tests;
