//! The fence of a release: raised claim by claim, proved, and taken down when none is left.
//!
//! ```text
//! raise   records say `fence: on`  →  parameters, policy, binding, webhook  →  proof
//! lower   records say `fence: off` →  parameters, webhook                   →  proof that it is open
//! tidy    policy and binding narrowed or removed, after the thaw
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, PostParams};
use pvmigrate_record::names;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::{Record, Workload};
use tokio::sync::{Mutex, MutexGuard};

use crate::cluster::{Cluster, retried};
use crate::config::Config;
use crate::fence::objects::Scope;
use crate::stop::Stop;

mod apply;
pub mod objects;
mod policy;
pub mod probe;
mod webhook;

/// How long the webhook's Secret may be missing: its pods make it when they start.
const CA_LIMIT: Duration = Duration::from_secs(120);

pub struct Fence {
    cluster: Cluster,
    config: Config,
    job_user: String,
    cluster_owner: Option<OwnerReference>,
    namespaced_owner: Option<OwnerReference>,
    state: Mutex<State>,
    generations: Mutex<u64>,
}

/// What the fence has been made to say. Groups change it one at a time.
#[derive(Default)]
struct State {
    fenced: BTreeMap<(String, String), Fenced>,
    ca: Vec<u8>,
    applied: Option<Scope>,
}

struct Fenced {
    generation: u64,
    /// The claim may be missing: nothing may collect the fence.
    missing: bool,
    workloads: Vec<Workload>,
}

impl Fence {
    pub async fn new(
        cluster: &Cluster,
        config: &Config,
        cluster_owner: Option<OwnerReference>,
        namespaced_owner: Option<OwnerReference>,
    ) -> Result<Self, Stop> {
        let api: Api<SelfSubjectReview> = cluster.all();
        let review = retried(|| async {
            api.create(&PostParams::default(), &SelfSubjectReview::default())
                .await
        })
        .await?;
        let user = review
            .status
            .and_then(|status| status.user_info)
            .and_then(|user| user.username);
        let job_user =
            user.ok_or_else(|| Stop::Api("the API server does not say who this Job is".into()))?;
        Ok(Self {
            cluster: cluster.clone(),
            config: config.clone(),
            job_user,
            cluster_owner,
            namespaced_owner,
            state: Mutex::default(),
            generations: Mutex::default(),
        })
    }

    /// Learns of the claims that an earlier Job fenced, and of the highest generation ever given.
    pub async fn learn(&self, records: &[Record]) {
        let mut state = self.state.lock().await;
        let mut highest = self.generations.lock().await;
        for record in records {
            *highest = record.fence.generation.max(*highest);
            state.note(record);
        }
    }

    /// The last generation given. Whoever holds it may give the next one, and has to write that
    /// record before letting go: they grow in the order in which records are written, so a
    /// webhook that has seen one has seen all before it.
    pub async fn generations(&self) -> MutexGuard<'_, u64> {
        self.generations.lock().await
    }

    /// Puts both layers in force for these records, which already say so. Not proved yet.
    pub async fn raise(&self, records: &[&Record]) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        if state.ca.is_empty() {
            state.ca = self.ca().await?;
        }
        for record in records {
            state.note(record);
        }
        self.apply(&mut state).await
    }

    /// Remembers a record's new phase; what follows from it is applied with the next change.
    pub async fn note(&self, record: &Record) {
        self.state.lock().await.note(record);
    }

    /// Opens the fence for these records, which already say so, by the writes that are in force at
    /// once. A change of the policy takes longer, and is left to [`tidy`](Self::tidy).
    pub async fn lower(&self, records: &[&Record]) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        for record in records {
            let claim = &record.claim;
            state
                .fenced
                .remove(&(claim.namespace.clone(), claim.name.clone()));
        }
        let scope = self.scope(&state);
        tokio::try_join!(self.narrow_parameters(&scope), self.narrow_webhook(&scope))?;
        Ok(())
    }

    /// Narrows the fence to the claims that are still fenced, or takes it down.
    pub async fn tidy(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        if state.fenced.is_empty() {
            self.take_down(&mut state).await
        } else {
            self.apply(&mut state).await
        }
    }

    /// Puts what an earlier Job has left in order before anything else is done: a fence that lacks
    /// a part would refuse even this Job's own claims.
    pub async fn settle(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        if !state.fenced.is_empty() {
            state.ca = self.ca().await?;
            return self.apply(&mut state).await;
        }
        let name = names::fence_object(&self.config.release());
        let policies = self.cluster.all::<ValidatingAdmissionPolicy>();
        if self.cluster.get(&policies, &name).await?.is_some() {
            self.take_down(&mut state).await?;
        }
        Ok(())
    }

    async fn apply(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Stop> {
        let scope = self.scope(state);
        if state.applied.as_ref() == Some(&scope) {
            return Ok(());
        }
        // The parameters first: a policy whose parameters are missing refuses everything. The
        // policy before its binding: the API server looks it up to see who may bind it.
        self.put_parameters(&scope).await?;
        let policy = async {
            self.put(scope.policy()).await?;
            self.put(scope.binding()).await
        };
        tokio::try_join!(policy, self.put(scope.webhook()))?;
        state.applied = Some(scope);
        Ok(())
    }

    async fn take_down(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Stop> {
        let name = names::fence_object(&self.config.release());
        // The binding first: without it the policy does nothing, and needs no parameters.
        self.remove(
            &self.cluster.all::<ValidatingAdmissionPolicyBinding>(),
            &name,
        )
        .await?;
        tokio::try_join!(
            async {
                self.remove(&self.cluster.all::<ValidatingWebhookConfiguration>(), &name)
                    .await
            },
            async {
                self.remove(&self.cluster.all::<ValidatingAdmissionPolicy>(), &name)
                    .await
            },
        )?;
        let parameters = names::fence_claims(&self.config.release());
        self.remove(&self.parameters(), &parameters).await?;
        state.applied = None;
        Ok(())
    }

    fn scope(&self, state: &State) -> Scope {
        let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (namespace, name) in state.fenced.keys() {
            claims
                .entry(namespace.clone())
                .or_default()
                .insert(name.clone());
        }
        let owned = !state.fenced.values().any(|fenced| fenced.missing);
        Scope {
            release: self.config.release(),
            run: self.config.run(),
            destination_class: self.config.dest_sc.clone(),
            claims,
            workloads: state
                .fenced
                .values()
                .flat_map(|f| f.workloads.clone())
                .collect(),
            generation: state
                .fenced
                .values()
                .map(|fenced| fenced.generation)
                .max()
                .unwrap_or_default(),
            job_user: self.job_user.clone(),
            webhook_service: self.config.webhook_service.clone(),
            ca: state.ca.clone(),
            cluster_owner: self.cluster_owner.clone().filter(|_| owned),
            namespaced_owner: self.namespaced_owner.clone().filter(|_| owned),
        }
    }

    /// The certificate authority of the webhook, which its pods make when they first start.
    async fn ca(&self) -> Result<Vec<u8>, Stop> {
        let api = self
            .cluster
            .namespaced::<Secret>(&self.config.release_namespace);
        let name = &self.config.ca_secret;
        let started = tokio::time::Instant::now();
        loop {
            let secret = self.cluster.get(&api, name).await?;
            if let Some(ca) = secret
                .and_then(|s| s.data)
                .and_then(|mut data| data.remove("ca.crt"))
            {
                return Ok(ca.0);
            }
            if started.elapsed() > CA_LIMIT {
                return Err(Stop::refused(format!(
                    "waited {} s for the webhook to make its CA, Secret {}/{name}, in vain: see kubectl -n {} get pods",
                    CA_LIMIT.as_secs(),
                    self.config.release_namespace,
                    self.config.release_namespace
                )));
            }
            tracing::info!(secret = %name, "waiting for the webhook to make its CA");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

impl State {
    /// Remembers a record that is fenced.
    fn note(&mut self, record: &Record) {
        if !record.fence.on {
            return;
        }
        let missing = matches!(record.phase, Phase::Reserved | Phase::Vacated);
        let claim = (record.claim.namespace.clone(), record.claim.name.clone());
        self.fenced.insert(
            claim,
            Fenced {
                generation: record.fence.generation,
                missing,
                workloads: record.freeze.workloads.clone(),
            },
        );
    }
}

/// Whether this process runs in a pod: only there are other API servers reachable by address.
pub fn in_cluster() -> bool {
    Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
}
