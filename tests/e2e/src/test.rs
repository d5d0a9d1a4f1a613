use std::fmt::Debug;
use std::io::{Write as _, stderr};
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use pvmigrate_testbed::Bed;

use crate::{Cluster, volumes, wait_for};

/// One test: the cluster, and a namespace that is the test's own.
pub struct Test {
    pub cluster: Cluster,
    pub namespace: String,
    /// Further namespaces, such as the release's: shown when the test fails, deleted when not.
    namespaces: Mutex<Vec<String>>,
}

/// Runs a test in a namespace of its own. When it passes, the namespace is deleted; when not, it
/// stays, and what it holds is printed.
///
/// # Panics
///
/// When the test fails: this is a test's outermost function.
pub async fn run_test(name: &str, body: impl AsyncFnOnce(&Test) -> Result<()>) {
    let test = match Test::start(name).await {
        Ok(test) => test,
        Err(error) => panic!("{name} could not start: {error:#}"),
    };
    let outcome = AssertUnwindSafe(body(&test)).catch_unwind().await;
    let namespaces = test.all_namespaces();
    match outcome {
        Ok(Ok(())) => {
            for namespace in namespaces {
                delete_namespace(&test.cluster, &namespace).await;
            }
        }
        Ok(Err(error)) => {
            test.cluster.dump(&namespaces).await;
            panic!("{name} failed: {error:#}");
        }
        Err(panic) => {
            test.cluster.dump(&namespaces).await;
            std::panic::resume_unwind(panic);
        }
    }
}

impl Test {
    async fn start(name: &str) -> Result<Self> {
        let cluster = Cluster::get().await?;
        let mut test = Self {
            cluster,
            namespace: String::new(),
            namespaces: Mutex::new(Vec::new()),
        };
        test.namespace = test.new_namespace(name).await?;
        Ok(test)
    }

    /// One more namespace that goes when the test has passed.
    pub async fn new_namespace(&self, name: &str) -> Result<String> {
        let api = Api::<Namespace>::all(self.cluster.client.clone());
        let wanted = Namespace {
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let created = api
            .create(&PostParams::default(), &wanted)
            .await
            .with_context(|| format!("creating namespace {name}"))?;
        let namespace = created
            .metadata
            .name
            .context("a namespace without a name")?;
        if let Ok(mut namespaces) = self.namespaces.lock() {
            namespaces.push(namespace.clone());
        }
        // A pod that comes earlier is forbidden.
        let accounts = Api::<ServiceAccount>::namespaced(self.cluster.client.clone(), &namespace);
        wait_for(
            &format!("the default ServiceAccount of {namespace}"),
            Duration::from_secs(20),
            async || Ok(accounts.get("default").await?),
        )
        .await?;
        Ok(namespace)
    }

    /// The test bed, for tests that need more of it than a cluster. Elsewhere they test nothing; that
    /// is said even where the output of tests that pass is not shown.
    pub fn bed(&self) -> Option<&Bed> {
        let bed = self.cluster.bed.as_ref();
        if bed.is_none() {
            let name = &self.namespace;
            let _ = writeln!(stderr(), "{name} needs the test bed: nothing was tested");
        }
        bed
    }

    pub fn has_bed(&self) -> bool {
        self.bed().is_some()
    }

    fn all_namespaces(&self) -> Vec<String> {
        self.namespaces
            .lock()
            .map(|namespaces| namespaces.clone())
            .unwrap_or_default()
    }

    /// The objects of one kind in the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// Creates an object in the test's namespace.
    pub async fn create<K>(&self, object: &K) -> Result<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
        K::DynamicType: Default,
    {
        self.api()
            .create(&PostParams::default(), object)
            .await
            .with_context(|| format!("creating {:?}", object.meta().name))
    }

    /// Runs a shell command in a pod of the test's namespace.
    pub async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        self.cluster.exec(&self.namespace, pod, script).await
    }

    /// Waits until a pod is Ready.
    pub async fn await_ready(&self, pod: &str) -> Result<Pod> {
        wait_for(
            &format!("pod {pod} to be Ready"),
            Duration::from_secs(120),
            async || {
                let found = self.api::<Pod>().get(pod).await?;
                let status = found.status.as_ref().context("it has no status")?;
                let ready = status
                    .conditions
                    .iter()
                    .flatten()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True");
                ensure!(
                    ready,
                    "it is {:?}: {:?}",
                    status.phase,
                    status.container_statuses
                );
                Ok(found)
            },
        )
        .await
    }

    /// Waits until a claim is Bound, and returns it.
    pub async fn await_bound(&self, claim: &str) -> Result<PersistentVolumeClaim> {
        wait_for(
            &format!("claim {claim} to be Bound"),
            Duration::from_secs(120),
            async || {
                let found = self.api::<PersistentVolumeClaim>().get(claim).await?;
                let phase = found
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                ensure!(phase == Some("Bound"), "it is {phase:?}");
                Ok(found)
            },
        )
        .await
    }
}

async fn delete_namespace(cluster: &Cluster, namespace: &str) {
    if let Err(error) = volumes::give_back(cluster, namespace).await {
        eprintln!("volumes of {namespace} stay behind: {error:#}");
    }
    let api = Api::<Namespace>::all(cluster.client.clone());
    // Its end is the cluster's business: the next test need not wait for it.
    if let Err(error) = api.delete(namespace, &DeleteParams::default()).await {
        eprintln!("namespace {namespace} was not deleted: {error}");
    }
}
