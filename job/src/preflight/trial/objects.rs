//! What a trial makes: a claim with nothing in it, and a pod that does nothing with it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use pvmigrate_record::names;

use super::Trial;
use crate::claim::plain_claim;
use crate::config::Config;
use crate::mover::{Mounted, bystander};

/// Owned by the chart's ClusterRole: uninstalling collects what a Job left that was killed.
pub fn metadata(
    config: &Config,
    trial: &Trial,
    number: usize,
    owner: Option<&OwnerReference>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(names::trial_object(&config.run(), &config.pod, number)),
        namespace: Some(trial.namespace.clone()),
        labels: Some(BTreeMap::from([
            (names::RUN.into(), config.run()),
            (names::ROLE.into(), names::ROLE_TRIAL.into()),
            ("sidecar.istio.io/inject".into(), "false".into()),
        ])),
        annotations: Some(BTreeMap::from([
            (names::RELEASE.into(), config.release().full_name()),
            ("linkerd.io/inject".into(), "disabled".into()),
        ])),
        owner_references: Some(owner.into_iter().cloned().collect()),
        ..ObjectMeta::default()
    }
}

pub fn claim(config: &Config, trial: &Trial, metadata: ObjectMeta) -> PersistentVolumeClaim {
    plain_claim(metadata, &trial.manifest, &config.dest_sc)
}

/// A pod that mounts the claim and ends at once.
pub fn pod(config: &Config, trial: &Trial, metadata: ObjectMeta) -> Pod {
    let mounted = Mounted {
        claim: metadata.name.clone().unwrap_or_default(),
        is_block: trial.manifest.is_block(),
    };
    bystander(config, metadata, &trial.placement, &[mounted], "--version")
}
