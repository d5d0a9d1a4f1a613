//! A release of the chart, but for its Job: that runs outside the cluster, where it can be killed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, Namespace};
use kube::api::{Api, DeleteParams};

use super::scene::namespace;
use crate::{Cluster, Proxy};

/// The release's name, and by it the names of all its objects.
pub const NAME: &str = "pvmigrate";

pub struct Release {
    pub cluster: Cluster,
    pub namespace: String,
    /// Where its Jobs' logs and the proxies' kubeconfigs are.
    pub folder: PathBuf,
    /// The environment that the chart gives the Job, without what comes from its pod.
    environment: Vec<(String, String)>,
}

impl Release {
    /// Installs it in a namespace of its own, and waits for its webhook.
    pub async fn install(cluster: &Cluster) -> Result<Self> {
        let cluster = cluster.clone();
        let namespace = namespace(&cluster, "crash-release-").await?;
        let folder = std::env::temp_dir().join(&namespace);
        std::fs::create_dir_all(&folder)?;
        let (job, others) = render(&cluster, &namespace).await?;
        let others = write(&folder, "release.yaml", &others)?;
        let job = write(&folder, "job.yaml", &job)?;
        cluster
            .kubectl(&["apply", "--server-side", "--filename", &others])
            .await?
            .success()?;
        let environment = environment(&cluster, &job).await?;
        let release = Self {
            cluster,
            namespace,
            folder,
            environment,
        };
        release
            .kubectl(&[
                "rollout",
                "status",
                "deployment/pvmigrate-webhook",
                "--timeout=90s",
            ])
            .await?;
        Ok(release)
    }

    /// Removes all of it, and waits for nothing.
    pub async fn uninstall(&self) -> Result<()> {
        let manifest = self.folder.join("release.yaml");
        let manifest = manifest.to_string_lossy();
        let arguments = [
            "delete",
            "--wait=false",
            "--ignore-not-found",
            "--filename",
            &manifest,
        ];
        self.cluster.kubectl(&arguments).await?.success()?;
        Api::<Namespace>::all(self.cluster.client.clone())
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("removing {}", self.folder.display()))
    }

    /// A way into the cluster as the release's Job: its rights, and what the fence spares it.
    pub async fn proxy(&self) -> Result<Proxy> {
        Proxy::start(self.cluster.config_as(&self.namespace, NAME).await?).await
    }

    /// The Job's environment: the chart's, what its pod would say, and these changes.
    pub fn environment(
        &self,
        pod: &str,
        kubeconfig: &Path,
        changes: &[(String, String)],
    ) -> Vec<(String, String)> {
        let own = |name: &str, value: &str| (name.to_string(), value.to_string());
        let mut all = self.environment.clone();
        all.push(own("KUBECONFIG", &kubeconfig.to_string_lossy()));
        all.push(own("PVMIGRATE_RELEASE_NAMESPACE", &self.namespace));
        all.push(own("PVMIGRATE_POD", pod));
        // The last one of a name counts.
        all.extend(changes.iter().cloned());
        all
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["--namespace", self.namespace.as_str()];
        all.extend(arguments);
        self.cluster.kubectl(&all).await?.success()
    }
}

/// The chart's Job, and everything else of it.
async fn render(cluster: &Cluster, namespace: &str) -> Result<(String, String)> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/pvmigrate");
    let (repository, tag) = cluster
        .image
        .rsplit_once(':')
        .context("the image under test has no tag")?;
    let [source, dest] = &cluster.classes;
    let values = format!(
        "sourceSC={source},destSC={dest},image.repository={repository},image.tag={tag},webhook.replicas=1"
    );
    let rendered = cluster
        .helm(&[
            "template",
            NAME,
            &chart.to_string_lossy(),
            "--namespace",
            namespace,
            "--no-hooks",
            "--set",
            &values,
        ])
        .await?
        .success()?;
    let (jobs, others): (Vec<&str>, Vec<&str>) = rendered
        .split("\n---\n")
        .partition(|document| document.lines().any(|line| line == "kind: Job"));
    ensure!(jobs.len() == 1, "the chart has {} Jobs", jobs.len());
    Ok((jobs.concat(), others.join("\n---\n")))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<String> {
    let path = folder.join(name);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

/// What the chart sets for the Job: a new variable of it is the Job's here too.
async fn environment(cluster: &Cluster, job: &str) -> Result<Vec<(String, String)>> {
    let json = cluster
        .kubectl(&[
            "create",
            "--dry-run=client",
            "-o",
            "json",
            "--filename",
            job,
        ])
        .await?
        .success()?;
    let job: Job = serde_json::from_str(&json)?;
    let containers = job
        .spec
        .and_then(|spec| spec.template.spec)
        .map(|spec| spec.containers);
    let variables: Vec<EnvVar> = containers
        .and_then(|mut containers| containers.pop())
        .and_then(|container| container.env)
        .context("the chart's Job has no environment")?;
    Ok(variables
        .into_iter()
        .filter_map(|variable| Some((variable.name, variable.value?)))
        .collect())
}
