//! When the webhook is asked: the conditions, in CEL.

use std::collections::BTreeSet;

use pvmigrate_record::names;
use pvmigrate_record::record::{Freezing, Method};

use super::super::cel::{self, NAME, annotation, any, any_of, differs, label};
use super::super::objects::Scope;

impl Scope {
    pub(super) fn fenced(&self) -> Option<String> {
        cel::of_namespace(&self.ours)
    }

    pub(super) fn pod_mounts(&self) -> String {
        // The claim of an ephemeral volume is named after its pod.
        let mounted = "object.?spec.?volumes.orValue([]).map(v, has(v.ephemeral) ? object.metadata.?name.orValue('') + '-' + v.name : v.?persistentVolumeClaim.?claimName.orValue(''))";
        let mounts = any_of(mounted, self.fenced().as_deref());
        // A pod that will be made again from its own manifest keeps its name.
        let mut bare = self.stopped(&[Method::Recreate]).peekable();
        match bare.peek() {
            Some(_) => any([mounts, is_one_of(bare)]),
            None => mounts,
        }
    }

    pub(super) fn template_mounts(&self) -> String {
        // A CronJob's is that of its Jobs.
        let mounted = "object.?spec.?jobTemplate.?spec.?template.or(object.?spec.?template).?spec.?volumes.orValue([]).map(v, v.?persistentVolumeClaim.?claimName.orValue(''))";
        any_of(mounted, self.fenced().as_deref())
    }

    /// Whether a StatefulSet would have fenced claims: `<template>-<set>-<ordinal>`.
    pub(super) fn has_claims(&self) -> String {
        let templates = "object.?spec.?volumeClaimTemplates.orValue([])";
        let named = "n.startsWith(t.metadata.name + '-' + object.metadata.name + '-') && n.substring(size(t.metadata.name) + size(object.metadata.name) + 2).matches('^[0-9]+$')";
        match self.fenced() {
            Some(fenced) => format!("{templates}.exists(t, {fenced}.exists(n, {named}))"),
            None => format!("{templates}.size() > 0"),
        }
    }

    /// Whether a new claim takes a fenced claim's name, its content, or one of our volumes.
    pub(super) fn takes(&self) -> String {
        let copied = |source: &str| {
            format!(
                "object.?spec.?{source}.?kind.orValue('') == 'PersistentVolumeClaim' ? object.spec.{source}.name : ''"
            )
        };
        let names = format!(
            "[{NAME}, {}, {}]",
            copied("dataSource"),
            copied("dataSourceRef")
        );
        let volumes = cel::list(self.volumes.iter().map(String::as_str));
        let volume = format!("object.?spec.?volumeName.orValue('') in {volumes}");
        any([any_of(&names, self.fenced().as_deref()), volume])
    }

    pub(super) fn is_our_claim(&self) -> String {
        any_of(&format!("[{NAME}]"), self.fenced().as_deref())
    }

    pub(super) fn snapshots(&self) -> String {
        let source = "[object.?spec.?source.?persistentVolumeClaimName.orValue('')]";
        any_of(source, self.fenced().as_deref())
    }
}

pub fn uncontrolled() -> String {
    "!object.metadata.?ownerReferences.orValue([]).exists(o, o.?controller.orValue(false))".into()
}

/// More replicas, more parallelism, or not suspended any more.
pub fn starts() -> String {
    let parallelism = |object: &str| format!("{object}.?spec.?parallelism.orValue(1)");
    let suspended = |object: &str| format!("{object}.?spec.?suspend.orValue(false)");
    any([
        cel::replicas_up(),
        format!("{} > {}", parallelism("object"), parallelism("oldObject")),
        format!("{} && !{}", suspended("oldObject"), suspended("object")),
    ])
}

/// Whether one of our labels or annotations is added, changed or dropped.
pub fn marks_change() -> String {
    let either = |mark: &str| any([differs(&annotation(mark)), differs(&label(mark))]);
    any(names::MARKS.map(either))
}

pub fn claim_changes() -> String {
    any([
        differs("?spec.?resources.?requests.?storage"),
        marks_change(),
    ])
}

/// What others write into a volume passes, above all the UID of the claim that it is bound to.
pub fn volume_changes() -> String {
    let uid = "?spec.?claimRef.?uid";
    any([
        differs("?spec.?persistentVolumeReclaimPolicy"),
        differs("?spec.?claimRef.?namespace"),
        differs("?spec.?claimRef.?name"),
        format!("oldObject.{uid}.orValue('') != '' && ({})", differs(uid)),
        marks_change(),
    ])
}

pub fn is_one_of<'a>(workloads: impl Iterator<Item = &'a Freezing>) -> String {
    let names: BTreeSet<String> = workloads
        .map(|Freezing { workload, .. }| {
            let (group, resource) = (workload.group(), &workload.resource);
            format!(
                "{group}/{resource}/{}/{}",
                workload.namespace, workload.name
            )
        })
        .collect();
    format!(
        "(request.resource.group + '/' + request.resource.resource + '/' + request.namespace + '/' + {NAME}) in {}",
        cel::list(names.iter().map(String::as_str))
    )
}

pub fn is_in<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    format!(
        "{NAME} in {}",
        cel::list(names.into_iter().map(String::as_str))
    )
}
