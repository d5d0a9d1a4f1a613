use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use pvmigrate_testbed::{Bed, CLASSES, NODES, TOOLS_IMAGE};
use tokio::task::spawn_blocking;

/// Names the kubeconfig of another cluster to test in; then nothing is booted.
pub const KUBECONFIG_VARIABLE: &str = "PVMIGRATE_TEST_KUBECONFIG";
/// Names the image under test, where that cluster finds it.
pub const IMAGE_VARIABLE: &str = "PVMIGRATE_TEST_IMAGE";
/// Names the image that the tests' own applications run.
pub const TOOLS_IMAGE_VARIABLE: &str = "PVMIGRATE_TEST_TOOLS_IMAGE";

/// The cluster under test and how to reach it.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    pub kubeconfig: PathBuf,
    /// The image under test.
    pub image: String,
    /// What applications of tests run.
    pub tools_image: String,
    /// The class to migrate from, and the one to migrate to.
    pub classes: [String; 2],
    /// The test bed, unless this is someone else's cluster.
    pub bed: Option<Bed>,
    pub(crate) programs: PathBuf,
}

impl Cluster {
    /// The cluster that `PVMIGRATE_TEST_KUBECONFIG` names, or the test bed: booted if it does not
    /// run, with the image of `make image` if there is one, and left running for the next test.
    pub async fn get() -> Result<Self> {
        let found = Bed::from_env()?;
        let programs = found.cache.join("bin");
        let (kubeconfig, bed) = match std::env::var_os(KUBECONFIG_VARIABLE) {
            Some(path) => (PathBuf::from(path), None),
            None => (found.kubeconfig(), Some(found)),
        };
        if let Some(bed) = bed.clone() {
            spawn_blocking(move || boot(&bed))
                .await
                .context("booting panicked")??;
        }
        let client = Client::try_from(config(&kubeconfig).await?)?;
        Ok(Self {
            client,
            kubeconfig,
            image: variable(IMAGE_VARIABLE, "pvmigrate:dev"),
            tools_image: variable(TOOLS_IMAGE_VARIABLE, TOOLS_IMAGE),
            classes: [
                variable("PVMIGRATE_TEST_SOURCE_CLASS", CLASSES[0]),
                variable("PVMIGRATE_TEST_DEST_CLASS", CLASSES[1]),
            ],
            bed,
            programs,
        })
    }

    /// The administrator's way into the cluster.
    pub async fn config(&self) -> Result<Config> {
        config(&self.kubeconfig).await
    }

    /// The way in with the rights of a `ServiceAccount`, and under its name, by impersonation.
    pub async fn config_as(&self, namespace: &str, account: &str) -> Result<Config> {
        let mut config = self.config().await?;
        let user = format!("system:serviceaccount:{namespace}:{account}");
        config
            .headers
            .push(("impersonate-user".parse()?, user.parse()?));
        Ok(config)
    }

    /// Ends the kubelet of a node of the test bed: the node is lost, its containers run on.
    /// `None` where the cluster is not ours to break.
    pub async fn stop_kubelet(&self, node: &str) -> Result<Option<()>> {
        self.kubelet(node, pvmigrate_testbed::stop_kubelet).await
    }

    /// Brings a node back that [`Self::stop_kubelet`] took away.
    pub async fn start_kubelet(&self, node: &str) -> Result<Option<()>> {
        self.kubelet(node, pvmigrate_testbed::start_kubelet).await
    }

    async fn kubelet(
        &self,
        node: &str,
        act: fn(&Bed, &pvmigrate_testbed::Node) -> Result<()>,
    ) -> Result<Option<()>> {
        let Some(bed) = self.bed.clone() else {
            return Ok(None);
        };
        let node = pvmigrate_testbed::node(node)?;
        spawn_blocking(move || act(&bed, node)).await?.map(Some)
    }

    /// The names of the test bed's nodes.
    pub fn nodes() -> [&'static str; 2] {
        NODES.map(|node| node.name)
    }
}

fn boot(bed: &Bed) -> Result<()> {
    pvmigrate_testbed::up(bed)?;
    let archive = target_folder().join("image.tar");
    if archive.exists() {
        pvmigrate_testbed::load(bed, &archive)?;
    }
    Ok(())
}

async fn config(kubeconfig: &Path) -> Result<Config> {
    let file = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("reading the kubeconfig {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    // A test sees what the server answered, not what a retry made of it.
    config.default_retry = false;
    Ok(config)
}

/// Where cargo and `make image` put what they build.
pub(crate) fn target_folder() -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    repository.join(folder)
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}
