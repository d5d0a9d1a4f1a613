//! A run from its beginning to its end: finish what an earlier Job began, observe, decide, act.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use pvmigrate_record::record::Record;
use tokio::sync::Mutex;

use crate::cluster::{Cluster, Object};
use crate::config::{Config, SourceVolumes};
use crate::drive::{End, drive, take_over};
use crate::exit::Exit;
use crate::fence::Fence;
use crate::migration::{Group, Migration};
use crate::mover::{Placement, mover_pod};
use crate::observe::{Observed, observe};
use crate::plan::{Plan, plan};
use crate::preflight;
use crate::report::{Line, Report, State};
use crate::stop::Stop;

mod records;

use records::{new_record, record_all, unfinished};

/// How many groups are moved at the same time.
const PARALLEL_GROUPS: usize = 4;

/// What every step needs.
pub struct Run {
    pub cluster: Cluster,
    pub config: Config,
    pub fence: Fence,
    /// The reclaim policies of the classes that exist.
    policies: BTreeMap<String, String>,
    owner: Option<OwnerReference>,
    report: Mutex<Report>,
}

impl Run {
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

    fn line(&self, record: &Record) -> Line {
        Line::of(record, self.config.source_volumes == SourceVolumes::Keep)
    }

    async fn note(&self, migrations: &[Migration]) -> Result<(), Stop> {
        let mut report = self.report.lock().await;
        for Migration { record, .. } in migrations {
            report
                .claims
                .insert(record.claim.to_string(), self.line(record));
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
    let earlier = Report::read(&cluster, &config).await?;
    let observed = observe(&cluster, &config).await?;
    let mut run = Run {
        fence: Fence::new(&cluster, &config, cluster_owner, owner.clone()).await?,
        policies: policies(&observed),
        owner,
        report: Mutex::new(earlier.unwrap_or_else(|| Report::new(&config, Timestamp::now()))),
        cluster,
        config,
    };
    let unfinished = unfinished(&run, &observed).await?;
    run.fence.settle().await?;
    let has_resumed = !unfinished.is_empty();
    if has_resumed {
        drive_all(&run, Group::gather(unfinished), Begun::ByAnEarlierJob).await?;
    }
    let observed = if has_resumed {
        observe(&run.cluster, &run.config).await?
    } else {
        observed
    };
    run.policies = policies(&observed);
    let plan = plan(&observed, &run.config);
    for (claim, why) in &plan.left {
        tracing::warn!(%claim, %why, "claim is left");
    }
    let mut refusals = preflight::refusals(&observed, &run.config, &plan);
    if refusals.is_empty() {
        refusals = refused_movers(&run, &plan).await?;
    }
    if !refusals.is_empty() {
        for why in &refusals {
            tracing::error!("preflight: {why}");
        }
        tracing::error!(
            "preflight refused for {} reasons; nothing was changed",
            refusals.len()
        );
        return Ok(Exit::Refused);
    }
    if plan.groups.is_empty() && !plan.has_failed && run.report.lock().await.claims.is_empty() {
        tracing::info!(class = %run.config.source_sc, "no claim of this StorageClass is to be moved; nothing to do");
        return Ok(Exit::Done);
    }
    run.report.lock().await.left = plan.left.iter().cloned().collect();
    let groups = record_all(&run, &observed, plan.groups).await?;
    drive_all(&run, groups, Begun::Now).await?;
    run.fence.tidy().await?;
    conclude(&run, plan.has_failed).await
}

async fn conclude(run: &Run, has_failed: bool) -> Result<Exit, Stop> {
    let mut report = run.report.lock().await;
    let has_failed = has_failed || report.has_failures();
    report.state = if has_failed {
        State::Failed
    } else {
        State::Complete
    };
    report.ended = Some(Timestamp::now());
    report
        .write(&run.cluster, &run.config, run.owner.as_ref())
        .await?;
    for line in report.table().lines() {
        tracing::info!("{line}");
    }
    Ok(if has_failed { Exit::Failed } else { Exit::Done })
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

/// Whether a mover would be admitted in each namespace: PodSecurity, quotas, other webhooks.
async fn refused_movers(run: &Run, plan: &Plan) -> Result<Vec<String>, Stop> {
    let mut refusals = Vec::new();
    let mut seen = Vec::new();
    for group in &plan.groups {
        let Some(claim) = group.claims.first() else {
            continue;
        };
        if seen.contains(&group.namespace) {
            continue;
        }
        seen.push(group.namespace.clone());
        let record = new_record(run, group, claim, &PersistentVolume::default());
        let mut pod = mover_pod(&record, &run.config, &Placement::default());
        // Under a name of its own: the mover that an earlier Job has made may still be there.
        pod.metadata.name = Some(format!("{}-probe", pod.name_any()));
        let api = run.cluster.namespaced(&group.namespace);
        match run.cluster.dry_run(&api, &pod).await {
            Ok(()) => {}
            Err(Stop::Refused(why)) => refusals.push(format!(
                "namespace {} does not admit a mover: {why}",
                group.namespace
            )),
            Err(other) => return Err(other),
        }
    }
    Ok(refusals)
}

#[derive(Clone, Copy, PartialEq)]
enum Begun {
    Now,
    ByAnEarlierJob,
}

/// Drives groups, several at once. A group that cannot go on by itself stops the process, after
/// the others have ended: the next pod goes on with it.
async fn drive_all(run: &Run, groups: Vec<Group>, begun: Begun) -> Result<(), Stop> {
    let ended: Vec<Result<(), Stop>> = stream::iter(groups)
        .map(|group| Box::pin(drive_one(run, group, begun)))
        .buffer_unordered(PARALLEL_GROUPS)
        .collect()
        .await;
    ended.into_iter().collect()
}

async fn drive_one(run: &Run, mut group: Group, begun: Begun) -> Result<(), Stop> {
    let end = async {
        if begun == Begun::ByAnEarlierJob {
            tracing::info!(group = %group.name, "an earlier Job has begun this; going on");
            take_over(run, &mut group).await?;
        }
        drive(run, &mut group).await
    }
    .await;
    let name = &group.name;
    match &end {
        Ok(End::Migrated) => tracing::info!(group = %name, "migrated"),
        Ok(End::TakenBack(why)) => {
            tracing::error!(group = %name, %why, "failed; its applications run on their sources");
        }
        Ok(End::Unfinished(why)) => tracing::error!(group = %name, %why, "migrated, but not well"),
        Err(stop) => tracing::error!(group = %name, why = %stop, "interrupted"),
    }
    // What a newer Job has taken over is not ours to report, and the fence may be its own.
    if !matches!(end, Err(Stop::Superseded(_))) {
        run.note(&group.claims).await?;
        run.fence.tidy().await?;
    }
    end.map(|_| ())
}

/// What a complete run has to say when it is asked again: which claims it did not cover.
pub async fn uncovered(
    cluster: &Cluster,
    config: &Config,
    report: &Report,
) -> Result<Vec<String>, Stop> {
    let claims = cluster
        .list(&cluster.all::<PersistentVolumeClaim>())
        .await?;
    Ok(claims
        .iter()
        .filter(|claim| Observed::class_of(claim) == Some(config.source_sc.as_str()))
        .filter(|claim| config.selects(&claim.namespace().unwrap_or_default()))
        .map(crate::plan::full_name)
        .filter(|name| !report.left.contains_key(name))
        .collect())
}
