//! What a person reads when the fence refuses a request. One sentence that names the object, the
//! run, how far it is, and what to do, by commands that exist.
//!
//! A controller's refused request ends up in an event, so each sentence stands for itself.

use std::fmt::Display;

use crate::names;
use crate::phase::Phase;
use crate::record::{ClaimRef, Record, Release, Workload};

/// The migration that a refusal is because of.
#[derive(Clone, Copy, Debug)]
pub struct Migration<'a> {
    pub release: &'a Release,
    pub run: &'a str,
    pub phase: Phase,
    pub claim: &'a ClaimRef,
    pub destination_class: &'a str,
}

impl<'a> From<&'a Record> for Migration<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            release: &record.release,
            run: &record.run,
            phase: record.phase,
            claim: &record.claim,
            destination_class: &record.destination_class,
        }
    }
}

/// A pod that mounts a fenced claim.
pub fn pod<'a>(of: impl Into<Migration<'a>>) -> String {
    of.into().refuses("no pod may mount it")
}

/// A workload, as `Kind namespace/name`, whose pods would mount a fenced claim.
pub fn template<'a>(of: impl Into<Migration<'a>>, workload: &str) -> String {
    let rule = format!("{workload}, whose pods would mount it, may not be created");
    of.into().refuses(rule)
}

/// A claim that is created under a fenced name.
pub fn claim<'a>(of: impl Into<Migration<'a>>) -> String {
    of.into().refuses("no other claim may take its name")
}

/// A claim that names a fenced one as the source of its data.
pub fn clone<'a>(of: impl Into<Migration<'a>>) -> String {
    of.into().refuses("no claim may be made from it")
}

/// A snapshot of a fenced claim.
pub fn snapshot<'a>(of: impl Into<Migration<'a>>) -> String {
    of.into().refuses("no snapshot may be taken of it")
}

/// A claim that asks for one of the migration's volumes.
pub fn volume_name<'a>(of: impl Into<Migration<'a>>, volume: &str) -> String {
    let rule = format!("no other claim may ask for its PersistentVolume {volume}");
    of.into().refuses(rule)
}

/// A fenced claim that is to have another size.
pub fn resize<'a>(of: impl Into<Migration<'a>>) -> String {
    of.into().refuses("its size may not change")
}

/// A fenced claim that is to lose one of our marks.
pub fn claim_mark<'a>(of: impl Into<Migration<'a>>, mark: &str) -> String {
    of.into().refuses(format!("its {mark} may not change"))
}

/// A fenced claim that is to be deleted.
pub fn claim_delete<'a>(of: impl Into<Migration<'a>>) -> String {
    of.into().refuses_until_given_up("it may not be deleted")
}

/// Anything that is to be done to, or with, the staging claim.
pub fn staging<'a>(of: impl Into<Migration<'a>>, staging: &str) -> String {
    let of = of.into();
    let namespace = &of.claim.namespace;
    of.refuses(format!(
        "claim {namespace}/{staging} holds its copy and is for pvmigrate alone"
    ))
}

/// A change of one of the migration's volumes; `what` is the part that may not change.
pub fn volume<'a>(of: impl Into<Migration<'a>>, volume: &str, what: &str) -> String {
    let rule = format!("the {what} of its PersistentVolume {volume} may not change");
    of.into().refuses(rule)
}

/// One of the migration's volumes that is to be deleted.
pub fn volume_delete<'a>(of: impl Into<Migration<'a>>, volume: &str) -> String {
    let rule = format!("its PersistentVolume {volume} may not be deleted");
    of.into().refuses_until_given_up(rule)
}

/// A namespace that the migration needs.
pub fn namespace<'a>(of: impl Into<Migration<'a>>, namespace: &str) -> String {
    let rule = format!("Namespace {namespace} may not be deleted");
    of.into().refuses_until_given_up(rule)
}

/// The destination's class.
pub fn storage_class<'a>(of: impl Into<Migration<'a>>, class: &str) -> String {
    let rule = format!("StorageClass {class} may not be deleted");
    of.into().refuses_until_given_up(rule)
}

/// A stopped workload that somebody wants to scale up.
pub fn scale_up<'a>(of: impl Into<Migration<'a>>, workload: &Workload) -> String {
    let rule = "it will be scaled back up by itself when that is done";
    of.into().stops(workload, rule)
}

/// A stopped workload that somebody wants to resume.
pub fn resume<'a>(of: impl Into<Migration<'a>>, workload: &Workload) -> String {
    let rule = "it will be resumed by itself when that is done";
    of.into().stops(workload, rule)
}

/// A stopped workload that is to lose one of our marks.
pub fn workload_mark<'a>(of: impl Into<Migration<'a>>, workload: &Workload, mark: &str) -> String {
    let rule = format!("its {mark} may not change until that is done");
    of.into().stops(workload, rule)
}

/// A stopped workload that is to be deleted.
pub fn workload_delete<'a>(of: impl Into<Migration<'a>>, workload: &Workload) -> String {
    let of = of.into();
    let rule = "it may not be deleted until that is done";
    format!("{}; {}", of.stops(workload, rule), give_up(of.release))
}

/// A workload that is created under the name of a stopped one.
pub fn workload_create<'a>(of: impl Into<Migration<'a>>, workload: &Workload) -> String {
    let rule = format!(
        "no other {} may take its name until that is done",
        workload.kind
    );
    of.into().stops(workload, rule)
}

/// How to see how far a run is: its ConfigMap.
pub fn follow(release: &Release, run: &str) -> String {
    format!(
        "follow it with: kubectl -n {} get configmap {} -o jsonpath='{{.data.status}}'",
        release.namespace,
        names::run_object(run)
    )
}

/// How to have everything put back as it was.
pub fn give_up(release: &Release) -> String {
    format!(
        "give it up with: helm -n {} uninstall {}",
        release.namespace, release.name
    )
}

impl Migration<'_> {
    fn refuses(self, rule: impl Display) -> String {
        format!(
            "pvmigrate is migrating claim {} to StorageClass {} (run {}, {:?}): {rule} until that is done; {}",
            self.claim,
            self.destination_class,
            self.run,
            self.phase,
            follow(self.release, self.run)
        )
    }

    fn refuses_until_given_up(self, rule: impl Display) -> String {
        format!("{}; {}", self.refuses(rule), give_up(self.release))
    }

    fn stops(self, workload: &Workload, rule: impl Display) -> String {
        format!(
            "pvmigrate stops {workload} while it migrates claim {} to StorageClass {} (run {}, {:?}): {rule}; {}",
            self.claim,
            self.destination_class,
            self.run,
            self.phase,
            follow(self.release, self.run)
        )
    }
}
