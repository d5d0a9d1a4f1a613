//! The run's ConfigMap: what was asked, where each claim stands, and what comes next. A table for
//! people under `status`, the same for programs under `report.json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::order::Level;
use pvmigrate_record::record::Record;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::stop::Stop;

mod group;
mod line;

pub use group::GroupLine;
use line::Line;

const STATE: &str = "state";
const STATUS: &str = "status";
const REPORT: &str = "report.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Complete,
    Failed,
    /// Ended by `pvmigrate abort`: the same question asked again is answered anew.
    Aborted,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub run: String,
    pub state: State,
    pub source_class: String,
    pub destination_class: String,
    pub namespaces: Vec<String>,
    pub run_token: String,
    pub started: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// By namespace/name.
    pub claims: BTreeMap<String, Line>,
    /// By their names.
    #[serde(default)]
    pub groups: BTreeMap<String, GroupLine>,
    /// The group that the run's end waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_path: Option<String>,
    /// Claims of the source class that are not migrated, and why.
    #[serde(default)]
    pub left: BTreeMap<String, String>,
    /// What is worth knowing of a claim before it is moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, Vec<String>>,
    /// What was planned, when the run last began to move claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<serde_json::Value>,
    /// StatefulSets whose claim templates name the old class, and what to do about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, String>,
    /// The ConfigMap as it was written last.
    #[serde(skip)]
    stored: Option<ConfigMap>,
}

impl Report {
    pub fn new(config: &Config, now: Timestamp) -> Self {
        Self {
            run: config.run(),
            state: State::Running,
            source_class: config.source_sc.clone(),
            destination_class: config.dest_sc.clone(),
            namespaces: config.namespaces.clone(),
            run_token: config.run_token.clone(),
            started: now,
            ended: None,
            claims: BTreeMap::new(),
            groups: BTreeMap::new(),
            critical_path: None,
            left: BTreeMap::new(),
            templates: BTreeMap::new(),
            stored: None,
            plan: None,
            notes: BTreeMap::new(),
        }
    }

    /// Takes what the records of one group say.
    pub fn note<'a>(
        &mut self,
        records: impl Iterator<Item = &'a Record> + Clone,
        source_is_kept: bool,
    ) {
        for record in records.clone() {
            let line = Line::of(record, source_is_kept);
            self.claims.insert(record.claim.to_string(), line);
        }
        if let Some(first) = records.clone().next() {
            self.groups
                .insert(first.group.clone(), GroupLine::of(records));
        }
        let groups = self.groups.iter();
        let last = groups.max_by_key(|(_, line)| line.ended);
        self.critical_path = last
            .filter(|(_, line)| line.ended.is_some())
            .map(|(name, _)| name.clone());
    }

    pub fn has_failures(&self) -> bool {
        self.claims.values().any(|line| line.failure.is_some())
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "run {}: StorageClass {} to {}, {}\n",
            self.run,
            self.source_class,
            self.destination_class,
            match self.state {
                State::Running => "running",
                State::Complete => "complete",
                State::Failed => "ended, with failures",
                State::Aborted => "aborted",
            }
        );
        for (claim, line) in &self.claims {
            let downtime = line
                .downtime_seconds
                .map_or_else(|| "-".into(), |s| format!("{s:.1} s"));
            let _ = write!(
                text,
                "  {claim}: {:?}, {} files, {} bytes, copied in {:.1} s, downtime {downtime}",
                line.phase, line.files, line.bytes, line.copy_seconds
            );
            if line.compared == Some(Level::None) {
                text.push_str("\n    NOT COMPARED with its source: mover.verify is none");
            }
            if !line.lost.is_empty() {
                let lost: Vec<_> = line
                    .lost
                    .iter()
                    .map(|(what, count)| format!("{} of {count} entries", what.name()))
                    .collect();
                let _ = write!(
                    text,
                    "\n    lost, as mover.lose allows: {}",
                    lost.join(", ")
                );
            }
            if let Some(failure) = &line.failure {
                let _ = write!(text, "\n    FAILED: {failure}");
            }
            if let Some(dispose) = &line.dispose {
                let _ = write!(
                    text,
                    "\n    source {} is kept (Released, Retain); dispose of it with: {dispose}",
                    line.source_volume
                );
            }
            text.push('\n');
        }
        for (group, line) in &self.groups {
            let _ = writeln!(text, "  group {group}: {}", line.text());
        }
        if let Some(group) = &self.critical_path {
            let _ = writeln!(text, "  critical path: group {group} ended last");
        }
        for (claim, why) in &self.left {
            let _ = writeln!(text, "  {claim}: left, {why}");
        }
        for (set, what) in &self.templates {
            let _ = writeln!(text, "  StatefulSet {set}: {what}");
        }
        text
    }

    fn config_map(&self, config: &Config, owner: Option<&OwnerReference>) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(names::run_object(&self.run)),
                namespace: Some(config.release_namespace.clone()),
                labels: Some(BTreeMap::from([(names::RUN.into(), self.run.clone())])),
                owner_references: Some(owner.into_iter().cloned().collect()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (
                    STATE.into(),
                    json!(self.state).as_str().unwrap_or_default().to_string(),
                ),
                (STATUS.into(), self.table()),
                (
                    REPORT.into(),
                    serde_json::to_string_pretty(self).unwrap_or_default(),
                ),
            ])),
            ..ConfigMap::default()
        }
    }

    pub async fn write(
        &mut self,
        cluster: &Cluster,
        config: &Config,
        owner: Option<&OwnerReference>,
    ) -> Result<(), Stop> {
        let api = cluster.namespaced::<ConfigMap>(&config.release_namespace);
        let wanted = self.config_map(config, owner);
        let patch = json!({"data": wanted.data});
        let change = |state: &ConfigMap| Ok((state.data != wanted.data).then(|| patch.clone()));
        let stored = cluster
            .write(&api, self.stored.take(), &wanted, change)
            .await?;
        self.stored = Some(stored);
        Ok(())
    }

    /// What an earlier Job of this run has reported.
    pub async fn read(cluster: &Cluster, config: &Config) -> Result<Option<Self>, Stop> {
        let api = cluster.namespaced::<ConfigMap>(&config.release_namespace);
        let Some(map) = cluster.get(&api, &names::run_object(&config.run())).await? else {
            return Ok(None);
        };
        let name = map.name_any();
        let json = map
            .data
            .and_then(|mut data| data.remove(REPORT))
            .unwrap_or_default();
        serde_json::from_str(&json).map(Some).map_err(|error| {
            Stop::refused(format!(
                "ConfigMap {}/{name} holds the report of this run and cannot be read ({error}): delete it to let the run go on",
                config.release_namespace
            ))
        })
    }
}
