//! How long the applications of a group are predicted to be down. Pure.
//!
//! | what | counts |
//! |---|---|
//! | stopping, the swap of the claims, starting | 3 s, whatever the size |
//! | the final pass, measured | what the last pass said that the next one would take |
//! | the final pass, not measured, after warm ones | nothing: only what changed meanwhile is copied |
//! | the final pass, not measured, without warm ones | the claim's whole size, at 100 MiB/s or `mover.bandwidth` |

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::num::NonZeroU64;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use pvmigrate_record::order::PassReport;
use pvmigrate_record::record::{ClaimManifest, Record};
use serde::Serialize;

use super::PlannedGroup;
use crate::claim::{storage, wanted};
use crate::config::Config;
use crate::observe::{Observed, record_of};
use crate::quantity::{bytes, quantity};

/// Seconds that an application of one pod is down for nothing but the swap.
const SWAP: f64 = 3.0;
/// Bytes a second of a copy of which nothing is known.
const PACE: u64 = 100 << 20;

/// A prediction, and what it rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Downtime {
    pub seconds: f64,
    /// Nobody is stopped.
    pub none: bool,
    /// The bytes that are copied with the applications stopped, if the claims are full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_bytes: Option<u128>,
    /// Bytes a second, of those.
    #[serde(skip)]
    pace: u64,
}

/// By what groups are ordered: the shorter downtime first, of the same one the least to copy, unless
/// others of a set wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub downtime: Duration,
    /// As the last pass has counted them, else as many as the claims may hold.
    pub bytes: u128,
}

/// What moves as one, planned or recorded.
pub struct Moved<'a> {
    namespace: &'a str,
    /// Somebody would be stopped for it.
    freezes: bool,
    /// With the names of claims, and of the volumes that they have or had.
    claims: Vec<(&'a str, Option<&'a str>, Cow<'a, ClaimManifest>)>,
}

impl<'a> Moved<'a> {
    pub fn planned(group: &'a PlannedGroup, config: &Config) -> Self {
        let claims = group.claims.iter().map(|claim| {
            let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            (name, volume, Cow::Owned(wanted(claim, config)))
        });
        Self {
            namespace: &group.namespace,
            freezes: !group.freeze.is_empty(),
            claims: claims.collect(),
        }
    }

    /// Of one group.
    pub fn recorded(records: &[&'a Record]) -> Self {
        let claims = records.iter().map(|record| {
            let volume = Some(record.source.name.as_str());
            let name = record.claim.name.as_str();
            (name, volume, Cow::Borrowed(&record.manifest))
        });
        Self {
            namespace: records.first().map_or("", |r| &r.claim.namespace),
            freezes: records.iter().any(|r| !r.freeze.workloads.is_empty()),
            claims: claims.collect(),
        }
    }

    pub fn weight(&self, observed: &Observed, config: &Config) -> Weight {
        let bytes = self.claims.iter().map(|(_, volume, manifest)| {
            let pass = last_pass(*volume, observed);
            let counted = pass.map(|pass| u128::from(pass.totals.bytes));
            counted
                .or_else(|| bytes(&manifest.capacity))
                .unwrap_or_default()
        });
        let seconds = self.downtime(observed, config).seconds;
        Weight {
            downtime: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
            bytes: bytes.sum(),
        }
    }

    pub fn downtime(&self, observed: &Observed, config: &Config) -> Downtime {
        let limit = config.mover_bandwidth.map_or(PACE, NonZeroU64::get);
        let mut downtime = Downtime {
            seconds: 0.0,
            none: !self.freezes || !self.is_running(observed),
            cold_bytes: None,
            pace: limit.min(PACE),
        };
        if downtime.none {
            return downtime;
        }
        let mut cold = 0;
        for (name, volume, manifest) in &self.claims {
            let is_used = || observed.node_of(self.namespace, name).is_some();
            match last_pass(*volume, observed) {
                // Claims of a group are copied at the same time.
                Some(pass) => {
                    let next = pass.next_seconds.unwrap_or(pass.seconds);
                    downtime.seconds = downtime.seconds.max(next);
                }
                // All of it is copied with its application stopped.
                None if !config.warm || (manifest.is_for_one_pod() && is_used()) => {
                    cold += bytes(&manifest.capacity).unwrap_or_default();
                }
                None => {}
            }
        }
        if cold > 0 {
            downtime.cold_bytes = Some(cold);
            let seconds = u32::try_from(cold / u128::from(downtime.pace)).unwrap_or(u32::MAX);
            downtime.seconds = downtime.seconds.max(f64::from(seconds));
        }
        downtime.seconds += SWAP;
        downtime
    }

    fn is_running(&self, observed: &Observed) -> bool {
        observed.pods.iter().any(|pod| {
            let mut claims = self.claims.iter();
            !pod.completed
                && pod.workload.namespace == self.namespace
                && claims.any(|(name, ..)| pod.claims.contains(*name))
        })
    }
}

/// The last pass over a claim, by its volume.
fn last_pass(volume: Option<&str>, observed: &Observed) -> Option<PassReport> {
    let volume = observed.volumes.get(volume?)?;
    record_of(volume)?.ok()?.pass
}

pub fn capacity(claim: &PersistentVolumeClaim) -> String {
    let status = claim.status.as_ref();
    storage(status.and_then(|status| status.capacity.as_ref()))
}

impl Display for Downtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.none {
            return f.write_str("predicted downtime: none, nobody is stopped");
        }
        write!(f, "predicted downtime: {:.0} s", self.seconds.ceil())?;
        match self.cold_bytes {
            None => Ok(()),
            Some(bytes) => write!(
                f,
                ", if {} are full and copied at {} a second",
                quantity(bytes),
                quantity(self.pace.into())
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::config;
    use crate::plan::plan;
    use crate::plan::tests::{from, observed, workload};

    fn said(settings: &[(&str, &str)], access_mode: &str, used: bool) -> String {
        let mut observed = observed(&["x"]);
        observed.claims[0].status = from(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}));
        let spec = observed.claims[0].spec.get_or_insert_default();
        spec.access_modes = Some(vec![access_mode.into()]);
        if used {
            observed.workloads = vec![workload("Deployment", "web", &["x"])];
            let owner = crate::plan::tests::owner("apps/v1", "Deployment", "web");
            observed.pods = vec![crate::plan::tests::pod("p", owner, &["x"])];
        }
        let config = config(settings);
        let plan = plan(&observed, &config);
        Moved::planned(&plan.groups[0], &config)
            .downtime(&observed, &config)
            .to_string()
    }

    #[test]
    fn the_downtime_is_predicted_by_what_is_copied_while_applications_are_stopped() {
        let cold = [("PVMIGRATE_WARM", "false")];
        let slow = [
            ("PVMIGRATE_WARM", "false"),
            ("PVMIGRATE_MOVER_BANDWIDTH", "1Mi"),
        ];
        for (settings, mode, used, expected) in [
            (
                &[][..],
                "ReadWriteOnce",
                false,
                "predicted downtime: none, nobody is stopped",
            ),
            (&[], "ReadWriteOnce", true, "predicted downtime: 3 s"),
            (
                &[],
                "ReadWriteOncePod",
                true,
                "predicted downtime: 23 s, if 2Gi are full and copied at 100Mi a second",
            ),
            (
                &cold,
                "ReadWriteOnce",
                true,
                "predicted downtime: 23 s, if 2Gi are full and copied at 100Mi a second",
            ),
            (
                &slow,
                "ReadWriteOnce",
                true,
                "predicted downtime: 2051 s, if 2Gi are full and copied at 1Mi a second",
            ),
        ] {
            assert_eq!(said(settings, mode, used), expected, "{settings:?} {mode}");
        }
    }
}
