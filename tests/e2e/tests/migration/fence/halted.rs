//! Two applications in the middle of a migration, and a Job that does nothing any more: what it
//! would put back stays as a test has made it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use pvmigrate_e2e::{Local, Proxy, Test, crash, program};
use pvmigrate_record::names;
use pvmigrate_record::record::{self, Record};

use super::{all_stopped, applications, let_go, user};

/// How long one Job may take.
const LIMIT: Duration = Duration::from_secs(120);
const LOG: &str = "job.log";

/// All that the Jobs of a release have said.
pub fn said(release: &crash::Release) -> Result<String> {
    Ok(std::fs::read_to_string(release.folder.join(LOG))?)
}

pub struct Halted<'a> {
    pub test: &'a Test,
    pub release: crash::Release,
    pub of: record::Release,
    /// The name of the fence's objects.
    pub fence: String,
    /// With a user's rights in the namespace.
    pub user: Client,
    proxy: Proxy,
    changes: Vec<(String, String)>,
    job: Option<Local>,
}

impl<'a> Halted<'a> {
    /// Starts both applications, of which the StatefulSet has this name and is to be stopped this
    /// way, and a Job; suspends it when both are stopped.
    pub async fn start(test: &'a Test, set: &str, freeze: &str) -> Result<Self> {
        applications(test, set, freeze).await?;
        Self::when(test, &[], async || all_stopped(test, set).await).await
    }

    /// Starts a Job for what is in the namespace, with these changes to its environment; suspends
    /// it when it has come so far.
    pub async fn when(
        test: &'a Test,
        changes: &[(&str, &str)],
        so_far: impl AsyncFnOnce() -> Result<()>,
    ) -> Result<Self> {
        let release = crash::Release::install(&test.cluster).await?;
        let of = record::Release {
            namespace: release.namespace.clone(),
            name: "pvmigrate".into(),
        };
        let mut halted = Self {
            test,
            fence: names::fence_object(&of),
            of,
            user: user(test).await?,
            proxy: release.proxy().await?,
            release,
            changes: changes
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            job: None,
        };
        let job = halted.job("run")?;
        so_far().await.with_context(|| job.tail())?;
        job.suspend()?;
        halted.job = Some(job);
        Ok(halted)
    }

    fn job(&self, verb: &str) -> Result<Local> {
        let (release, proxy) = (&self.release, &self.proxy);
        local(verb, release, proxy, &self.test.namespace, &self.changes)
    }

    pub async fn records(&self) -> Result<Vec<Record>> {
        records(self.test).await
    }

    /// The Job is lost; the next one finds the fence as the test left it, and keeps it.
    pub fn go_on(&mut self) -> Result<()> {
        drop(self.job.take());
        self.job = Some(self.job("run")?);
        Ok(())
    }

    /// The Job is lost, and what it has begun is aborted. Returns what both said.
    pub async fn abort(&mut self) -> Result<String> {
        drop(self.job.take());
        let mut abort = self.job("abort")?;
        let status = abort.wait(LIMIT).await?;
        ensure!(status.code() == Some(0), "{status}:\n{}", abort.tail());
        said(&self.release)
    }

    /// The Job is lost; the next one finds the fence as the test left it, and goes on to the end.
    pub async fn finish(mut self) -> Result<()> {
        drop(self.job.take());
        let_go(self.test).await?;
        let mut job = self.job("run")?;
        let status = job.wait(LIMIT).await?;
        ensure!(status.code() == Some(0), "{status}:\n{}", job.tail());
        self.release.uninstall().await
    }
}

/// The records of a test's claims, in the order of their sources.
pub async fn records(test: &Test) -> Result<Vec<Record>> {
    let api = Api::<PersistentVolume>::all(test.cluster.client.clone());
    let marked = ListParams::default().labels(names::RUN);
    let mut volumes = api.list(&marked).await?.items;
    volumes.sort_by_key(ResourceExt::name_any);
    let records = volumes
        .iter()
        .filter_map(|volume| Record::parse(volume.annotations().get(names::RECORD)?).ok());
    let ours: Vec<Record> = records
        .filter(|record| record.claim.namespace == test.namespace)
        .collect();
    ensure!(!ours.is_empty(), "no records");
    Ok(ours)
}

/// A Job of this release outside the cluster, for the claims of a namespace.
pub fn start_job(release: &crash::Release, proxy: &Proxy, namespace: &str) -> Result<Local> {
    local("run", release, proxy, namespace, &[])
}

fn local(
    verb: &str,
    release: &crash::Release,
    proxy: &Proxy,
    namespace: &str,
    more: &[(String, String)],
) -> Result<Local> {
    let kubeconfig = release.folder.join("kubeconfig");
    proxy.write_kubeconfig(&kubeconfig)?;
    // All are stopped at a time, though they may be on one node.
    let own = [
        ("PVMIGRATE_NAMESPACES", namespace),
        ("PVMIGRATE_RUN_TOKEN", namespace),
        ("PVMIGRATE_PARALLELISM_STOPPED_PER_NODE", "4"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()));
    let changes = [own.as_slice(), more].concat();
    let environment = release.environment("job", &kubeconfig, &changes);
    let environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let log = release.folder.join(LOG);
    Local::start(&program("pvmigrate")?, &[verb], &environment, &log)
}
