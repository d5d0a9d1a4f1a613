//! The workloads of the kinds that Kubernetes has: whatever makes pods from a template.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PodAffinityTerm, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use pvmigrate_record::names;
use pvmigrate_record::record::Workload;

use super::{controller, word};
use crate::cluster::{Cluster, Object};
use crate::config::Config;
use crate::mover::Placement;
use crate::stop::Stop;

/// A workload, with what the plan needs of it.
#[derive(Clone, Debug, Default)]
pub struct ObservedWorkload {
    pub workload: Workload,
    /// What controls it.
    pub controller: Option<OwnerReference>,
    /// The claims that its template names.
    pub claims: BTreeSet<String>,
    /// Names of its `volumeClaimTemplates`.
    pub claim_templates: Vec<String>,
    pub replicas: i32,
    /// The ordinal of a StatefulSet's first pod.
    pub first_ordinal: i32,
    /// Where its pods may run.
    pub placement: Placement,
    /// What its pods do not run beside: the terms of its required anti-affinity.
    pub apart: Vec<PodAffinityTerm>,
    /// The labels of its template.
    pub pod_labels: BTreeMap<String, String>,
    /// Whether it can be scaled.
    pub has_scale: bool,
    /// The GitOps tool that keeps its spec as it stands in a repository.
    pub tracked_by: Option<&'static str>,
    /// The values of its `pvmigrate.io/frozen`, `pvmigrate.io/freeze` and `pvmigrate.io/wave`.
    pub frozen: Option<String>,
    pub freeze: Option<String>,
    pub wave: Option<String>,
}

impl ObservedWorkload {
    /// What the metadata of any object say.
    pub fn of(
        workload: Workload,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
    ) -> Self {
        let value = |name: &str| annotations.get(name).cloned();
        Self {
            workload,
            tracked_by: tracked_by(labels, annotations),
            frozen: value(names::FROZEN),
            freeze: value(names::FREEZE),
            wave: value(names::WAVE),
            ..Self::default()
        }
    }
}

/// Whether pods of such an owner come from a template that is observed.
pub fn is_built_in(api_version: &str, kind: &str) -> bool {
    matches!(
        (api_version, kind),
        (
            "apps/v1",
            "Deployment" | "StatefulSet" | "ReplicaSet" | "DaemonSet"
        ) | ("batch/v1", "Job" | "CronJob")
            | ("v1", "ReplicationController")
    )
}

pub async fn list(cluster: &Cluster, config: &Config) -> Result<Vec<ObservedWorkload>, Stop> {
    let mut all = of_kind(cluster, config, |object: &Deployment, seen| {
        let spec = object.spec.as_ref()?;
        seen.replicas = spec.replicas.unwrap_or(1);
        Some(spec.template.clone())
    })
    .await?;
    all.extend(
        of_kind(cluster, config, |object: &StatefulSet, seen| {
            let spec = object.spec.as_ref()?;
            let templates = spec.volume_claim_templates.iter().flatten();
            seen.claim_templates = templates.map(ResourceExt::name_any).collect();
            seen.replicas = spec.replicas.unwrap_or(1);
            seen.first_ordinal = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
            Some(spec.template.clone())
        })
        .await?,
    );
    all.extend(
        of_kind(cluster, config, |object: &ReplicaSet, seen| {
            let spec = object.spec.as_ref()?;
            seen.replicas = spec.replicas.unwrap_or(1);
            spec.template.clone()
        })
        .await?,
    );
    all.extend(
        of_kind(cluster, config, |object: &ReplicationController, seen| {
            let spec = object.spec.as_ref()?;
            seen.replicas = spec.replicas.unwrap_or(1);
            spec.template.clone()
        })
        .await?,
    );
    all.extend(
        of_kind(cluster, config, |object: &DaemonSet, seen| {
            seen.has_scale = false;
            let status = object.status.as_ref();
            seen.replicas = status.map_or(0, |status| status.desired_number_scheduled);
            Some(object.spec.as_ref()?.template.clone())
        })
        .await?,
    );
    all.extend(
        of_kind(cluster, config, |object: &Job, seen| {
            seen.has_scale = false;
            (!has_finished(object)).then_some(object.spec.as_ref()?.template.clone())
        })
        .await?,
    );
    all.extend(
        of_kind(cluster, config, |object: &CronJob, seen| {
            seen.has_scale = false;
            let jobs = object.spec.as_ref()?.job_template.spec.as_ref()?;
            Some(jobs.template.clone())
        })
        .await?,
    );
    Ok(all)
}

/// The workloads of one kind. `template` returns what their pods are made from, none for what makes
/// no pods any more, and notes what else its kind has to say.
async fn of_kind<K: Object>(
    cluster: &Cluster,
    config: &Config,
    template: impl Fn(&K, &mut ObservedWorkload) -> Option<PodTemplateSpec>,
) -> Result<Vec<ObservedWorkload>, Stop> {
    cluster
        .collect(&cluster.all(), |object: K| {
            if !config.selects(&object.namespace()?) {
                return None;
            }
            let mut seen =
                ObservedWorkload::of(word(&object), object.labels(), object.annotations());
            seen.has_scale = true;
            seen.controller = controller(&object);
            let template = template(&object, &mut seen)?;
            seen.claims = template_claims(&template);
            seen.placement = template
                .spec
                .as_ref()
                .map(Placement::of)
                .unwrap_or_default();
            seen.apart = apart(&template);
            seen.pod_labels = template.metadata.and_then(|m| m.labels).unwrap_or_default();
            Some(seen)
        })
        .await
}

fn template_claims(template: &PodTemplateSpec) -> BTreeSet<String> {
    let volumes = template
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.persistent_volume_claim.as_ref())
        .map(|claim| claim.claim_name.clone())
        .collect()
}

fn apart(template: &PodTemplateSpec) -> Vec<PodAffinityTerm> {
    let affinity = template.spec.as_ref().and_then(|s| s.affinity.as_ref());
    let pods = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    pods.and_then(|pods| {
        pods.required_during_scheduling_ignored_during_execution
            .clone()
    })
    .unwrap_or_default()
}

fn has_finished(job: &Job) -> bool {
    let conditions = job
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|c| c.status == "True" && matches!(c.type_.as_str(), "Complete" | "Failed"))
}

/// Marks that GitOps tools leave on what they keep as it stands in a repository.
fn tracked_by(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<&'static str> {
    let is_argo = labels.contains_key("argocd.argoproj.io/instance")
        || annotations.contains_key("argocd.argoproj.io/tracking-id");
    let is_flux = labels.contains_key("kustomize.toolkit.fluxcd.io/name")
        || labels.contains_key("helm.toolkit.fluxcd.io/name");
    if is_argo {
        Some("Argo CD")
    } else {
        is_flux.then_some("Flux")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_job_has_finished_when_a_condition_says_so() {
        for (conditions, finished) in [
            (json!([]), false),
            (json!([{"type": "Complete", "status": "True"}]), true),
            (json!([{"type": "Failed", "status": "True"}]), true),
            (json!([{"type": "Failed", "status": "False"}]), false),
            (json!([{"type": "Suspended", "status": "True"}]), false),
        ] {
            let job = from(json!({"metadata": {}, "status": {"conditions": conditions}}));
            assert_eq!(has_finished(&job), finished, "{conditions}");
        }
    }

    #[test]
    fn gitops_tools_are_known_by_their_marks() {
        let map = |key: &str| BTreeMap::from([(key.to_string(), "x".to_string())]);
        let none = BTreeMap::new();
        for (key, tool) in [
            ("argocd.argoproj.io/instance", Some("Argo CD")),
            ("kustomize.toolkit.fluxcd.io/name", Some("Flux")),
            ("helm.toolkit.fluxcd.io/name", Some("Flux")),
            ("app.kubernetes.io/instance", None),
        ] {
            assert_eq!(tracked_by(&map(key), &none), tool, "{key}");
        }
        let tracked = map("argocd.argoproj.io/tracking-id");
        assert_eq!(tracked_by(&none, &tracked), Some("Argo CD"));
    }
}
