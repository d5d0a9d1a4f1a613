//! What changes the replicas of a workload by itself: autoscalers.

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};

use super::custom::served;
use crate::cluster::Cluster;
use crate::stop::Stop;

/// An autoscaler, and what it scales.
#[derive(Clone, Debug)]
pub struct Scaler {
    /// Itself, for people: `HorizontalPodAutoscaler shop/web`.
    pub name: String,
    pub namespace: String,
    /// The target's API group, empty for the core group; kind and name.
    pub target: (String, String, String),
}

pub async fn list(cluster: &Cluster) -> Result<Vec<Scaler>, Stop> {
    let mut all = cluster
        .collect(&cluster.all(), |scaler: HorizontalPodAutoscaler| {
            let target = scaler.spec.as_ref()?.scale_target_ref.clone();
            let api_version = target.api_version.unwrap_or_default();
            let target = (group(&api_version), target.kind, target.name);
            Some(named(
                "HorizontalPodAutoscaler",
                &scaler.namespace()?,
                &scaler.name_any(),
                target,
            ))
        })
        .await?;
    all.extend(keda(cluster).await?);
    Ok(all)
}

/// KEDA's own objects, where it is installed: at 0 replicas it works without an autoscaler.
async fn keda(cluster: &Cluster) -> Result<Vec<Scaler>, Stop> {
    let Some((resource, _)) = served(cluster, "keda.sh/v1alpha1", "ScaledObject").await? else {
        return Ok(Vec::new());
    };
    let api: Api<DynamicObject> = Api::all_with(cluster.client(), &resource);
    cluster
        .collect(&api, |object: DynamicObject| {
            let target = object.data.pointer("/spec/scaleTargetRef")?;
            let text = |field: &str| target[field].as_str().map(ToString::to_string);
            let api_version = text("apiVersion").unwrap_or_else(|| "apps/v1".into());
            let kind = text("kind").unwrap_or_else(|| "Deployment".into());
            let target = (group(&api_version), kind, text("name")?);
            Some(named(
                "ScaledObject",
                &object.namespace()?,
                &object.name_any(),
                target,
            ))
        })
        .await
}

fn named(kind: &str, namespace: &str, name: &str, target: (String, String, String)) -> Scaler {
    Scaler {
        name: format!("{kind} {namespace}/{name}"),
        namespace: namespace.into(),
        target,
    }
}

fn group(api_version: &str) -> String {
    let group = api_version.rsplit_once('/').map(|(group, _)| group);
    group.unwrap_or_default().into()
}
