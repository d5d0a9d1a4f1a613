//! What can be said of a run without beginning one.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::names;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::observe::observe;
use crate::plan::{Shown, full_name, plan};
use crate::report::Report;
use crate::stop::Stop;

/// What a run would do; nothing is changed.
pub async fn shown(cluster: &Cluster, config: &Config) -> Result<Shown, Stop> {
    let mut config = config.clone();
    if config.release_namespace.is_empty() {
        config.release_namespace = cluster.default_namespace().into();
    }
    let observed = observe(cluster, &config).await?;
    Ok(Shown::of(&plan(&observed, &config), &observed, &config))
}

/// What a complete run has to say when it is asked again: which claims it did not cover.
pub async fn uncovered(
    cluster: &Cluster,
    config: &Config,
    report: &Report,
) -> Result<Vec<String>, Stop> {
    let claims = cluster
        .list(&cluster.all::<PersistentVolumeClaim>())
        .await?;
    let volumes = cluster.list(&cluster.all::<PersistentVolume>()).await?;
    Ok(claims
        .iter()
        .filter(|claim| {
            let name = claim
                .spec
                .as_ref()
                .and_then(|spec| spec.volume_name.as_ref());
            let volume = volumes
                .iter()
                .find(|volume| Some(&volume.name_any()) == name);
            config.selects_claim(claim, volume)
        })
        .filter(|claim| !names::is_trial(&claim.name_any(), claim.labels()))
        .map(full_name)
        .filter(|name| !report.left.contains_key(name))
        .collect())
}
