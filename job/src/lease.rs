//! The Lease that lets one Job of a release work at a time.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use pvmigrate_record::names;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::pods;
use crate::stop::Stop;

/// A holder that has not renewed for this long is gone.
const DURATION: Duration = Duration::from_secs(15);
/// So long before others may work no write of ours begins any more.
const MARGIN: Duration = Duration::from_secs(2);
const RENEW: Duration = Duration::from_secs(5);
/// A holder that is seen to renew for this long is at work, and this Job is one too many.
const PATIENCE: Duration = Duration::from_secs(20);
const SAY_EVERY: Duration = Duration::from_secs(10);
/// The label that a Job gives its pods.
pub const JOB_LABEL: &str = "batch.kubernetes.io/job-name";
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What came of asking for the Lease.
pub enum Asked {
    Held(Box<Held>),
    /// Somebody else holds it, and renews it.
    Busy(String),
}

/// A held Lease.
#[derive(Clone)]
pub struct Held {
    cluster: Cluster,
    api: Api<Lease>,
    name: String,
    holder: String,
}

/// Waits for the Lease for as long as its holder may be gone.
pub async fn acquire(
    cluster: &Cluster,
    config: &Config,
    owner: Option<OwnerReference>,
) -> Result<Asked, Stop> {
    let api: Api<Lease> = cluster.namespaced(&config.release_namespace);
    let name = names::lease(&config.release);
    let held = Held {
        cluster: cluster.clone(),
        api: api.clone(),
        name: name.clone(),
        holder: config.pod.clone(),
    };
    let wanted = Lease {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: Some(config.release_namespace.clone()),
            owner_references: Some(owner.into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec::default()),
    };
    // What counts is that it was not renewed while we looked: clocks of two nodes may differ.
    let mut seen: Option<(Option<MicroTime>, Instant)> = None;
    let mut first_seen: Option<Instant> = None;
    let mut said: Option<Instant> = None;
    loop {
        let lease = cluster.create(&api, &wanted).await?;
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec
            .holder_identity
            .clone()
            .filter(|holder| !holder.is_empty());
        let renewed = spec.renew_time.clone();
        if !matches!(&seen, Some((time, _)) if *time == renewed) {
            seen = Some((renewed, Instant::now()));
        }
        let is_stale = seen
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() > DURATION);
        match holder {
            Some(other) if other != held.holder && !is_stale => {
                let started = *first_seen.get_or_insert_with(Instant::now);
                match relation(cluster, config, &other).await {
                    Relation::Ended => {
                        if held.renew(lease).await?.is_some() {
                            return Ok(Asked::Held(Box::new(held)));
                        }
                    }
                    Relation::Other if started.elapsed() > PATIENCE => {
                        return Ok(Asked::Busy(other));
                    }
                    Relation::SameJob | Relation::Other => {}
                }
                if said.is_none_or(|last| last.elapsed() > SAY_EVERY) {
                    said = Some(Instant::now());
                    tracing::info!(holder = %other, seconds = started.elapsed().as_secs(), "another pod holds the Lease; waiting for it to end or to fall silent");
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            _ => {
                if held.renew(lease).await?.is_some() {
                    return Ok(Asked::Held(Box::new(held)));
                }
            }
        }
    }
}

impl Held {
    /// Renews for as long as the Lease is ours; returns when it no longer is, or could not be
    /// renewed in time.
    pub async fn keep(self) -> String {
        let mut renewed = Instant::now();
        // As it was written last: if somebody else writes it, the next write meets its precondition.
        let mut known: Option<Lease> = None;
        loop {
            tokio::time::sleep(RENEW).await;
            let state = known.take();
            let outcome = tokio::time::timeout(RENEW, async {
                let lease = match state {
                    Some(lease) => Some(lease),
                    None => self.cluster.get(&self.api, &self.name).await?,
                };
                match lease {
                    Some(lease) if is_held_by(&lease, &self.holder) => self.renew(lease).await,
                    _ => Ok(None),
                }
            })
            .await;
            match outcome {
                Ok(Ok(Some(lease))) => (known, renewed) = (Some(lease), Instant::now()),
                Ok(Ok(None)) => return "another Job has taken the Lease".into(),
                Ok(Err(_)) | Err(_) if renewed.elapsed() < DURATION => {}
                Ok(Err(stop)) => return format!("the Lease could not be renewed: {stop}"),
                Err(_) => return "the Lease could not be renewed in time".into(),
            }
        }
    }

    /// Lets the next Job begin at once.
    pub async fn release(&self) {
        let released = async {
            let Some(lease) = self.cluster.get(&self.api, &self.name).await? else {
                return Ok(());
            };
            if !is_held_by(&lease, &self.holder) {
                return Ok(());
            }
            // Not through the gate, which is shut by now; the precondition is the same.
            let patch = json!({
                "metadata": {"uid": lease.uid(), "resourceVersion": lease.resource_version()},
                "spec": {"holderIdentity": "", "renewTime": null},
            });
            let params = PatchParams::default();
            let patch = Patch::Merge(&patch);
            self.api
                .patch(&self.name, &params, &patch)
                .await
                .map(|_| ())
                .map_err(Stop::from)
        };
        if let Err::<(), Stop>(stop) = released.await {
            tracing::warn!(why = %stop, "the Lease could not be given back; it ends by itself");
        }
    }

    /// Writes our name, and returns what was written; none if somebody else was faster.
    async fn renew(&self, lease: Lease) -> Result<Option<Lease>, Stop> {
        let asked = Instant::now();
        let before = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone());
        let patch = json!({"spec": {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": DURATION.as_secs(),
            "renewTime": MicroTime(Timestamp::now()),
        }});
        let taken = self
            .cluster
            .update(&self.api, lease, |state| {
                let holder = state
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.holder_identity.clone());
                if holder != before && holder.as_deref() != Some(&self.holder) {
                    return Err(Stop::Superseded("the Lease".into()));
                }
                Ok(Some(patch.clone()))
            })
            .await;
        match taken {
            Ok(written) => {
                self.cluster.gate().open_until(asked + DURATION - MARGIN);
                Ok(Some(written))
            }
            Err(Stop::Superseded(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

enum Relation {
    /// Its kubelet has reported it as ended: nobody has to fall silent.
    Ended,
    /// A pod of our own Job, on a node that was lost to the API server: as long as it renews it
    /// does our work, and this Job must not fail for that.
    SameJob,
    Other,
}

/// What the holder is to us. A pod that is not there proves nothing: it may still run on a node
/// that is lost.
async fn relation(cluster: &Cluster, config: &Config, holder: &str) -> Relation {
    let api = cluster.namespaced::<Pod>(&config.release_namespace);
    match cluster.get(&api, holder).await {
        Ok(Some(pod)) if pods::has_ended(&pod) => Relation::Ended,
        Ok(Some(pod)) if pod.labels().get(JOB_LABEL) == Some(&config.job) => Relation::SameJob,
        _ => Relation::Other,
    }
}

fn is_held_by(lease: &Lease, holder: &str) -> bool {
    lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.as_deref())
        == Some(holder)
}
