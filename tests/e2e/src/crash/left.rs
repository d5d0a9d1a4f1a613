//! What no migration may leave behind: its fence, and folders without a volume.

use anyhow::{Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::Resource;
use kube::api::Api;
use pvmigrate_record::names;
use pvmigrate_record::record::Release as Named;

use super::application::Kind;
use super::end::Ends;
use super::point::Ending;
use super::release::NAME;
use super::scene::Scene;

/// No layer of the fence, and none of its parameters.
pub async fn no_fence(scene: &Scene<'_>) -> Result<()> {
    let client = &scene.release.cluster.client;
    let release = Named {
        namespace: scene.release.namespace.clone(),
        name: NAME.into(),
    };
    let name = names::fence_object(&release);
    absent(
        &Api::<ValidatingWebhookConfiguration>::all(client.clone()),
        &name,
    )
    .await?;
    absent(
        &Api::<ValidatingAdmissionPolicy>::all(client.clone()),
        &name,
    )
    .await?;
    absent(
        &Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()),
        &name,
    )
    .await?;
    let parameters = Api::<ServiceAccount>::namespaced(client.clone(), &release.namespace);
    absent(&parameters, &names::fence_claims(&release)).await
}

async fn absent<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = api.get_opt(name).await?;
    ensure!(found.is_none(), "{} {name} is left over", K::kind(&()));
    Ok(())
}

/// On the test bed, where local volumes are folders: as many as there are volumes.
pub fn folders(scene: &Scene<'_>, ends: &Ends) -> Result<()> {
    let bed = scene.release.cluster.bed.as_ref();
    let Some(bed) = bed.filter(|_| scene.kind != Kind::Attached) else {
        return Ok(());
    };
    let mark = format!("_{}_", scene.namespace);
    let mut found = [Vec::new(), Vec::new()];
    for disk in std::fs::read_dir(&bed.state)? {
        let name = disk?.file_name().to_string_lossy().into_owned();
        let Some(class) = ["ext4-node-", "xfs-node-"]
            .iter()
            .position(|d| name.starts_with(d))
        else {
            continue;
        };
        let path = bed.state.join(&name);
        if !path.is_dir() {
            continue;
        }
        for folder in std::fs::read_dir(path)? {
            let folder = folder?.file_name().to_string_lossy().into_owned();
            if folder.contains(&mark) {
                found[class].push(folder);
            }
        }
    }
    let migrated = ends.values().filter(|end| **end == Ending::Migrated);
    let wanted = [ends.len(), migrated.count()];
    ensure!(
        found.each_ref().map(Vec::len) == wanted,
        "folders are left: {found:?}"
    );
    Ok(())
}
