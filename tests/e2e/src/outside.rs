//! A Job that runs on this machine, with the rights that the chart gives it and nothing else of the
//! chart: for what ends before a fence is needed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{Cluster, End, Local, Proxy, Test, program};

/// The release's name, and by it the names of its roles.
const NAME: &str = "pvmigrate";
const TEMPLATES: [&str; 5] = [
    "templates/job/serviceaccount.yaml",
    "templates/job/role.yaml",
    "templates/job/rolebinding.yaml",
    "templates/job/clusterrole.yaml",
    "templates/job/clusterrolebinding.yaml",
];
/// How long a Job of these tests may take.
const LIMIT: Duration = Duration::from_secs(240);

pub struct Outside {
    cluster: Cluster,
    pub namespace: String,
    /// Where its log and its kubeconfig are.
    folder: PathBuf,
    proxy: Proxy,
}

impl Outside {
    /// Creates the chart's ServiceAccount and roles in a namespace of its own.
    pub async fn new(test: &Test) -> Result<Self> {
        let (cluster, namespace) = (test.cluster.clone(), test.new_namespace("outside").await?);
        let folder = std::env::temp_dir().join(&namespace);
        std::fs::create_dir_all(&folder)?;
        let proxy = Proxy::start(cluster.config_as(&namespace, NAME).await?).await?;
        proxy.write_kubeconfig(&folder.join("kubeconfig"))?;
        let outside = Self {
            cluster,
            namespace,
            folder,
            proxy,
        };
        outside.apply_roles().await?;
        Ok(outside)
    }

    async fn apply_roles(&self) -> Result<()> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/pvmigrate");
        let chart = chart.to_string_lossy();
        let mut arguments = vec!["template", NAME, &chart, "--namespace", &self.namespace];
        arguments.extend(["--set", "sourceSC=a,destSC=b"]);
        for template in TEMPLATES {
            arguments.extend(["--show-only", template]);
        }
        let rendered = self.cluster.helm(&arguments).await?.success()?;
        std::fs::write(self.roles(), rendered)?;
        let roles = self.roles();
        let apply = ["apply", "--server-side", "--filename"].map(String::from);
        let arguments = [&apply[..], &[roles.to_string_lossy().into_owned()]].concat();
        self.cluster.kubectl(&arguments).await?.success()?;
        Ok(())
    }

    fn roles(&self) -> PathBuf {
        self.folder.join("roles.yaml")
    }

    /// The name of the ClusterRole.
    pub fn cluster_role(&self) -> String {
        format!("{NAME}.{}", self.namespace)
    }

    /// Runs it to its end, between these classes, for the claims of these namespaces.
    pub async fn run(
        &self,
        [source, dest]: [&str; 2],
        claims_in: &[&str],
        settings: &[(&str, &str)],
    ) -> Result<End> {
        let kubeconfig = self.folder.join("kubeconfig");
        let (kubeconfig, claims_in) = (kubeconfig.to_string_lossy(), claims_in.join(","));
        let mut environment = vec![
            ("KUBECONFIG", kubeconfig.as_ref()),
            ("PVMIGRATE_SOURCE_SC", source),
            ("PVMIGRATE_DEST_SC", dest),
            ("PVMIGRATE_NAMESPACES", claims_in.as_str()),
            ("PVMIGRATE_RELEASE", NAME),
            ("PVMIGRATE_RELEASE_NAMESPACE", &self.namespace),
            ("PVMIGRATE_POD", "outside"),
            ("PVMIGRATE_IMAGE", &self.cluster.image),
        ];
        environment.extend(settings);
        let log = self.folder.join("log");
        std::fs::write(&log, "")?;
        self.proxy.open();
        let mut job = Local::start(&program("pvmigrate")?, &["run"], &environment, &log)?;
        let status = job.wait(LIMIT).await?;
        Ok(End {
            code: status.code().context("a signal has ended it")?,
            log: std::fs::read_to_string(&log)?,
            pods: 0,
        })
    }

    /// How many requests the last run made.
    pub fn requests(&self) -> usize {
        self.proxy.requests()
    }

    /// Removes what is not in a namespace.
    pub async fn remove(self) -> Result<()> {
        let roles = self.roles();
        let roles = roles.to_string_lossy();
        let arguments = ["delete", "--ignore-not-found", "--filename", &roles];
        self.cluster.kubectl(&arguments).await?.success()?;
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("removing {}", self.folder.display()))
    }
}
