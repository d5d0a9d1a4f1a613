//! Earlier pods of this Job that a lost node keeps Terminating: as long as they exist the Job is
//! not Complete, and who waits for it waits for the node.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::lease::JOB_LABEL;
use crate::stop::Stop;

/// Lets go of them. What they might still do is refused: their Lease has lapsed, and their epochs
/// are old. No other pod is ever let go of without its kubelet's word.
pub async fn let_go(cluster: &Cluster, config: &Config) -> Result<(), Stop> {
    if config.job.is_empty() {
        return Ok(());
    }
    let api = cluster.namespaced::<Pod>(&config.release_namespace);
    for pod in cluster.list(&api).await? {
        let is_ours = pod.labels().get(JOB_LABEL) == Some(&config.job);
        let is_ending = pod.metadata.deletion_timestamp.is_some();
        if !is_ours || !is_ending || pod.name_any() == config.pod {
            continue;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if let Some(node) = node
            && is_lost(cluster, &node).await?
        {
            tracing::info!(pod = %pod.name_any(), %node, "the node of an earlier pod is lost; the pod is let go");
            cluster.delete(&api, pod, Some(0), |_| Ok(())).await?;
        }
    }
    Ok(())
}

async fn is_lost(cluster: &Cluster, name: &str) -> Result<bool, Stop> {
    let node = cluster.get(&cluster.all::<Node>(), name).await?;
    let status = node.and_then(|node| node.status).unwrap_or_default();
    let mut conditions = status.conditions.into_iter().flatten();
    Ok(!conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}
