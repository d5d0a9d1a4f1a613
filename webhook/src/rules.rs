//! The verdicts: what the fence refuses, as a function of a request and of the fenced records.
//!
//! | what | when | refused because |
//! |---|---|---|
//! | pods | CREATE | it mounts a fenced claim |
//! | persistentvolumeclaims | CREATE | it takes a fenced claim's name |
//! | deployments, statefulsets, replicasets | UPDATE | a stopped workload gets more replicas |
//! | their `scale` | UPDATE | the same |
//!
//! Everything else passes, scaling down above all. It matters what changes, never who asks: the
//! Job's own requests are kept away by the configuration's match conditions.

use kube::core::admission::{AdmissionRequest, Operation};
use kube::core::{NotUsed, Object};
use pvmigrate_record::record::{Record, Workload};
use pvmigrate_record::refusal;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// An object under review: of its spec, only what a verdict reads.
pub type Reviewed = Object<Option<Spec>, NotUsed>;
pub type Request = AdmissionRequest<Reviewed>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    volumes: Vec<Volume>,
    replicas: Option<i32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    persistent_volume_claim: Option<ClaimSource>,
    ephemeral: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource {
    claim_name: String,
}

/// What an absent `spec.replicas` means: the workloads default to 1, while a Scale leaves out
/// its zero.
const ABSENT_IN_WORKLOAD: i32 = 1;
const ABSENT_IN_SCALE: i32 = 0;

/// The sentence of a refusal; none if the request passes.
pub fn refuse<'a>(request: &Request, fenced: impl Iterator<Item = &'a Record>) -> Option<String> {
    let Request {
        resource,
        operation,
        ..
    } = request;
    let subresource = request.sub_resource.as_deref().unwrap_or_default();
    match (
        resource.group.as_str(),
        resource.resource.as_str(),
        subresource,
        operation,
    ) {
        ("", "pods", "", Operation::Create) => pod(request, fenced),
        ("", "persistentvolumeclaims", "", Operation::Create) => claim(request, fenced),
        ("apps", resource, "", Operation::Update) => {
            scale_up(request, kind(resource)?, ABSENT_IN_WORKLOAD, fenced)
        }
        ("apps", resource, "scale", Operation::Update) => {
            scale_up(request, kind(resource)?, ABSENT_IN_SCALE, fenced)
        }
        _ => None,
    }
}

fn kind(resource: &str) -> Option<&'static str> {
    match resource {
        "deployments" => Some("Deployment"),
        "statefulsets" => Some("StatefulSet"),
        "replicasets" => Some("ReplicaSet"),
        _ => None,
    }
}

fn pod<'a>(request: &Request, mut fenced: impl Iterator<Item = &'a Record>) -> Option<String> {
    let volumes = &request.object.as_ref()?.spec.as_ref()?.volumes;
    let mounts = |claim: &str| {
        volumes.iter().any(|volume| {
            let named = volume.persistent_volume_claim.as_ref();
            named.is_some_and(|source| source.claim_name == claim)
                // The claim of an ephemeral volume is named after its pod.
                || volume.ephemeral.is_some()
                    && names(request).any(|pod| claim.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-')) == Some(&volume.name))
        })
    };
    fenced
        .find(|record| is_in(request, &record.claim.namespace) && mounts(&record.claim.name))
        .map(refusal::pod)
}

fn claim<'a>(request: &Request, mut fenced: impl Iterator<Item = &'a Record>) -> Option<String> {
    fenced
        .find(|record| {
            is_in(request, &record.claim.namespace)
                && names(request).any(|name| name == record.claim.name)
        })
        .map(refusal::claim)
}

fn scale_up<'a>(
    request: &Request,
    kind: &str,
    absent: i32,
    mut fenced: impl Iterator<Item = &'a Record>,
) -> Option<String> {
    let replicas = |object: &Option<Reviewed>| {
        let spec = object.as_ref().and_then(|object| object.spec.as_ref());
        spec.and_then(|spec| spec.replicas).unwrap_or(absent)
    };
    if replicas(&request.object) <= replicas(&request.old_object) {
        return None;
    }
    let is_meant = |workload: &&Workload| {
        workload.kind == kind
            && is_in(request, &workload.namespace)
            && names(request).any(|name| name == workload.name)
    };
    fenced.find_map(|record| {
        let workload = record.freeze.workloads.iter().find(is_meant)?;
        Some(refusal::scale_up(record, workload))
    })
}

/// The names that a request is about. Its own `name` is empty where the server makes one up:
/// the object has it by then.
fn names(request: &Request) -> impl Iterator<Item = &str> {
    let objects = [&request.object, &request.old_object].into_iter().flatten();
    std::iter::once(request.name.as_str())
        .chain(objects.filter_map(|object| object.metadata.name.as_deref()))
        .filter(|name| !name.is_empty())
}

fn is_in(request: &Request, namespace: &str) -> bool {
    request.namespace.as_deref() == Some(namespace)
}

#[cfg(test)]
mod tests;
