//! Labels, annotations and object names. What is found by a label is found by these.

use std::collections::BTreeMap;

use crate::record::Release;

/// Label: the run that an object belongs to. Also what the fence's volume rules select by.
pub const RUN: &str = "pvmigrate.io/run";
/// Label: what an object is in a migration, one of the `ROLE_` values.
pub const ROLE: &str = "pvmigrate.io/role";
/// Label of a probe pod: the layer of the fence that must refuse it (`policy`, `webhook`, or `any`).
/// Only the Job's own requests are ever spared, and a request with this mark is not.
pub const PROBE: &str = "pvmigrate.io/probe";
/// Annotation of a source volume: its claim's [`Record`](crate::Record), as JSON.
pub const RECORD: &str = "pvmigrate.io/record";
/// Annotation of a destination volume: the source volume that it takes over from.
pub const SOURCE: &str = "pvmigrate.io/source-volume";
/// Annotation of a destination volume: the reclaim policy it was provisioned with.
pub const RECLAIM_POLICY: &str = "pvmigrate.io/reclaim-policy";
/// Annotation of a claim under migration: the epoch of the Job that works on it. Writing it
/// changes the claim's resourceVersion, so a delete that an older Job decided no longer applies.
pub const EPOCH: &str = "pvmigrate.io/epoch";
/// Annotation of a stopped workload: how it was, as JSON ([`Frozen`](crate::record::Frozen)).
pub const FROZEN: &str = "pvmigrate.io/frozen";
/// Annotation that a user puts on a workload: how it is to be frozen, `scale`, `hold` or `auto`.
pub const FREEZE: &str = "pvmigrate.io/freeze";
/// Annotation that a user puts on a claim: how large it is made, a Kubernetes quantity.
pub const SIZE: &str = "pvmigrate.io/size";
/// Annotation that a user puts on a claim: the access modes that it is made with, comma separated.
pub const ACCESS_MODE: &str = "pvmigrate.io/access-mode";
/// The same, as the older command of this name reads it.
pub const OLDER_ACCESS_MODE: &str = "kurl.sh/pvcmigrate-destinationaccessmode";
/// Annotation that a user puts on a workload or a claim: a whole number; groups of a lower one move
/// first.
pub const WAVE: &str = "pvmigrate.io/wave";
/// Annotation that a user puts on a claim that an operator controls, to have it migrated: `true`.
pub const MIGRATE: &str = "pvmigrate.io/migrate";
/// Annotation of the owner of held pods: the moment of the thaw. Any change of an owner makes its
/// controller try again at once, however long it meant to wait.
pub const WOKEN: &str = "pvmigrate.io/woken";
/// Annotation that a user puts on the Secret with the webhook's CA: any new text asks for another
/// CA. The second is the webhook's, the text that it last obeyed.
pub const ROTATE: &str = "pvmigrate.io/rotate";
pub const ROTATED: &str = "pvmigrate.io/rotated";
/// Annotation of a StatefulSet that was made again with other claim templates, until its pods are
/// its own: the UID of the one that it replaces.
pub const RENEWED: &str = "pvmigrate.io/renewed";
/// Annotation of a mover pod: its current [`Order`](crate::Order), as JSON.
pub const ORDER: &str = "pvmigrate.io/order";
/// Annotation of a mover pod, for nothing but to change: a kubelet shows a pod its annotations when
/// they change, and may miss one change while it is still busy with the one before.
pub const NUDGED: &str = "pvmigrate.io/nudged";
/// Prefix of the annotations of the fence's parameters: followed by a namespace, the value is its
/// fenced claims, one a line.
pub const FENCED: &str = "fence.pvmigrate.io/";
/// The same of the volumes that no other claim of that namespace may name.
pub const FENCED_VOLUMES: &str = "volumes.fence.pvmigrate.io/";
/// The same of its workloads that have to stay down, as `group/resource/name`.
pub const STOPPED: &str = "stopped.fence.pvmigrate.io/";
/// Annotation of a staging claim or a mover pod: the claim that it works for.
pub const CLAIM: &str = "pvmigrate.io/claim";

/// Label of a mover pod: the claim that it works for, hashed, for a label's value is shorter than a
/// claim's name may be. Movers of claims that one pod mounts find each other by it.
pub const CLAIM_HASH: &str = "pvmigrate.io/claim-hash";

/// Annotation of a trial, and of a mover that is one: the release whose Job removes it, as
/// "namespace/name".
pub const RELEASE: &str = "pvmigrate.io/release";
/// The labels and annotations that tell how things stand, wherever they are: while the fence is
/// up, nobody but the Job adds, changes or drops one.
pub const MARKS: [&str; 8] = [
    RUN,
    ROLE,
    RECORD,
    SOURCE,
    RECLAIM_POLICY,
    EPOCH,
    FROZEN,
    CLAIM,
];

pub const ROLE_STAGING: &str = "staging";
pub const ROLE_MOVER: &str = "mover";
pub const ROLE_ANCHOR: &str = "anchor";
pub const ROLE_SOURCE: &str = "source";
pub const ROLE_DESTINATION: &str = "destination";
pub const ROLE_FENCE: &str = "fence";
pub const ROLE_PROBE: &str = "probe";
pub const ROLE_TRIAL: &str = "trial";
/// Of a Secret that keeps the manifest of what was deleted and is to be made again.
pub const ROLE_MANIFEST: &str = "manifest";

/// The values of [`PROBE`].
pub const LAYER_POLICY: &str = "policy";
pub const LAYER_WEBHOOK: &str = "webhook";
/// Of a probe that any layer must refuse.
pub const LAYERS: &str = "any";

/// The name that all writes of the Job carry in `managedFields`.
pub const FIELD_MANAGER: &str = "pvmigrate";

/// Where a mover finds its order, its source and its destination.
pub const ORDER_DIR: &str = "/etc/pvmigrate";
pub const ORDER_FILE: &str = "/etc/pvmigrate/order";
pub const SOURCE_MOUNT: &str = "/source";
pub const DESTINATION_MOUNT: &str = "/destination";

/// The same of a raw block volume.
pub const SOURCE_DEVICE: &str = "/dev/source";
pub const DESTINATION_DEVICE: &str = "/dev/destination";

/// The port of the webhook's Service.
pub const WEBHOOK_PORT: i32 = 443;

/// The name of a run's ConfigMap, in the release namespace.
pub fn run_object(run: &str) -> String {
    format!("pvmigrate-{run}")
}

/// The name of the fence's cluster-scoped objects. One fence a release, whatever its runs: a Job
/// that finishes what an older run began finds the fence where it is. A namespace has no dot, so
/// no two releases share a name.
pub fn fence_object(release: &Release) -> String {
    format!("pvmigrate.{}.{}", release.namespace, release.name)
}

/// The name of the ServiceAccount whose annotations list the fenced claims, in the release
/// namespace: the parameters of the fence's policy. Nobody runs as it.
pub fn fence_claims(release: &Release) -> String {
    format!("pvmigrate-{}-fence", release.name)
}

/// The name of a claim that nobody has, and that a fence names last: as long as it is refused, the
/// policy is in force.
pub fn fence_sentinel(run: &str) -> String {
    format!("pvmigrate-{run}-sentinel")
}

/// The name of a claim's staging claim and of its mover: short whatever the claim's name is
/// (a claim's name may have 253 characters), and the same for every Job that works on it.
pub fn staging_object(run: &str, claim_uid: &str) -> String {
    let short: String = claim_uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect();
    format!("pvmigrate-{run}-{short}")
}

/// The name of the pod that keeps the destinations of some claims attached, by the first of them.
pub fn anchor_object(run: &str, claim_uid: &str) -> String {
    format!("{}-anchor", staging_object(run, claim_uid))
}

/// The name of a trial's claim and of its pod: each Job has its own, by the end of its pod's name.
pub fn trial_object(run: &str, job_pod: &str, number: usize) -> String {
    let end = job_pod.bytes().rev().filter(u8::is_ascii_alphanumeric);
    let end: Vec<u8> = end.map(|byte| byte.to_ascii_lowercase()).take(8).collect();
    let end: String = end.into_iter().rev().map(char::from).collect();
    format!("pvmigrate-{run}-trial-{end}-{number}")
}

/// Whether a claim or a pod is a trial of some Job, or a staging claim that is one until its claim has
/// a record. A label alone makes nothing ours: the name has to carry the run.
pub fn is_trial(name: &str, labels: &BTreeMap<String, String>) -> bool {
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    let run = labels.get(RUN).map_or("", String::as_str);
    is(ROLE, ROLE_TRIAL) && !run.is_empty() && name.starts_with(&format!("pvmigrate-{run}-"))
}

/// The Lease that lets one Job of a release work at a time.
pub fn lease(release: &str) -> String {
    format!("pvmigrate-{release}")
}

/// The Secret that keeps the StatefulSets of a release that are being made again.
pub fn renewed_sets(release: &str) -> String {
    format!("pvmigrate-{release}-sets")
}
