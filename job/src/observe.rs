//! What the cluster holds, read once before anything is decided.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    Namespace, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplateSpec,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::record::{Record, Unreadable};

use crate::cluster::{Cluster, Object, retried};
use crate::config::Config;
use crate::stop::Stop;

/// Everything that plan and preflight look at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The API server's version, as (major, minor).
    pub version: (u32, u32),
    pub classes: BTreeMap<String, StorageClass>,
    pub namespaces: BTreeMap<String, Namespace>,
    /// By name.
    pub volumes: BTreeMap<String, PersistentVolume>,
    pub claims: Vec<PersistentVolumeClaim>,
    pub pods: Vec<Pod>,
    pub workloads: Vec<ObservedWorkload>,
}

/// A workload of a kind that can be scaled, with what the Job needs of it.
#[derive(Clone, Debug)]
pub struct ObservedWorkload {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// What controls it, as "Kind name".
    pub controller: Option<(String, String)>,
    pub template: PodTemplateSpec,
    /// Names of its `volumeClaimTemplates`.
    pub claim_templates: Vec<String>,
    /// The value of its `pvmigrate.io/frozen`.
    pub frozen: Option<String>,
}

impl Observed {
    pub fn class_of(claim: &PersistentVolumeClaim) -> Option<&str> {
        claim.spec.as_ref()?.storage_class_name.as_deref()
    }

    pub fn volume_of(&self, claim: &PersistentVolumeClaim) -> Option<&PersistentVolume> {
        self.volumes
            .get(claim.spec.as_ref()?.volume_name.as_deref()?)
    }
}

pub async fn observe(cluster: &Cluster, config: &Config) -> Result<Observed, Stop> {
    let version = retried(|| async { cluster.client().apiserver_version().await }).await?;
    let number = |text: &str| {
        text.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
            .parse()
            .unwrap_or(0)
    };
    let claims: Vec<PersistentVolumeClaim> = list(cluster).await?;
    let pods: Vec<Pod> = list(cluster).await?;
    let deployments: Vec<Deployment> = list(cluster).await?;
    let stateful_sets: Vec<StatefulSet> = list(cluster).await?;
    let replica_sets: Vec<ReplicaSet> = list(cluster).await?;
    let workloads = deployments
        .into_iter()
        .filter_map(|object| {
            let template = object.spec.clone()?.template;
            Some(workload("Deployment", &object, template, Vec::new()))
        })
        .chain(stateful_sets.into_iter().filter_map(|object| {
            let spec = object.spec.clone()?;
            let templates = spec.volume_claim_templates.unwrap_or_default();
            let names = templates.iter().map(ResourceExt::name_any).collect();
            Some(workload("StatefulSet", &object, spec.template, names))
        }))
        .chain(replica_sets.into_iter().filter_map(|object| {
            let template = object.spec.clone()?.template.unwrap_or_default();
            Some(workload("ReplicaSet", &object, template, Vec::new()))
        }))
        .filter(|workload| config.selects(&workload.namespace))
        .collect();
    Ok(Observed {
        version: (number(&version.major), number(&version.minor)),
        classes: by_name(list(cluster).await?),
        namespaces: by_name(list(cluster).await?),
        volumes: by_name(list(cluster).await?),
        claims: claims
            .into_iter()
            .filter(|c| config.selects(&c.namespace().unwrap_or_default()))
            .collect(),
        pods: pods
            .into_iter()
            .filter(|p| config.selects(&p.namespace().unwrap_or_default()))
            .collect(),
        workloads,
    })
}

async fn list<K: Object>(cluster: &Cluster) -> Result<Vec<K>, Stop> {
    cluster.list(&cluster.all()).await
}

fn by_name<K: Object>(objects: Vec<K>) -> BTreeMap<String, K> {
    objects
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect()
}

fn workload<K: Object>(
    kind: &'static str,
    object: &K,
    template: PodTemplateSpec,
    claim_templates: Vec<String>,
) -> ObservedWorkload {
    ObservedWorkload {
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        controller: controller(object),
        template,
        claim_templates,
        frozen: object.annotations().get(names::FROZEN).cloned(),
    }
}

/// Kind and name of what controls an object.
pub fn controller<K: Object>(object: &K) -> Option<(String, String)> {
    let owner = object
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))?;
    Some((owner.kind.clone(), owner.name.clone()))
}

/// The record on a volume, if there is one.
pub fn record_of(volume: &PersistentVolume) -> Option<Result<Record, Unreadable>> {
    volume
        .annotations()
        .get(names::RECORD)
        .map(|json| Record::parse(json))
}
