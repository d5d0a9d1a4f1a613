//! A run from its beginning to its end: finish what an earlier Job began, observe, decide, act.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use pvmigrate_record::record::Record;
use tokio::sync::Mutex;

use crate::cluster::{Cluster, Object};
use crate::config::{Config, SourceVolumes};
use crate::default_class;
use crate::exit::Exit;
use crate::fence::Fence;
use crate::migration::Group;
use crate::observe::{Observed, observe};
use crate::plan::{Plan, plan};
use crate::preflight::{self, provisioner};
use crate::report::{Report, State};
use crate::sites::Sites;
use crate::stop::Stop;
use crate::templates;

mod abort;
mod asked;
mod clearance;
mod groups;
mod order;
mod records;
mod turn;
mod windows;

pub use abort::abort;
pub use asked::{shown, uncovered};
use clearance::{may_begin, rehearse};
use groups::{Begun, drive_all};
pub use records::new_record;
use records::{planned, record_all, unfinished};
pub use turn::Place;
pub use windows::Window;

/// What every step needs.
pub struct Run {
    pub cluster: Cluster,
    pub config: Config,
    pub fence: Fence,
    /// The reclaim policies of the classes that exist.
    policies: BTreeMap<String, String>,
    /// Whether the provisioner of a class that waits for consumers may be told where they are. A
    /// volume that somebody has made by hand would be taken wherever it is.
    pub provisions_ahead: bool,
    /// The CSI drivers whose volumes are attached to nodes before they are mounted.
    pub attaching: BTreeSet<String>,
    /// Anchors that were asked to end.
    pub lifted: Mutex<Vec<Pod>>,
    /// Of workloads that have no pod.
    pub sites: Sites,
    owner: Option<OwnerReference>,
    /// What owns objects outside the release's namespace.
    pub cluster_owner: Option<OwnerReference>,
    report: Mutex<Report>,
}

impl Run {
    async fn new(
        cluster: Cluster,
        config: Config,
        cluster_owner: Option<OwnerReference>,
        owner: Option<OwnerReference>,
        observed: &Observed,
    ) -> Result<Self, Stop> {
        let earlier = Report::read(&cluster, &config).await?;
        Ok(Self {
            fence: Fence::new(&cluster, &config, cluster_owner.clone(), owner.clone()).await?,
            policies: policies(observed),
            provisions_ahead: provisions_ahead(observed, &config),
            attaching: attaching(observed),
            lifted: Mutex::default(),
            sites: Sites::of(observed, &config),
            owner,
            cluster_owner,
            report: Mutex::new(earlier.unwrap_or_else(|| Report::new(&config, Timestamp::now()))),
            cluster,
            config,
        })
    }

    /// The policy that the new volume shall have: its class's, or the source's own where someone
    /// had changed that from its class's.
    pub fn lasting_policy(&self, record: &Record) -> String {
        let own = &record.source.reclaim_policy;
        let of_class = |class: &str| self.policies.get(class).cloned();
        match of_class(&record.source_class) {
            Some(usual) if usual != *own => own.clone(),
            _ => of_class(&record.destination_class).unwrap_or_else(|| own.clone()),
        }
    }

    fn keeps_sources(&self) -> bool {
        self.config.source_volumes == SourceVolumes::Keep
    }

    async fn note<'a>(&self, groups: impl IntoIterator<Item = &'a Group>) -> Result<(), Stop> {
        let mut report = self.report.lock().await;
        for group in groups {
            let records = group.claims.iter().map(|migration| &migration.record);
            report.note(records, self.keeps_sources());
        }
        report
            .write(&self.cluster, &self.config, self.owner.as_ref())
            .await
    }
}

/// A reference to the chart's object of this name that collects what the Job makes.
pub async fn owners(
    cluster: &Cluster,
    config: &Config,
) -> Result<(Option<OwnerReference>, Option<OwnerReference>), Stop> {
    let of = |kind: &str, object: Option<(String, String)>| {
        object.map(|(name, uid)| OwnerReference {
            api_version: "rbac.authorization.k8s.io/v1".into(),
            kind: kind.into(),
            name,
            uid,
            ..OwnerReference::default()
        })
    };
    let cluster_role = match config.owner.as_str() {
        "" => None,
        name => identity(cluster.get(&cluster.all::<ClusterRole>(), name).await?),
    };
    let role = match config.owner_role.as_str() {
        "" => None,
        name => identity(
            cluster
                .get(&cluster.namespaced::<Role>(&config.release_namespace), name)
                .await?,
        ),
    };
    Ok((of("ClusterRole", cluster_role), of("Role", role)))
}

fn identity<K: Object>(object: Option<K>) -> Option<(String, String)> {
    object.and_then(|object| Some((object.name_any(), object.uid()?)))
}

/// The whole run, under the Lease.
pub async fn execute(
    cluster: Cluster,
    config: Config,
    cluster_owner: Option<OwnerReference>,
    owner: Option<OwnerReference>,
) -> Result<Exit, Stop> {
    let observed = match observe(&cluster, &config).await {
        Err(Stop::Refused(why)) => return unread(&cluster, &config, &why).await,
        other => other?,
    };
    let mut run = Run::new(cluster, config, cluster_owner, owner, &observed).await?;
    let mut unfinished = unfinished(&run, &observed).await?;
    // Those for which nothing was done yet are left to the planner, which writes them anew.
    let this_run = run.config.run();
    unfinished.retain(|m| !(m.record.is_untouched() && m.record.run == this_run));
    if run.config.preflight_only {
        return rehearse(&run, observed, &unfinished).await;
    }
    Box::pin(templates::finish_earlier(&run)).await?;
    run.fence.settle().await?;
    let has_resumed = !unfinished.is_empty();
    if has_resumed {
        let groups = Group::gather(unfinished);
        drive_all(&run, groups, &observed, Begun::ByAnEarlierJob).await?;
    }
    let observed = if has_resumed {
        observe(&run.cluster, &run.config).await?
    } else {
        observed
    };
    run.policies = policies(&observed);
    run.provisions_ahead = provisions_ahead(&observed, &run.config);
    run.sites = Sites::of(&observed, &run.config);
    let plan = plan(&observed, &run.config);
    let mut groups = planned(&run, &observed, &plan);
    if !may_begin(&run, &observed, &plan, &mut groups).await? {
        return Ok(Exit::Refused);
    }
    if plan.groups.is_empty() && !plan.has_failed && run.report.lock().await.claims.is_empty() {
        tracing::info!(class = %run.config.source_sc, "no claim of this StorageClass is to be moved; nothing to do");
        Box::pin(templates::settle(&run)).await?;
        let is_set = default_class::set(&run.cluster, &run.config).await?;
        return Ok(if is_set { Exit::Done } else { Exit::Failed });
    }
    {
        let mut report = run.report.lock().await;
        report.left = plan.left.iter().cloned().collect();
        report.notes = preflight::notes(&observed, &run.config, &plan);
    }
    record_all(&run, &plan, &mut groups).await?;
    drive_all(&run, groups, &observed, Begun::Now).await?;
    run.fence.tidy().await?;
    let outdated = Box::pin(templates::settle(&run)).await?;
    run.fence.close().await?;
    run.report.lock().await.templates = outdated;
    conclude(&run, plan.has_failed).await
}

/// The API server refuses to be read: says all that the Job may not do, not only the first.
async fn unread(cluster: &Cluster, config: &Config, why: &str) -> Result<Exit, Stop> {
    let missing = preflight::rights::missing(cluster, config, &Plan::default()).await?;
    for why in missing.iter().map(String::as_str).chain([why]) {
        tracing::error!(check = "rights", "preflight: {why}");
    }
    tracing::error!("preflight could not read the cluster; nothing was changed");
    Ok(Exit::Refused)
}

async fn conclude(run: &Run, has_failed: bool) -> Result<Exit, Stop> {
    let mut report = run.report.lock().await;
    let mut has_failed = has_failed || report.has_failures();
    report.state = if has_failed {
        State::Failed
    } else {
        State::Complete
    };
    report.ended = Some(Timestamp::now());
    // Before the report says that the run is complete: whoever reads that finds all of it done.
    if !has_failed && !default_class::set(&run.cluster, &run.config).await? {
        has_failed = true;
    }
    report
        .write(&run.cluster, &run.config, run.owner.as_ref())
        .await?;
    for line in report.table().lines() {
        tracing::info!("{line}");
    }
    Ok(if has_failed { Exit::Failed } else { Exit::Done })
}

fn provisions_ahead(observed: &Observed, config: &Config) -> bool {
    let class = observed.classes.get(&config.dest_sc);
    class.is_some_and(|class| {
        provisioner::waits_for_consumer(class) && !provisioner::is_by_hand(class)
    }) && provisioner::available(observed, &config.dest_sc)
        .next()
        .is_none()
}

fn attaching(observed: &Observed) -> BTreeSet<String> {
    let drivers = observed.surroundings.drivers.iter();
    let attaching = drivers.filter(|(_, driver)| driver.spec.attach_required.unwrap_or(true));
    attaching.map(|(name, _)| name.clone()).collect()
}

fn policies(observed: &Observed) -> BTreeMap<String, String> {
    let policy = |class: &StorageClass| {
        class
            .reclaim_policy
            .clone()
            .unwrap_or_else(|| "Delete".into())
    };
    observed
        .classes
        .iter()
        .map(|(name, class)| (name.clone(), policy(class)))
        .collect()
}
