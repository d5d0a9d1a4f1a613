//! What has to be changed where the manifests of claims are kept, so that the next `apply` wants
//! what the run has made: patches of a kustomization, ready to be pasted.

use std::collections::BTreeMap;
use std::fmt::Write;

use kube::ResourceExt;
use serde::Serialize;

use crate::claim::wishes;
use crate::config::Config;
use crate::observe::Observed;
use crate::plan::{Plan, full_name};

/// One manifest, and its patch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    pub kind: String,
    pub name: String,
    pub patch: String,
}

/// A claim of a StatefulSet's template is changed in the template; any other in its own manifest.
pub fn sources(plan: &Plan, observed: &Observed, config: &Config) -> Vec<Source> {
    let mut sets: BTreeMap<(String, String), BTreeMap<usize, String>> = BTreeMap::new();
    let mut all = Vec::new();
    for claim in plan.groups.iter().flat_map(|group| &group.claims) {
        let namespace = claim.namespace().unwrap_or_default();
        if let Some((set, index, template)) = template(observed, &namespace, &claim.name_any()) {
            sets.entry((namespace, set))
                .or_default()
                .insert(index, template);
            continue;
        }
        let mut changes = vec![("/spec/storageClassName".to_string(), config.dest_sc.clone())];
        let wishes = wishes(claim, config).unwrap_or_default();
        if let Some(size) = wishes.storage {
            changes.push(("/spec/resources/requests/storage".into(), size));
        }
        if !wishes.access_modes.is_empty() {
            let modes = format!("[{}]", wishes.access_modes.join(", "));
            changes.push(("/spec/accessModes".into(), modes));
        }
        all.push(Source {
            kind: "PersistentVolumeClaim".into(),
            name: full_name(claim),
            patch: patch(
                "version: v1, kind: PersistentVolumeClaim",
                &namespace,
                &claim.name_any(),
                &changes,
            ),
        });
    }
    for ((namespace, set), templates) in sets {
        let changes: Vec<_> = templates
            .keys()
            .map(|index| {
                let path = format!("/spec/volumeClaimTemplates/{index}/spec/storageClassName");
                (path, config.dest_sc.clone())
            })
            .collect();
        // The API server takes no such change.
        let hint = format!(
            "# before it is applied: kubectl -n {namespace} delete statefulset {set} --cascade=orphan\n"
        );
        let target = "group: apps, version: v1, kind: StatefulSet";
        all.push(Source {
            kind: "StatefulSet".into(),
            name: format!("{namespace}/{set}"),
            patch: hint + &patch(target, &namespace, &set, &changes),
        });
    }
    all
}

/// The StatefulSet whose template a claim was made from, and the template's place and name.
fn template(observed: &Observed, namespace: &str, claim: &str) -> Option<(String, usize, String)> {
    let sets = observed
        .workloads
        .iter()
        .filter(|seen| seen.workload.kind == "StatefulSet" && seen.workload.namespace == namespace);
    for set in sets {
        for (index, template) in set.claim_templates.iter().enumerate() {
            let prefix = format!("{template}-{}-", set.workload.name);
            let ordinal = claim.strip_prefix(&prefix);
            if ordinal.is_some_and(|ordinal| ordinal.parse::<u32>().is_ok()) {
                return Some((set.workload.name.clone(), index, template.clone()));
            }
        }
    }
    None
}

fn patch(target: &str, namespace: &str, name: &str, changes: &[(String, String)]) -> String {
    let mut text =
        format!("- target: {{{target}, namespace: {namespace}, name: {name}}}\n  patch: |-\n");
    for (path, value) in changes {
        let _ = writeln!(text, "    - {{op: add, path: {path}, value: {value}}}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::observe::ObservedWorkload;
    use crate::plan::plan;
    use crate::plan::tests::{observed, workload};

    #[test]
    fn claims_of_a_set_are_changed_in_its_template_once() {
        let mut observed = observed(&["data-db-0", "data-db-1", "x"]);
        observed.workloads = vec![ObservedWorkload {
            claim_templates: vec!["log".into(), "data".into()],
            ..workload("StatefulSet", "db", &[])
        }];
        let config = config(&[]);
        let sources = sources(&plan(&observed, &config), &observed, &config);
        let names: Vec<_> = sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(names, ["shop/x", "shop/db"]);
        assert_eq!(
            sources[1].patch,
            "# before it is applied: kubectl -n shop delete statefulset db --cascade=orphan
- target: {group: apps, version: v1, kind: StatefulSet, namespace: shop, name: db}
  patch: |-
    - {op: add, path: /spec/volumeClaimTemplates/1/spec/storageClassName, value: b}
"
        );
    }
}
