//! The fence of a release: raised claim by claim, proved, kept as it is, and taken down when none
//! is left.
//!
//! ```text
//! raise   records say `fence: on`  →  parameters, policy, binding, webhook  →  proof
//! repair  what somebody changes is put back  →  proof again, before anything counts as Frozen
//! lower   records say `fence: off` →  parameters, webhook                   →  proof that it is open
//! leave   policy and binding removed beside the last thaw; tidy: or narrowed, after it
//! close   parameters removed, once no API server can ask for them any more
//! ```

use std::path::Path;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, PostParams};
use pvmigrate_record::record::Record;
use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::Instant;

use crate::cluster::{Cluster, retried};
use crate::config::Config;
use crate::fence::expected::Expectations;
use crate::fence::objects::{Scope, Setting};
use crate::stop::Stop;

mod apply;
mod ca;
mod cause;
mod cel;
mod down;
mod expected;
mod objects;
mod policy;
mod probe;
mod proof;
mod repair;
mod state;
mod webhook;

pub use expected::Expected;
use state::{Standing, State, key, sentinel};

pub struct Fence {
    cluster: Cluster,
    config: Config,
    setting: Setting,
    /// Whether the webhook is one of its layers.
    has_webhook: bool,
    state: Mutex<State>,
    generations: Mutex<u64>,
    /// Whether there is a fence to be kept.
    stands: watch::Sender<bool>,
    /// The groups that are still to be fenced.
    expected: Expectations,
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
            has_webhook: has_webhook(cluster, config).await?,
            setting: Setting {
                release: config.release(),
                run: config.run(),
                destination_class: config.dest_sc.clone(),
                job_user,
                webhook_service: config.webhook_service.clone(),
                cluster_owner,
                namespaced_owner,
            },
            state: Mutex::default(),
            generations: Mutex::default(),
            stands: watch::Sender::new(false),
            expected: Expectations::default(),
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
        if !self.has_webhook {
            tracing::warn!(
                "FENCED WITHOUT THE WEBHOOK: new pods and claims are refused, but nobody is kept from scaling or deleting what is stopped, or from deleting, resizing or snapshotting a claim"
            );
        } else if state.ca.is_empty() {
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
            state.fenced.remove(&key(record));
        }
        if state.fenced.is_empty() {
            state.emptied = Some(Instant::now());
            let last = records.last().filter(|_| !self.expected.any());
            state.sentinel = last.map(|record| sentinel(record));
        }
        let scope = self.scope(&state);
        let Standing {
            parameters,
            webhook,
            ..
        } = &mut state.standing;
        // What does not stand needs no opening.
        tokio::try_join!(
            async {
                match parameters {
                    Some(_) => self.put(parameters, scope.parameters()).await,
                    None => Ok(()),
                }
            },
            async {
                match webhook {
                    Some(_) if scope.claims.is_empty() => self.remove(webhook).await,
                    Some(_) => self.put(webhook, scope.webhook()).await,
                    None => Ok(()),
                }
            }
        )?;
        Ok(())
    }

    /// Puts what an earlier Job has left in order before anything else is done: a fence that lacks
    /// a part would refuse even this Job's own claims.
    pub async fn settle(&self) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        if state.fenced.is_empty() {
            self.take_down(&mut state).await?;
            drop(state);
            return self.close().await;
        }
        if self.has_webhook {
            state.ca = self.ca().await?;
        }
        self.apply(&mut state).await
    }

    async fn apply(&self, state: &mut State) -> Result<(), Stop> {
        let scope = self.scope(state);
        state.ownerless = scope.missing;
        let standing = &mut state.standing;
        self.stands.send_replace(true);
        // The parameters first: a policy whose parameters are missing refuses everything. The
        // policy before its binding: the API server looks it up to see who may bind it.
        self.put(&mut standing.parameters, scope.parameters())
            .await?;
        let policy = async {
            self.put(&mut standing.policy, scope.policy()).await?;
            self.put(&mut standing.binding, scope.binding()).await
        };
        let webhook = async {
            if self.has_webhook {
                self.put(&mut standing.webhook, scope.webhook()).await
            } else {
                // One that an earlier Job has made would refuse whatever nobody answers for.
                self.remove(&mut standing.webhook).await
            }
        };
        tokio::try_join!(policy, webhook)?;
        Ok(())
    }

    fn scope(&self, state: &State) -> Scope {
        let fenced = state.fenced.values().map(|fenced| &fenced.record);
        let mut scope = Scope::of(&self.setting, fenced, &state.ca);
        scope.expected = self.expected.namespaces();
        scope.missing |= state.ownerless;
        let sentinel = state.sentinel.as_ref().map(key);
        scope.sentinel = sentinel.filter(|_| state.fenced.is_empty());
        scope
    }
}

/// Outside the cluster there may be no chart, and so no webhook; in it, one that is missing is a
/// failure that the proof explains.
async fn has_webhook(cluster: &Cluster, config: &Config) -> Result<bool, Stop> {
    if config.no_fence || in_cluster() {
        return Ok(!config.no_fence);
    }
    let api = cluster.namespaced::<Service>(&config.release_namespace);
    let service = cluster.get(&api, &config.webhook_service).await?;
    Ok(service.is_some())
}

/// Whether this process runs in a pod: only there are other API servers reachable by address.
pub fn in_cluster() -> bool {
    Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
}
