//! Where one crash point plays: a namespace with an application, and a proxy for its Jobs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolume, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::application::{Kind, Seen, look};
use super::point::Ending;
use super::release::Release;
use crate::{Cluster, Local, Proxy, Refusal, program, wait_for};

/// How long one Job may take.
pub const JOB_LIMIT: Duration = Duration::from_secs(150);

pub struct Scene<'a> {
    pub release: &'a Release,
    pub namespace: String,
    pub kind: Kind,
    pub proxy: Proxy,
    /// The claims before anything was done to them.
    pub before: BTreeMap<String, Seen>,
    /// The volumes that they were on.
    pub sources: BTreeMap<String, String>,
    /// Changes of the Job's environment.
    pub changes: Vec<(String, String)>,
    pub log: PathBuf,
    refusal: Option<Refusal>,
}

impl<'a> Scene<'a> {
    /// Makes the namespace and the application, and looks at it.
    pub async fn set(release: &'a Release, kind: Kind, ending: Ending) -> Result<Self> {
        let cluster = &release.cluster;
        let namespace = namespace(cluster, "crash-").await?;
        kind.create(cluster, &namespace).await?;
        let before = look(cluster, &namespace, kind).await?;
        let mut scene = Self {
            release,
            kind,
            proxy: release.proxy().await?,
            before,
            sources: BTreeMap::new(),
            changes: Vec::new(),
            log: release.folder.join(format!("{namespace}.log")),
            namespace,
            refusal: None,
        };
        for volume in scene.volumes().await? {
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.clone());
            let claim = claim.and_then(|claim| claim.name).unwrap_or_default();
            scene.sources.insert(claim, volume.name_any());
        }
        // The same in each Job of this scene, and no other: a run of its own.
        for name in ["PVMIGRATE_NAMESPACES", "PVMIGRATE_RUN_TOKEN"] {
            scene.changes.push((name.into(), scene.namespace.clone()));
        }
        let [source, dest] = kind.classes(cluster);
        for (name, class) in [
            ("PVMIGRATE_SOURCE_SC", source),
            ("PVMIGRATE_DEST_SC", dest.clone()),
        ] {
            scene.changes.push((name.into(), class));
        }
        // Preflight would refuse what is to fail early, and tries nothing new where it is to fail late.
        if matches!(ending, Ending::FailedEarly | Ending::FailedLate) {
            let skip = ("PVMIGRATE_SKIP_PREFLIGHT".into(), "true".into());
            scene.changes.push(skip);
        }
        match ending {
            Ending::Migrated | Ending::Aborted => {}
            Ending::FailedEarly => {
                for (name, value) in [
                    ("PVMIGRATE_IMAGE", "pvmigrate-test/none:1"),
                    ("PVMIGRATE_STAGE_SECONDS", "5"),
                ] {
                    scene.changes.push((name.into(), value.into()));
                }
            }
            Ending::FailedLate => {
                let refusal = Refusal::new(cluster, &scene.namespace, kind.claims(), &dest).await?;
                scene.refusal = Some(refusal);
            }
        }
        Ok(scene)
    }

    /// Starts a Job behind the scene's proxy.
    pub fn job(&self, pod: &str) -> Result<Local> {
        self.job_behind(&self.proxy, pod)
    }

    /// Starts an abort of what the Jobs have begun.
    pub fn abort(&self, pod: &str) -> Result<Local> {
        self.start(&self.proxy, pod, "abort")
    }

    /// Starts a Job behind another proxy.
    pub fn job_behind(&self, proxy: &Proxy, pod: &str) -> Result<Local> {
        self.start(proxy, pod, "run")
    }

    fn start(&self, proxy: &Proxy, pod: &str, verb: &str) -> Result<Local> {
        let kubeconfig = self
            .release
            .folder
            .join(format!("{}-{pod}.kubeconfig", self.namespace));
        proxy.write_kubeconfig(&kubeconfig)?;
        let environment = self.release.environment(pod, &kubeconfig, &self.changes);
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        Local::start(&program("pvmigrate")?, &[verb], &environment, &self.log)
    }

    /// The volumes that are or were of this namespace's claims, or wait for one.
    pub async fn volumes(&self) -> Result<Vec<PersistentVolume>> {
        let api = Api::<PersistentVolume>::all(self.release.cluster.client.clone());
        let all = api.list(&ListParams::default()).await?.items;
        let ours = |volume: &PersistentVolume| {
            let claim = volume
                .spec
                .as_ref()
                .and_then(|spec| spec.claim_ref.as_ref());
            claim.and_then(|claim| claim.namespace.as_deref()) == Some(self.namespace.as_str())
        };
        Ok(all.into_iter().filter(ours).collect())
    }

    /// Removes everything, the kept volumes too.
    pub async fn clear(self) -> Result<()> {
        let client = self.release.cluster.client.clone();
        let api = Api::<PersistentVolume>::all(client.clone());
        let gone = json!({"spec": {"persistentVolumeReclaimPolicy": "Delete"}});
        for volume in self.volumes().await? {
            api.patch(
                &volume.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&gone),
            )
            .await?;
        }
        if let Some(refusal) = self.refusal {
            refusal.remove().await?;
        }
        Api::<Namespace>::all(client)
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        std::fs::remove_file(&self.log)?;
        Ok(())
    }
}

/// A new namespace that pods can be made in.
pub async fn namespace(cluster: &Cluster, prefix: &str) -> Result<String> {
    let client = cluster.client.clone();
    let wanted = Namespace {
        metadata: ObjectMeta {
            generate_name: Some(prefix.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let made = Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &wanted)
        .await?;
    let namespace = made.metadata.name.context("a namespace without a name")?;
    let accounts = Api::<ServiceAccount>::namespaced(client, &namespace);
    let what = format!("the default ServiceAccount of {namespace}");
    wait_for(&what, Duration::from_secs(20), async || {
        Ok(accounts.get("default").await?)
    })
    .await?;
    Ok(namespace)
}
