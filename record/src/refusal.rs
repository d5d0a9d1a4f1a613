//! What a person reads when the fence refuses a request. One sentence that names the object, the
//! run, how far it is, and what to do, by commands that exist.

use crate::names;
use crate::record::{Record, Release, Workload};

/// A pod that mounts a fenced claim.
pub fn pod(record: &Record) -> String {
    format!(
        "pvmigrate is migrating claim {} to StorageClass {} (run {}, {:?}): no pod may mount it until that is done; {}",
        record.claim,
        record.destination_class,
        record.run,
        record.phase,
        follow(&record.release, &record.run)
    )
}

/// A claim that is created under a fenced name.
pub fn claim(record: &Record) -> String {
    format!(
        "pvmigrate is migrating claim {} to StorageClass {} (run {}, {:?}): no other claim may take its name until that is done; {}",
        record.claim,
        record.destination_class,
        record.run,
        record.phase,
        follow(&record.release, &record.run)
    )
}

/// A stopped workload that somebody wants to scale up.
pub fn scale_up(record: &Record, workload: &Workload) -> String {
    format!(
        "pvmigrate stops {} while it migrates claim {} to StorageClass {} (run {}, {:?}): it will be scaled back up by itself when that is done; {}",
        workload,
        record.claim,
        record.destination_class,
        record.run,
        record.phase,
        follow(&record.release, &record.run)
    )
}

/// How to see how far a run is: its ConfigMap.
pub fn follow(release: &Release, run: &str) -> String {
    format!(
        "follow it with: kubectl -n {} get configmap {} -o jsonpath='{{.data.status}}'",
        release.namespace,
        names::run_object(run)
    )
}
