//! Where one claim stands.

use std::collections::BTreeMap;

use pvmigrate_record::order::{Attribute, Level};
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Outcome, Record, Warm};
use serde::{Deserialize, Serialize};

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
    /// What was written to the destination, and how long it took, in all passes.
    pub bytes: u64,
    pub copy_seconds: f64,
    /// The passes while applications ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm: Option<Warm>,
    /// The same of the final pass alone, which the applications waited for.
    #[serde(default)]
    pub final_bytes: u64,
    #[serde(default)]
    pub final_seconds: f64,
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
        let warm = record.warm.clone().unwrap_or_default();
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
            files: if record.pass.is_some() {
                pass.totals.files
            } else {
                warm.files
            },
            bytes: warm.bytes + pass.totals.bytes,
            copy_seconds: warm.seconds + pass.seconds,
            warm: record.warm.clone(),
            final_bytes: pass.totals.bytes,
            final_seconds: pass.seconds,
            compared,
            lost: pass.lost,
            downtime_seconds: downtime,
            dispose: is_left_behind.then(|| {
                format!("kubectl patch pv {} -p '{{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"Delete\"}}}}'", record.source.name)
            }),
        }
    }
}
