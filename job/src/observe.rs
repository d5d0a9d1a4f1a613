//! What the cluster holds, read once before anything is decided. Of each object only what plan and
//! preflight look at is kept.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::record::{Record, Unreadable, Workload};

use crate::cluster::{Cluster, Object, retried};
use crate::config::{Config, class_of, class_of_volume};
use crate::mover::Placement;
use crate::pods::mounted_claims;
use crate::stop::Stop;

mod budgets;
mod custom;
mod scalers;
mod surroundings;
mod workloads;

pub use budgets::Budget;
pub use custom::served;
pub use scalers::Scaler;
#[cfg(test)]
pub use surroundings::HostPath;
pub use surroundings::Surroundings;
pub use workloads::{ObservedWorkload, is_built_in};

/// Everything that plan and preflight look at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The API server's version, as (major, minor).
    pub version: (u32, u32),
    pub classes: BTreeMap<String, StorageClass>,
    pub namespaces: BTreeMap<String, Namespace>,
    /// By name: those of the source class, those behind the claims, and those with a record.
    pub volumes: BTreeMap<String, PersistentVolume>,
    /// Of the source class, of none, or named in the question.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Those that mount claims.
    pub pods: Vec<ObservedPod>,
    pub workloads: Vec<ObservedWorkload>,
    pub scalers: Vec<Scaler>,
    pub budgets: Vec<Budget>,
    pub surroundings: Surroundings,
}

/// A pod that mounts claims.
#[derive(Clone, Debug)]
pub struct ObservedPod {
    /// The pod, as a record names what is frozen.
    pub workload: Workload,
    pub node: Option<String>,
    /// Where it may run.
    pub placement: Placement,
    pub claims: BTreeSet<String>,
    pub labels: BTreeMap<String, String>,
    /// What controls it.
    pub controller: Option<OwnerReference>,
    /// It will run nothing any more.
    pub completed: bool,
    /// The value of its `pvmigrate.io/wave`.
    pub wave: Option<String>,
}

impl Observed {
    pub fn volume_of(&self, claim: &PersistentVolumeClaim) -> Option<&PersistentVolume> {
        self.volumes
            .get(claim.spec.as_ref()?.volume_name.as_deref()?)
    }

    /// All volumes of the cluster that are known, whoever has them.
    pub fn every_volume(&self) -> impl Iterator<Item = &PersistentVolume> {
        let others = self.surroundings.volumes.iter();
        let others = others.filter(|(name, _)| !self.volumes.contains_key(*name));
        self.volumes
            .values()
            .chain(others.map(|(_, volume)| volume))
    }

    /// The volume of a claim of any class, by its name.
    pub fn volume_named(&self, namespace: &str, claim: &str) -> Option<&PersistentVolume> {
        let key = (namespace.to_string(), claim.to_string());
        let volume = self.surroundings.bindings.get(&key)?;
        self.surroundings.volumes.get(volume)
    }

    /// The node where a pod uses the claim, if one does.
    pub fn node_of(&self, namespace: &str, claim: &str) -> Option<&str> {
        let mut users = self.pods.iter().filter(|pod| {
            !pod.completed && pod.workload.namespace == namespace && pod.claims.contains(claim)
        });
        users.find_map(|pod| pod.node.as_deref())
    }
}

impl ObservedPod {
    /// None for a pod that mounts no claim.
    fn of(pod: &Pod) -> Option<Self> {
        let claims: BTreeSet<String> = mounted_claims(pod).collect();
        if claims.is_empty() {
            return None;
        }
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        Some(Self {
            workload: word(pod),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            placement: pod.spec.as_ref().map(Placement::of).unwrap_or_default(),
            claims,
            labels: pod.labels().clone(),
            controller: controller(pod),
            completed: matches!(phase, Some("Succeeded" | "Failed")),
            wave: pod.annotations().get(names::WAVE).cloned(),
        })
    }

    /// Our own movers, and what keeps volumes attached for them, are no consumers. Their names are
    /// ours alone: they carry the run.
    pub fn is_ours(&self) -> bool {
        self.labels
            .get(names::ROLE)
            .is_some_and(|role| [names::ROLE_MOVER, names::ROLE_ANCHOR].contains(&role.as_str()))
            && self.labels.get(names::RUN).is_some_and(|run| {
                let prefix = format!("pvmigrate-{run}-");
                self.workload.name.starts_with(&prefix)
            })
    }
}

pub fn observe<'a>(
    cluster: &'a Cluster,
    config: &'a Config,
) -> BoxFuture<'a, Result<Observed, Stop>> {
    Box::pin(read(cluster, config))
}

async fn read(cluster: &Cluster, config: &Config) -> Result<Observed, Stop> {
    let version = retried(|| async { cluster.client().apiserver_version().await }).await?;
    let number = |text: &str| {
        text.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap_or(0)
    };
    let mut surroundings = Surroundings::read(cluster).await?;
    // Claims before their volumes and pods before their owners: what comes in between is not
    // missed from below.
    let claims = cluster
        .collect(&cluster.all(), |claim: PersistentVolumeClaim| {
            surroundings.see_claim(&claim);
            // One without a class is of its volume's.
            let class = class_of(&claim, None);
            let wanted = config.selects(&claim.namespace()?)
                && (class.is_empty()
                    || class == config.source_sc
                    || config.claims.iter().any(|name| name.is(&claim)))
                && !names::is_trial(&claim.name_any(), claim.labels());
            wanted.then(|| lean(claim))
        })
        .await?;
    let pods = cluster
        .collect(&cluster.all(), |pod: Pod| {
            surroundings.see_pod(&pod);
            let wanted = config.selects(&pod.namespace()?);
            wanted.then(|| ObservedPod::of(&pod)).flatten()
        })
        .await?;
    let named: BTreeSet<&str> = claims
        .iter()
        .filter_map(|claim| claim.spec.as_ref()?.volume_name.as_deref())
        .collect();
    let volumes = cluster
        .collect(&cluster.all(), |volume: PersistentVolume| {
            surroundings.see_volume(&volume);
            let wanted = class_of_volume(&volume) == config.source_sc
                || named.contains(volume.name_any().as_str())
                || volume.annotations().contains_key(names::RECORD);
            wanted.then(|| lean(volume))
        })
        .await?;
    let mut workloads = workloads::list(cluster, config).await?;
    workloads.extend(custom::owners(cluster, &pods).await?);
    Ok(Observed {
        version: (number(&version.major), number(&version.minor)),
        classes: by_name(cluster.collect(&cluster.all(), Some).await?),
        namespaces: by_name(cluster.collect(&cluster.all(), Some).await?),
        volumes: by_name(volumes),
        claims,
        pods,
        workloads,
        scalers: scalers::list(cluster).await?,
        budgets: budgets::list(cluster).await?,
        surroundings,
    })
}

/// Without what no decision reads, and what may be most of an object.
fn lean<K: Object>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn by_name<K: Object>(objects: Vec<K>) -> BTreeMap<String, K> {
    objects
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect()
}

/// How a record calls an object.
pub fn word<K: Object>(object: &K) -> Workload {
    Workload {
        api_version: K::api_version(&()).into(),
        kind: K::kind(&()).into(),
        resource: K::plural(&()).into(),
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
    }
}

/// What controls an object.
pub fn controller<K: Object>(object: &K) -> Option<OwnerReference> {
    let mut owners = object.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true)).cloned()
}

/// The record on a volume, if there is one.
pub fn record_of(volume: &PersistentVolume) -> Option<Result<Record, Unreadable>> {
    volume
        .annotations()
        .get(names::RECORD)
        .map(|json| Record::parse(json))
}
