//! The verdicts: what the fence refuses, as a function of a request and of the fenced records.
//!
//! | what | when | refused |
//! |---|---|---|
//! | pods | CREATE | that mount a fenced claim, or take the name of one to be made again |
//! | claims | CREATE | under a fenced name, from a fenced claim, or that ask for one of its volumes |
//! | | UPDATE | of its size, or of our marks |
//! | | DELETE | |
//! | VolumeSnapshots | CREATE | of a fenced claim |
//! | volumes, source and destination | UPDATE | of reclaim policy, claimRef, or our marks |
//! | | DELETE | |
//! | workloads of the seven kinds | CREATE | whose pods would mount a fenced claim, but for those that a controller makes |
//! | workloads that are stopped, of any kind | CREATE, DELETE | |
//! | | UPDATE | of our marks; where not held: more replicas or parallelism, and resuming |
//! | their `scale` | UPDATE | to more replicas, where not held |
//! | Namespaces | DELETE | with a fenced claim, or with the release |
//! | StorageClasses | DELETE | of the destination |
//!
//! Our marks may not be changed with an object's status either: whoever writes a status may write
//! labels and annotations with it. Everything else passes: scaling down above all, and what
//! controllers write to status, finalizers and labels. A staging claim is for nobody but the Job.
//! It matters what changes, never who asks: the Job's own requests are kept away by the
//! configuration's match conditions. What cannot be read is an error, never a verdict.

mod around;
mod claims;
mod pods;
mod review;
mod volumes;
mod workloads;

use kube::core::admission::Operation::{Create, Delete, Update};

use crate::fences::Fences;

pub use review::{Request, Reviewed, Unreadable};

/// The sentence of a refusal; none if the request passes.
pub type Verdict = Result<Option<String>, Unreadable>;

/// The verdict about a request.
pub fn judge(request: &Request, fences: &Fences) -> Verdict {
    let group = request.resource.group.as_str();
    let resource = request.resource.resource.as_str();
    let subresource = request.sub_resource.as_deref().unwrap_or_default();
    let rule = match (group, resource, subresource, &request.operation) {
        ("", "pods", "", Create) => pods::create,
        // A pod that ends is deleted by its kubelet.
        ("", "pods", _, _) => pass,
        ("", "persistentvolumeclaims", "", Create) => claims::create,
        ("", "persistentvolumeclaims", "" | "status", Update) => claims::update,
        ("", "persistentvolumeclaims", "", Delete) => claims::delete,
        ("snapshot.storage.k8s.io", "volumesnapshots", "", Create) => claims::snapshot,
        ("", "persistentvolumes", "" | "status", Update) => volumes::update,
        ("", "persistentvolumes", "", Delete) => volumes::delete,
        ("", "namespaces", "", Delete) => around::namespace,
        ("storage.k8s.io", "storageclasses", "", Delete) => around::storage_class,
        (_, _, "", Create) => workloads::create,
        (_, _, "" | "status", Update) => workloads::update,
        (_, _, "", Delete) => workloads::delete,
        (_, _, "scale", Update) => workloads::scale,
        _ => pass,
    };
    rule(request, fences)
}

#[allow(clippy::unnecessary_wraps)] // It is a rule like the others.
fn pass(_: &Request, _: &Fences) -> Verdict {
    Ok(None)
}

#[cfg(test)]
mod tests;
