//! The plan as it is shown: a table for people, the same objects as JSON for programs. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write;

use kube::ResourceExt;
use pvmigrate_record::record::Freezing;
use serde::Serialize;

use super::downtime::{Downtime, Moved, Weight, capacity};
use super::{Plan, PlannedGroup, full_name, lane, unused};
use crate::claim::wishes;
use crate::config::{Config, class_of};
use crate::observe::{Observed, record_of};

mod sources;

use sources::{Source, sources};

/// What a run would do, and what is left to do after it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    pub run: String,
    pub source_class: String,
    pub destination_class: String,
    /// In the order in which they may start.
    pub groups: Vec<Group>,
    /// Claims that are asked for and not moved, and why.
    pub left: BTreeMap<String, String>,
    /// Volumes of the source class that no claim uses, and why.
    pub volumes_left: BTreeMap<String, String>,
    /// Why the run would not begin.
    pub refusals: Vec<String>,
    /// What has to be changed where manifests are kept.
    pub sources: Vec<Source>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub name: String,
    pub wave: i64,
    pub downtime: Downtime,
    pub freeze: Vec<Freezing>,
    /// How each workload is stopped and why, as a sentence.
    pub why: Vec<String>,
    /// PodDisruptionBudgets that are not asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overridden: Vec<String>,
    pub claims: Vec<Claim>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    pub name: String,
    pub class: String,
    /// What it has, a Kubernetes quantity.
    pub size: String,
    /// What it is made with, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_size: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new_access_modes: Vec<String>,
    /// Where its consumer runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What an earlier pass over it has counted and taken. Before the first one nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

impl Shown {
    pub fn of(plan: &Plan, observed: &Observed, config: &Config) -> Self {
        let mut groups: Vec<&PlannedGroup> = plan.groups.iter().collect();
        // As the schedule does.
        groups.sort_by_cached_key(|group| {
            let Weight { downtime, bytes } = Moved::planned(group, config).weight(observed, config);
            let lane = lane(&group.freeze);
            let behind = plan.groups.iter().filter(|other| {
                let other = super::lane(&other.freeze);
                let both = lane.as_ref().zip(other);
                both.is_some_and(|(lane, other)| {
                    lane.set == other.set && lane.ordinal > other.ordinal
                })
            });
            (group.wave, downtime, Reverse(behind.count()), bytes)
        });
        Self {
            run: config.run(),
            source_class: config.source_sc.clone(),
            destination_class: config.dest_sc.clone(),
            groups: groups
                .into_iter()
                .map(|group| shown(group, observed, config))
                .collect(),
            left: plan.left.iter().cloned().collect(),
            volumes_left: unused(observed, config).into_iter().collect(),
            refusals: plan.refusals.clone(),
            sources: sources(plan, observed, config),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "run {}: StorageClass {} to {}\n",
            self.run, self.source_class, self.destination_class
        );
        if self.groups.is_empty() {
            text.push_str("no claim is to be moved\n");
        }
        for (number, group) in self.groups.iter().enumerate() {
            let _ = writeln!(text, "{}. {}", number + 1, group.name);
            for why in &group.why {
                let _ = writeln!(text, "   {why}");
            }
            let _ = writeln!(text, "   {}", group.downtime);
            for budget in &group.overridden {
                let _ = writeln!(text, "   PodDisruptionBudget {budget} is not asked");
            }
            for claim in &group.claims {
                let _ = writeln!(text, "   {}", claim.line());
            }
        }
        for (claim, why) in &self.left {
            let _ = writeln!(text, "left: claim {claim}: {why}");
        }
        for (volume, why) in &self.volumes_left {
            let _ = writeln!(text, "left: volume {volume}: {why}");
        }
        for why in &self.refusals {
            let _ = writeln!(text, "refused: {why}");
        }
        if !self.sources.is_empty() {
            text.push_str("\nAfterwards, where the manifests are kept (patches of a kustomization):\n\npatches:\n");
        }
        for source in &self.sources {
            text.push_str(&source.patch);
        }
        text
    }
}

impl Claim {
    fn line(&self) -> String {
        let mut line = format!("claim {}, {}", self.name, self.size);
        if let Some(size) = &self.new_size {
            let _ = write!(line, ", made {size}");
        }
        if !self.new_access_modes.is_empty() {
            let _ = write!(line, ", made {}", self.new_access_modes.join(","));
        }
        if let Some(node) = &self.node {
            let _ = write!(line, ", on node {node}");
        }
        match (self.files, self.seconds) {
            (Some(files), Some(seconds)) => {
                let _ = write!(line, ", {files} files, {seconds:.1} s by its last pass");
            }
            _ => line.push_str(", not measured yet"),
        }
        line
    }
}

fn shown(group: &PlannedGroup, observed: &Observed, config: &Config) -> Group {
    let claims = group.claims.iter().map(|claim| {
        let volume = observed.volume_of(claim);
        let pass = volume
            .and_then(record_of)
            .and_then(Result::ok)
            .and_then(|record| record.pass);
        let wishes = wishes(claim, config).unwrap_or_default();
        Claim {
            name: full_name(claim),
            class: class_of(claim, volume).into(),
            size: capacity(claim),
            new_size: wishes.storage,
            new_access_modes: wishes.access_modes,
            node: observed
                .node_of(&group.namespace, &claim.name_any())
                .map(Into::into),
            files: pass.as_ref().map(|pass| pass.totals.files),
            seconds: pass.map(|pass| pass.seconds),
        }
    });
    Group {
        name: group.name.clone(),
        wave: group.wave,
        downtime: Moved::planned(group, config).downtime(observed, config),
        freeze: group.freeze.clone(),
        why: group.why.clone(),
        overridden: group.overridden.clone(),
        claims: claims.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::config;
    use crate::plan::plan;
    use crate::plan::tests::{from, observed};

    #[test]
    fn a_plan_is_shown_with_sizes_and_with_what_is_left_to_change() {
        let mut observed = observed(&["x", "y"]);
        observed.claims[0].status = from(json!({"phase": "Bound", "capacity": {"storage": "2Gi"}}));
        let config = config(&[
            ("PVMIGRATE_SIZES", "shop/x=3Gi"),
            ("PVMIGRATE_EXCLUDE_CLAIMS", "shop/y"),
        ]);
        let shown = Shown::of(&plan(&observed, &config), &observed, &config);
        let expected = format!(
            "run {}: StorageClass a to b
1. shop/claim/x
   predicted downtime: none, nobody is stopped
   claim shop/x, 2Gi, made 3Gi, not measured yet
left: claim shop/y: excludeClaims names it

Afterwards, where the manifests are kept (patches of a kustomization):

patches:
- target: {{version: v1, kind: PersistentVolumeClaim, namespace: shop, name: x}}
  patch: |-
    - {{op: add, path: /spec/storageClassName, value: b}}
    - {{op: add, path: /spec/resources/requests/storage, value: 3Gi}}
",
            config.run()
        );
        assert_eq!(shown.table(), expected);
        let json = serde_json::to_value(&shown).unwrap();
        assert_eq!(json["groups"][0]["claims"][0]["newSize"], "3Gi");
        assert_eq!(
            json["groups"][0]["downtime"],
            json!({"seconds": 0.0, "none": true})
        );
        assert_eq!(json["left"]["shop/y"], "excludeClaims names it");
    }
}
