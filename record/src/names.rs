//! Labels, annotations and object names. What is found by a label is found by these.

use crate::record::Release;

/// Label: the run that an object belongs to. Also what the fence's volume rules select by.
pub const RUN: &str = "pvmigrate.io/run";
/// Label: what an object is in a migration, one of the `ROLE_` values.
pub const ROLE: &str = "pvmigrate.io/role";
/// Label of a probe pod: the layer of the fence that must refuse it (`policy` or `webhook`).
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
/// Annotation of a mover pod: its current [`Order`](crate::Order), as JSON.
pub const ORDER: &str = "pvmigrate.io/order";
/// Prefix of the annotations of the fence's parameters: followed by a namespace, the value is its
/// fenced claims, one a line.
pub const FENCED: &str = "fence.pvmigrate.io/";
/// Annotation of a staging claim or a mover pod: the claim that it works for.
pub const CLAIM: &str = "pvmigrate.io/claim";

pub const ROLE_STAGING: &str = "staging";
pub const ROLE_MOVER: &str = "mover";
pub const ROLE_SOURCE: &str = "source";
pub const ROLE_DESTINATION: &str = "destination";
pub const ROLE_FENCE: &str = "fence";
pub const ROLE_PROBE: &str = "probe";

/// The values of [`PROBE`].
pub const LAYER_POLICY: &str = "policy";
pub const LAYER_WEBHOOK: &str = "webhook";

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

/// The Lease that lets one Job of a release work at a time.
pub fn lease(release: &str) -> String {
    format!("pvmigrate-{release}")
}
