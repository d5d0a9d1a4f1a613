//! The records of a run: those that an earlier Job left, and those that it begins with.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{ClaimRef, Fence, Freeze, Record, VERSION, Volume};
use serde_json::json;

use super::Run;
use crate::claim::wanted;
use crate::config::class_of;
use crate::migration::{Group, Migration};
use crate::observe::{Observed, record_of};
use crate::plan::{Plan, PlannedGroup};
use crate::stop::Stop;

/// The records of this release that are not finished, whatever their run.
pub async fn unfinished(run: &Run, observed: &Observed) -> Result<Vec<Migration>, Stop> {
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
        if record.is_finished() {
            continue;
        }
        all.push(Migration::new(record, volume.clone()));
    }
    run.fence.learn(&every).await;
    // A Job may have ended between the records and its report.
    let ended = |record: &&Record| record.is_finished() && record.run == run.config.run();
    let mut report = run.report.lock().await;
    let groups: BTreeSet<&String> = every.iter().filter(ended).map(|r| &r.group).collect();
    for name in groups {
        let of_group = every.iter().filter(ended).filter(|r| &r.group == name);
        report.note(of_group, run.keeps_sources());
    }
    drop(report);
    Ok(all)
}

/// The groups of a plan, with records that nobody has written yet.
pub fn planned(run: &Run, observed: &Observed, plan: &Plan) -> Vec<Group> {
    let migration = |group: &PlannedGroup, claim: &PersistentVolumeClaim| {
        let volume = observed.volume_of(claim)?;
        let record = new_record(run, group, claim, volume);
        Some(Migration::new(record, volume.clone()))
    };
    let groups = plan.groups.iter().map(|group| {
        let claims = group.claims.iter();
        let claims = claims.filter_map(|claim| migration(group, claim));
        Group::new(
            group.name.clone(),
            group.namespace.clone(),
            claims.collect(),
        )
    });
    groups.collect()
}

/// Writes the records of every planned claim before anything else is done to one of them: what a
/// later Job finds of a group is then all of it.
pub async fn record_all(run: &Run, plan: &Plan, groups: &mut [Group]) -> Result<(), Stop> {
    for (plan, group) in plan.groups.iter().zip(groups.iter_mut()) {
        say(plan);
        for migration in &mut group.claims {
            migration.save(&run.cluster, json!({})).await?;
            tracing::info!(claim = %migration.record.claim, group = %group.name, "planned");
        }
    }
    run.note(groups.iter()).await
}

/// What is planned for a group, for the log.
pub fn say(group: &PlannedGroup) {
    let name = &group.name;
    for why in &group.why {
        tracing::info!(group = %name, wave = group.wave, "{why}");
    }
    for budget in &group.overridden {
        tracing::warn!(group = %name, "{budget} is not asked");
    }
}

pub fn new_record(
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
        fence: Fence::default(),
        outcome: None,
        claim: ClaimRef {
            namespace: claim.namespace().unwrap_or_default(),
            name: claim.name_any(),
            uid: claim.uid().unwrap_or_default(),
        },
        source_class: class_of(claim, Some(volume)).into(),
        destination_class: run.config.dest_sc.clone(),
        source: Volume {
            name: volume.name_any(),
            uid: volume.uid().unwrap_or_default(),
            reclaim_policy: policy.unwrap_or_else(|| "Delete".into()),
        },
        destination: None,
        manifest: wanted(claim, &run.config),
        group: group.name.clone(),
        wave: group.wave,
        freeze: Freeze {
            workloads: group.freeze.clone(),
        },
        consumers: Vec::new(),
        warm: None,
        pass: None,
        stopped: None,
        ready: None,
        failure: None,
        times: BTreeMap::from([(Phase::Planned, now)]),
    }
}
