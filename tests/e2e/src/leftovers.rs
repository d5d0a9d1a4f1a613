//! What must not be there any more after a run, and after the release.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Secret,
    ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use pvmigrate_record::names;
use pvmigrate_record::record::{self, Record};

use crate::{Cluster, Release, wait_for};

/// What starts with this belongs to us.
const OURS: &str = "pvmigrate";

/// Fails if a run has left anything in the namespace of its claims, any part of its fence, or a
/// mark on what it has worked with. The records on the volumes that were left behind may stay.
pub async fn none_of_the_run(release: &Release, cluster: &Cluster, namespace: &str) -> Result<()> {
    let client = &cluster.client;
    let mut left = Vec::new();
    left.extend(marked::<PersistentVolumeClaim>(client, namespace).await?);
    left.extend(marked::<Pod>(client, namespace).await?);
    left.extend(marked::<StatefulSet>(client, namespace).await?);
    left.extend(marked::<Deployment>(client, namespace).await?);
    left.extend(marked::<ReplicaSet>(client, namespace).await?);
    left.extend(marked::<DaemonSet>(client, namespace).await?);
    left.extend(marked::<ReplicationController>(client, namespace).await?);
    left.extend(marked::<Job>(client, namespace).await?);
    left.extend(marked::<CronJob>(client, namespace).await?);
    left.extend(marked::<ConfigMap>(client, namespace).await?);
    left.extend(marked::<Secret>(client, namespace).await?);

    let of = record::Release {
        namespace: release.namespace.clone(),
        name: release.name.clone(),
    };
    let fence = names::fence_object(&of);
    left.extend(
        of_name(
            Api::<ValidatingWebhookConfiguration>::all(client.clone()),
            &fence,
        )
        .await?,
    );
    left.extend(
        of_name(
            Api::<ValidatingAdmissionPolicy>::all(client.clone()),
            &fence,
        )
        .await?,
    );
    left.extend(
        of_name(
            Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()),
            &fence,
        )
        .await?,
    );
    let fence = names::fence_claims(&of);
    left.extend(of_name(release.api::<ServiceAccount>(), &fence).await?);
    for volume in Api::<PersistentVolume>::all(client.clone())
        .list(&ListParams::default())
        .await?
    {
        let held = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        let is_bound = volume
            .status
            .as_ref()
            .is_some_and(|s| s.phase.as_deref() == Some("Bound"));
        let is_here = held.is_some_and(|held| held.namespace.as_deref() == Some(namespace));
        if is_here && is_bound && is_marked(&volume) && !has_failed(&volume) {
            left.push(format!(
                "marks on volume {}: {:?}",
                volume.name_any(),
                marks(&volume)
            ));
        }
    }
    ensure!(left.is_empty(), "the run has left {left:?}");
    Ok(())
}

/// Waits until an uninstalled release has left nothing, in its namespace or in the cluster.
pub async fn none_of_the_release(release: &Release, cluster: &Cluster) -> Result<()> {
    let what = format!("release {} to leave nothing", release.namespace);
    wait_for(&what, Duration::from_secs(60), async || {
        let mut left = Vec::new();
        left.extend(ours(release.api::<ConfigMap>()).await?);
        left.extend(ours(release.api::<Secret>()).await?);
        left.extend(ours(release.api::<Lease>()).await?);
        left.extend(ours(release.api::<ServiceAccount>()).await?);
        left.extend(ours(release.api::<Pod>()).await?);
        left.extend(ours(release.api::<Deployment>()).await?);
        let everywhere = [
            all::<ClusterRole>(&cluster.client).await?,
            all::<ClusterRoleBinding>(&cluster.client).await?,
            all::<ValidatingWebhookConfiguration>(&cluster.client).await?,
            all::<ValidatingAdmissionPolicy>(&cluster.client).await?,
            all::<ValidatingAdmissionPolicyBinding>(&cluster.client).await?,
        ];
        left.extend(
            everywhere
                .concat()
                .into_iter()
                .filter(|name| name.contains(&release.namespace)),
        );
        ensure!(left.is_empty(), "there is still {left:?}");
        Ok(())
    })
    .await
}

/// Objects of a namespace that are ours by their name, or carry a mark of ours.
async fn marked<K>(client: &Client, namespace: &str) -> Result<Vec<String>>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let all = Api::<K>::namespaced(client.clone(), namespace)
        .list(&ListParams::default())
        .await?;
    let left = all
        .items
        .iter()
        .filter(|object| is_ours(*object) || is_marked(*object));
    Ok(left
        .map(|object| format!("{} {} {:?}", K::kind(&()), object.name_any(), marks(object)))
        .collect())
}

async fn of_name<K>(api: Api<K>, name: &str) -> Result<Option<String>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let found = api.get_opt(name).await?;
    Ok(found.map(|_| format!("{} {name}", K::kind(&()))))
}

async fn ours<K>(api: Api<K>) -> Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let all = api.list(&ListParams::default()).await?;
    let left = all.items.iter().filter(|object| is_ours(*object));
    Ok(left
        .map(|object| format!("{} {}", K::kind(&()), object.name_any()))
        .collect())
}

async fn all<K>(client: &Client) -> Result<Vec<String>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let all = Api::<K>::all(client.clone())
        .list(&ListParams::default())
        .await?;
    Ok(all
        .items
        .iter()
        .map(|object| format!("{} {}", K::kind(&()), object.name_any()))
        .collect())
}

/// The record of a migration that was taken back stays on the source: it says why, and that the
/// same run is not to try again.
fn has_failed(volume: &PersistentVolume) -> bool {
    let json = volume.annotations().get(names::RECORD);
    let record = json.and_then(|json| Record::parse(json).ok());
    record
        .is_some_and(|record| record.is_finished() && !record.fence.on && record.outcome.is_some())
}

fn is_ours(object: &impl ResourceExt) -> bool {
    object.name_any().contains(OURS)
}

fn is_marked(object: &impl ResourceExt) -> bool {
    !marks(object).is_empty()
}

/// What users write stays as they wrote it.
fn marks(object: &impl ResourceExt) -> BTreeMap<String, String> {
    let of_users = [
        names::FREEZE,
        names::WAVE,
        names::MIGRATE,
        names::SIZE,
        names::ACCESS_MODE,
    ];
    let all = object.labels().iter().chain(object.annotations());
    all.filter(|(key, _)| key.starts_with("pvmigrate.io/") && !of_users.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
