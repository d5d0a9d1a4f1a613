//! The run's ConfigMap: what was asked, where each claim stands, and what comes next. A table for
//! people under `status`, the same for programs under `report.json`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::order::{Attribute, Level};
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Outcome, Record};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::stop::Stop;

const STATE: &str = "state";
const STATUS: &str = "status";
const REPORT: &str = "report.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Running,
    Complete,
    Failed,
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
    /// Claims of the source class that are not migrated, and why.
    #[serde(default)]
    pub left: BTreeMap<String, String>,
}

/// Where one claim stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    pub group: String,
    pub phase: Phase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    pub source_volume: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_volume: Option<String>,
    pub files: u64,
    pub bytes: u64,
    pub copy_seconds: f64,
    /// What of the copy was compared with its source; none as long as there is no copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Level>,
    /// What was let go as a setting allows, and of how many entries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<Attribute, u64>,
    /// From the moment its workloads were stopped until they were Ready again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<f64>,
    /// How to dispose of a volume that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispose: Option<String>,
}

impl Line {
    pub fn of(record: &Record, source_is_kept: bool) -> Self {
        let compared = record
            .pass
            .as_ref()
            .filter(|pass| pass.ok && record.heading == Heading::Destination)
            .map(|pass| {
                let verified = pass.verified.as_ref();
                verified.map_or(Level::None, |verified| verified.level)
            });
        let pass = record.pass.clone().unwrap_or_default();
        let downtime = record
            .stopped
            .zip(record.ready)
            .map(|(stopped, ready)| ready.duration_since(stopped).as_secs_f64());
        let is_left_behind =
            record.is_finished() && record.heading == Heading::Destination && source_is_kept;
        Self {
            group: record.group.clone(),
            phase: record.phase,
            outcome: record.outcome,
            failure: record.failure.as_ref().map(|failure| failure.message.clone()),
            source_volume: record.source.name.clone(),
            destination_volume: record.destination.as_ref().map(|volume| volume.name.clone()),
            files: pass.totals.files,
            bytes: pass.totals.bytes,
            copy_seconds: pass.seconds,
            compared,
            lost: pass.lost,
            downtime_seconds: downtime,
            dispose: is_left_behind.then(|| {
                format!("kubectl patch pv {} -p '{{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"Delete\"}}}}'", record.source.name)
            }),
        }
    }
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
            left: BTreeMap::new(),
        }
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
        for (claim, why) in &self.left {
            let _ = writeln!(text, "  {claim}: left, {why}");
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
        &self,
        cluster: &Cluster,
        config: &Config,
        owner: Option<&OwnerReference>,
    ) -> Result<(), Stop> {
        let api = cluster.namespaced::<ConfigMap>(&config.release_namespace);
        let wanted = self.config_map(config, owner);
        let known = cluster.create(&api, &wanted).await?;
        let patch = json!({"data": wanted.data});
        cluster
            .update(&api, known, |state| {
                Ok((state.data != wanted.data).then(|| patch.clone()))
            })
            .await?;
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
