//! Pods, and the pods that a template would make.

use pvmigrate_record::refusal;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::review::{self, Request};
use super::{Verdict, claims, workloads};
use crate::fences::Fences;

/// Of a pod's spec, what it mounts.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PodSpec {
    volumes: Option<Vec<Volume>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    persistent_volume_claim: Option<ClaimSource>,
    ephemeral: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource {
    claim_name: String,
}

pub(super) fn create(request: &Request, fences: &Fences) -> Verdict {
    let namespace = review::namespace(request);
    let spec: PodSpec = review::spec(review::object(request)?)?;
    let mounted = spec
        .claims()
        .find_map(|claim| claims::part_of(fences, namespace, claim, |of| refusal::pod(of)));
    if mounted.is_some() {
        return Ok(mounted);
    }
    for pod in review::names(request)? {
        for volume in spec.ephemeral() {
            let claim = format!("{pod}-{volume}");
            let refused = claims::part_of(fences, namespace, &claim, |of| refusal::pod(of));
            if refused.is_some() {
                return Ok(refused);
            }
        }
    }
    workloads::takes_a_name(request, fences)
}

impl PodSpec {
    /// The claims that are mounted by name.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        let volumes = self.volumes.iter().flatten();
        volumes.filter_map(|volume| {
            let source = volume.persistent_volume_claim.as_ref()?;
            Some(source.claim_name.as_str())
        })
    }

    /// The volumes that get a claim of their own, named after the pod and the volume.
    fn ephemeral(&self) -> impl Iterator<Item = &str> {
        let volumes = self.volumes.iter().flatten();
        volumes.filter_map(|volume| volume.ephemeral.map(|_| volume.name.as_str()))
    }
}
