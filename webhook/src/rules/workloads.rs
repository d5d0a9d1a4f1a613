//! Workloads: those whose pods would mount a fenced claim, and those that are stopped.

use pvmigrate_record::record::{Freezing, Method};
use pvmigrate_record::refusal;
use serde::Deserialize;

use super::pods::PodSpec;
use super::review::{self, Request, Reviewed, Unreadable};
use super::{Verdict, claims};
use crate::fences::{Fenced, Fences, Key};

/// The kinds with a template that is known, by group and resource; and whether a controller makes
/// them for an owner of its own: those pass, their pods do not.
const TEMPLATED: [(&str, &str, bool); 7] = [
    ("apps", "deployments", false),
    ("apps", "statefulsets", false),
    ("apps", "daemonsets", false),
    ("apps", "replicasets", true),
    ("", "replicationcontrollers", true),
    ("batch", "jobs", true),
    ("batch", "cronjobs", false),
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TemplatedSpec {
    template: Option<Template>,
    volume_claim_templates: Option<Vec<ClaimTemplate>>,
    job_template: Option<JobTemplate>,
}

#[derive(Debug, Deserialize)]
struct Template {
    spec: Option<PodSpec>,
}

#[derive(Debug, Deserialize)]
struct JobTemplate {
    spec: Option<JobSpec>,
}

#[derive(Debug, Deserialize)]
struct JobSpec {
    template: Option<Template>,
}

#[derive(Debug, Deserialize)]
struct ClaimTemplate {
    metadata: ClaimTemplateMeta,
}

#[derive(Debug, Deserialize)]
struct ClaimTemplateMeta {
    name: String,
}

/// Of a workload's spec, how much of it runs.
#[derive(Debug, Default, Deserialize)]
struct Running {
    replicas: Option<i64>,
    parallelism: Option<i64>,
    suspend: Option<bool>,
}

pub(super) fn create(request: &Request, fences: &Fences) -> Verdict {
    let taken = takes_a_name(request, fences)?;
    if taken.is_some() {
        return Ok(taken);
    }
    let kind = TEMPLATED.iter().find(|(group, resource, _)| {
        *group == request.resource.group && *resource == request.resource.resource
    });
    let Some((_, _, made_by_controllers)) = kind else {
        return Ok(None);
    };
    let object = review::object(request)?;
    if *made_by_controllers && has_controller(object) {
        return Ok(None);
    }
    mounts(request, fences, &review::spec(object)?)
}

pub(super) fn update(request: &Request, fences: &Fences) -> Verdict {
    for (
        of,
        Freezing {
            workload, method, ..
        },
    ) in stopped(request, fences)?
    {
        if let Some(mark) = review::changed_mark(request)? {
            return Ok(Some(refusal::workload_mark(of, workload, &mark)));
        }
        // A held workload's pods are refused, so how many there should be changes nothing.
        if !matches!(method, Method::Scale | Method::Suspend) {
            continue;
        }
        let before: Running = review::spec(review::old_object(request)?)?;
        let after: Running = review::spec(review::object(request)?)?;
        // Absent, both are 1.
        let more = |part: fn(&Running) -> Option<i64>| {
            part(&after).unwrap_or(1) > part(&before).unwrap_or(1)
        };
        if more(|running| running.replicas) || more(|running| running.parallelism) {
            return Ok(Some(refusal::scale_up(of, workload)));
        }
        if before.suspend == Some(true) && after.suspend != Some(true) {
            return Ok(Some(refusal::resume(of, workload)));
        }
    }
    Ok(None)
}

pub(super) fn delete(request: &Request, fences: &Fences) -> Verdict {
    let stopped = stopped(request, fences)?.into_iter().next();
    Ok(stopped.map(|(of, freezing)| refusal::workload_delete(of, &freezing.workload)))
}

/// A Scale has no labels and no annotations: its workload is known by name.
pub(super) fn scale(request: &Request, fences: &Fences) -> Verdict {
    for (
        of,
        Freezing {
            workload, method, ..
        },
    ) in stopped(request, fences)?
    {
        if *method != Method::Scale {
            continue;
        }
        let before: Running = review::spec(review::old_object(request)?)?;
        let after: Running = review::spec(review::object(request)?)?;
        // Absent, they are 0.
        if after.replicas.unwrap_or(0) > before.replicas.unwrap_or(0) {
            return Ok(Some(refusal::scale_up(of, workload)));
        }
    }
    Ok(None)
}

/// An object that is created under the name of a stopped workload.
pub(super) fn takes_a_name(request: &Request, fences: &Fences) -> Verdict {
    let stopped = stopped(request, fences)?.into_iter().next();
    Ok(stopped.map(|(of, freezing)| refusal::workload_create(of, &freezing.workload)))
}

/// The stopped workloads that a request is about, or would be.
fn stopped<'a>(
    request: &'a Request,
    fences: &'a Fences,
) -> Result<Vec<(&'a Fenced, &'a Freezing)>, Unreadable> {
    let mut found = vec![];
    for name in review::names(request)? {
        let key = Key::Workload {
            group: &request.resource.group,
            resource: &request.resource.resource,
            namespace: review::namespace(request),
            name,
        };
        for of in fences.about(key) {
            let freezings = of.freeze.iter();
            found.extend(
                freezings
                    .filter(|freezing| Key::of(&freezing.workload) == key)
                    .map(|freezing| (of, freezing)),
            );
        }
    }
    Ok(found)
}

/// A workload whose pods would mount a fenced claim, by name or by a template of claims.
fn mounts(request: &Request, fences: &Fences, spec: &TemplatedSpec) -> Verdict {
    let namespace = review::namespace(request);
    let names = review::names(request)?;
    let name = names.first().copied().unwrap_or_default();
    let workload = format!("{} {namespace}/{name}", request.kind.kind);
    let refuse = |of: &Fenced| refusal::template(of, &workload);

    let job = spec.job_template.as_ref().and_then(|job| job.spec.as_ref());
    let templates = [
        spec.template.as_ref(),
        job.and_then(|job| job.template.as_ref()),
    ];
    let pods = templates.into_iter().flatten();
    let mut claims = pods
        .filter_map(|template| template.spec.as_ref())
        .flat_map(PodSpec::claims);
    let mounted = claims.find_map(|claim| claims::part_of(fences, namespace, claim, refuse));
    if mounted.is_some() {
        return Ok(mounted);
    }
    for template in spec.volume_claim_templates.iter().flatten() {
        for name in &names {
            let stem = format!("{}-{name}", template.metadata.name);
            if let Some(of) = fences.first(Key::Stem {
                namespace,
                stem: &stem,
            }) {
                return Ok(Some(refuse(of)));
            }
        }
    }
    Ok(None)
}

fn has_controller(object: &Reviewed) -> bool {
    let mut owners = object.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true))
}
