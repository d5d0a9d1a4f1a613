//! A run from its beginning to its end: finish what an earlier Job began, observe, decide, act.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::rbac::v1::{ClusterRole, Role};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{
    ClaimRef, Fence as Fencing, Freeze, Method, Record, VERSION, Volume,
};
use serde_json::json;
use tokio::sync::Mutex;

use crate::claim::manifest;
use crate::cluster::{Cluster, Object};
use crate::config::{Config, SourceVolumes};
use crate::drive::{End, drive, take_over};
use crate::exit::Exit;
use crate::fence::Fence;
use crate::migration::{Group, Migration};
use crate::mover::{Placement, mover_pod};
use crate::observe::{Observed, observe, record_of};
use crate::plan::{Plan, PlannedGroup, plan};
use crate::preflight;
use crate::report::{Line, Report, State};
use crate::stop::Stop;

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

    async fn note(&self, migrations: &[Migration]) -> Result<(), Stop> {
        let mut report = self.report.lock().await;
        for Migration { record, .. } in migrations {
            let line = Line::of(record, self.config.source_volumes == SourceVolumes::Keep);
            report.claims.insert(record.claim.to_string(), line);
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
    let has_resumed = !unfinished.is_empty();
    if has_resumed {
        let mut groups = Group::gather(unfinished);
        for group in &mut groups {
            tracing::info!(group = %group.name, "an earlier Job has begun this; going on");
            take_over(&run, group).await?;
        }
        drive_all(&run, groups).await?;
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
    if plan.groups.is_empty() && run.report.lock().await.claims.is_empty() {
        run.fence.tidy_if_left().await?;
        tracing::info!(class = %run.config.source_sc, "no claim of this StorageClass is to be moved; nothing to do");
        return Ok(Exit::Done);
    }
    run.report.lock().await.left = plan.left.iter().cloned().collect();
    let groups = record_all(&run, &observed, plan.groups).await?;
    drive_all(&run, groups).await?;
    run.fence.tidy().await?;
    conclude(&run).await
}

async fn conclude(run: &Run) -> Result<Exit, Stop> {
    let mut report = run.report.lock().await;
    report.state = if report.has_failures() {
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
    Ok(if report.has_failures() {
        Exit::Failed
    } else {
        Exit::Done
    })
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

/// The records of this release that are not finished, whatever their run. Those for which nothing
/// was done yet are left to the planner, which writes them anew.
async fn unfinished(run: &Run, observed: &Observed) -> Result<Vec<Migration>, Stop> {
    let mut all = Vec::new();
    let mut every = Vec::new();
    for volume in observed.volumes.values() {
        let record = match record_of(volume) {
            Some(Ok(record)) if record.release == run.config.release() => record,
            Some(Err(error)) => {
                tracing::error!(volume = %volume.name_any(), %error, "a record cannot be read");
                continue;
            }
            _ => continue,
        };
        every.push(record.clone());
        let is_untouched = record.phase == Phase::Planned
            && record.heading == Heading::Destination
            && record.destination.is_none()
            && !record.fence.on;
        if record.is_finished() || (is_untouched && record.run == run.config.run()) {
            continue;
        }
        all.push(Migration {
            record,
            volume: volume.clone(),
        });
    }
    run.fence.learn(&every).await;
    Ok(all)
}

/// Writes the records of every planned claim before anything else is done to one of them: what a
/// later Job finds of a group is then all of it.
async fn record_all(
    run: &Run,
    observed: &Observed,
    planned: Vec<PlannedGroup>,
) -> Result<Vec<Group>, Stop> {
    let mut groups = Vec::new();
    for plan in planned {
        let mut claims = Vec::new();
        for claim in &plan.claims {
            let Some(volume) = observed.volume_of(claim) else {
                continue;
            };
            let mut migration = Migration {
                record: new_record(run, &plan, claim, volume),
                volume: volume.clone(),
            };
            migration.save(&run.cluster, json!({})).await?;
            tracing::info!(claim = %migration.record.claim, group = %plan.name, "planned");
            claims.push(migration);
        }
        groups.push(Group {
            name: plan.name,
            namespace: plan.namespace,
            claims,
            watch: None,
        });
    }
    for group in &groups {
        run.note(&group.claims).await?;
    }
    Ok(groups)
}

fn new_record(
    run: &Run,
    group: &PlannedGroup,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Record {
    let now = Timestamp::now();
    let earlier = record_of(volume)
        .and_then(Result::ok)
        .filter(|record| record.run == run.config.run());
    let policy = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.persistent_volume_reclaim_policy.clone());
    Record {
        version: VERSION,
        release: run.config.release(),
        run: run.config.run(),
        epoch: earlier.as_ref().map_or(1, |earlier| earlier.epoch),
        job: earlier.map_or_else(|| run.config.pod.clone(), |earlier| earlier.job),
        phase: Phase::Planned,
        heading: Heading::Destination,
        fence: Fencing::default(),
        outcome: None,
        claim: ClaimRef {
            namespace: claim.namespace().unwrap_or_default(),
            name: claim.name_any(),
            uid: claim.uid().unwrap_or_default(),
        },
        source_class: run.config.source_sc.clone(),
        destination_class: run.config.dest_sc.clone(),
        source: Volume {
            name: volume.name_any(),
            uid: volume.uid().unwrap_or_default(),
            reclaim_policy: policy.unwrap_or_else(|| "Delete".into()),
        },
        destination: None,
        manifest: manifest(claim, &[]),
        group: group.name.clone(),
        freeze: Freeze {
            method: Method::Scale,
            workloads: group.workloads.clone(),
        },
        consumers: Vec::new(),
        pass: None,
        stopped: None,
        ready: None,
        failure: None,
        times: BTreeMap::from([(Phase::Planned, now)]),
    }
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
        let pod = mover_pod(&record, &run.config, &Placement::default());
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

/// Drives groups, several at once. A group that cannot go on by itself stops the process, after
/// the others have ended: the next pod goes on with it.
async fn drive_all(run: &Run, groups: Vec<Group>) -> Result<(), Stop> {
    let ended: Vec<Result<(), Stop>> = stream::iter(groups)
        .map(|mut group| async move {
            let end = drive(run, &mut group).await;
            match &end {
                Ok(End::Migrated) => tracing::info!(group = %group.name, "migrated"),
                Ok(End::TakenBack(why)) => tracing::error!(group = %group.name, %why, "failed; its applications run on their sources"),
                Ok(End::NotReady(why)) => tracing::error!(group = %group.name, %why, "migrated, but its applications are not Ready"),
                Err(stop) => tracing::error!(group = %group.name, why = %stop, "interrupted"),
            }
            run.note(&group.claims).await?;
            run.fence.tidy().await?;
            end.map(|_| ())
        })
        .buffer_unordered(PARALLEL_GROUPS)
        .collect()
        .await;
    ended.into_iter().collect()
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

/// Whether a volume has a record: what `status` lists.
pub fn label_selector() -> String {
    format!("{},{}={}", names::RUN, names::ROLE, names::ROLE_SOURCE)
}
