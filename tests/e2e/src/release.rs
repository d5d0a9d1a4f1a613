use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use pvmigrate_record::names;
use serde_json::Value;

use crate::{Cluster, Output, wait_for};

/// What makes helm wait for the end of the Job.
pub const WAIT: [&str; 4] = ["--wait", "--wait-for-jobs", "--timeout", "30m"];

/// How long a Job of these tests may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The chart, installed as a person would, for the claims of some namespaces.
#[derive(Clone)]
pub struct Release {
    cluster: Cluster,
    pub name: String,
    pub namespace: String,
    values: Vec<String>,
}

/// How a Job ended.
#[derive(Debug)]
pub struct End {
    /// The exit code of its last pod.
    pub code: i32,
    /// What that pod printed.
    pub log: String,
    /// How many pods it took.
    pub pods: usize,
}

impl End {
    /// Fails, and shows the log, unless the Job ended with this code and said all of this.
    pub fn expect(self, code: i32, sentences: &[&str]) -> Result<Self> {
        let End { code: was, log, .. } = &self;
        ensure!(*was == code, "exit code {was} instead of {code}:\n{log}");
        for sentence in sentences {
            ensure!(log.contains(sentence), "nothing says {sentence:?}:\n{log}");
        }
        Ok(self)
    }
}

impl Release {
    /// Nothing is installed yet. `claims_in` are the namespaces whose claims it may touch.
    pub fn new(cluster: &Cluster, namespace: &str, claims_in: &[&str]) -> Self {
        Self::between(&cluster.classes, cluster, namespace, claims_in)
    }

    /// One that moves from the first class to the second.
    pub fn between(
        [source, dest]: &[String; 2],
        cluster: &Cluster,
        namespace: &str,
        claims_in: &[&str],
    ) -> Self {
        let (repository, tag) = cluster
            .image
            .rsplit_once(':')
            .unwrap_or((&cluster.image, "latest"));
        let set = |value: String| ["--set-string".to_string(), value];
        let values = [
            set(format!("sourceSC={source},destSC={dest}")),
            set(format!("image.repository={repository},image.tag={tag}")),
            [
                "--set".into(),
                format!("namespaces={{{}}}", claims_in.join(",")),
            ],
        ];
        Self {
            cluster: cluster.clone(),
            name: "pvmigrate".into(),
            namespace: namespace.into(),
            values: values.concat(),
        }
    }

    /// Runs `helm VERB`, with these arguments after the usual ones.
    pub async fn helm(&self, verb: &str, more: &[&str]) -> Result<Output> {
        let mut arguments = vec![
            verb.to_string(),
            self.name.clone(),
            chart().display().to_string(),
            "--namespace".into(),
            self.namespace.clone(),
        ];
        arguments.extend(self.values.iter().cloned());
        arguments.extend(more.iter().map(ToString::to_string));
        self.cluster.helm(&arguments).await
    }

    /// `helm install` that waits for nothing.
    pub async fn start(&self, more: &[&str]) -> Result<()> {
        self.helm("install", more).await?.success()?;
        Ok(())
    }

    /// `helm upgrade` that waits for nothing.
    pub async fn upgrade(&self, more: &[&str]) -> Result<()> {
        self.helm("upgrade", more).await?.success()?;
        Ok(())
    }

    pub async fn uninstall(&self) -> Result<()> {
        let arguments = [
            "uninstall",
            &self.name,
            "--namespace",
            &self.namespace,
            "--wait",
        ];
        self.cluster.helm(&arguments).await?.success()?;
        Ok(())
    }

    /// The Job that was made last.
    pub async fn job(&self) -> Result<Job> {
        let api: Api<Job> = Api::namespaced(self.cluster.client.clone(), &self.namespace);
        let jobs = api.list(&ListParams::default()).await?;
        // Times are in seconds: of two Jobs of the same one, the newer was written last.
        let newest = jobs
            .items
            .into_iter()
            .filter(|job| job.metadata.deletion_timestamp.is_none())
            .max_by_key(|job| {
                let version = job
                    .resource_version()
                    .and_then(|version| version.parse().ok());
                (job.creation_timestamp(), version.unwrap_or(0_u64))
            });
        newest.with_context(|| format!("namespace {} has no Job", self.namespace))
    }

    /// The pods of a Job, the oldest first.
    pub async fn pods(&self, job: &str) -> Result<Vec<Pod>> {
        let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let mut pods = self.api::<Pod>().list(&selector).await?.items;
        pods.sort_by_key(ResourceExt::creation_timestamp);
        Ok(pods)
    }

    /// Waits until the newest Job is Complete or Failed.
    pub async fn ended(&self) -> Result<End> {
        let what = format!("the Job of release {} to end", self.namespace);
        let job = wait_for(&what, LIMIT, async || {
            let job = self.job().await?;
            let conditions = job
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            let ended = conditions.clone().any(|condition| {
                matches!(condition.type_.as_str(), "Complete" | "Failed")
                    && condition.status == "True"
            });
            ensure!(ended, "{}", self.last_line(&job.name_any()).await);
            Ok(job)
        })
        .await?;
        let pods = self.pods(&job.name_any()).await?;
        let last = pods.last().context("a Job that ended without a pod")?;
        let code = last
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref()?.first()?.state.clone())
            .and_then(|state| state.terminated)
            .context("the Job's last pod has not ended")?
            .exit_code;
        let log = self
            .api::<Pod>()
            .logs(&last.name_any(), &LogParams::default())
            .await?;
        Ok(End {
            code,
            log,
            pods: pods.len(),
        })
    }

    async fn last_line(&self, job: &str) -> String {
        let Ok(pods) = self.pods(job).await else {
            return "its pods cannot be listed".into();
        };
        let Some(last) = pods.last() else {
            return "it has no pod".into();
        };
        let params = LogParams {
            tail_lines: Some(1),
            ..LogParams::default()
        };
        match self.api::<Pod>().logs(&last.name_any(), &params).await {
            Ok(log) => format!("its log ends with: {log}"),
            Err(error) => format!("no log: {error}"),
        }
    }

    /// The report of the run that began last, as programs read it.
    pub async fn report(&self) -> Result<Value> {
        let api = self.api::<ConfigMap>();
        let maps = api.list(&ListParams::default().labels(names::RUN)).await?;
        let reports = maps.items.into_iter().filter(|map| {
            map.data
                .as_ref()
                .is_some_and(|data| data.contains_key("report.json"))
        });
        let newest = reports.max_by_key(ResourceExt::creation_timestamp);
        let map = newest.with_context(|| format!("no report in namespace {}", self.namespace))?;
        let json = map
            .data
            .and_then(|mut data| data.remove("report.json"))
            .unwrap_or_default();
        Ok(serde_json::from_str(&json)?)
    }

    /// The objects of one kind in the release's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/pvmigrate")
}
