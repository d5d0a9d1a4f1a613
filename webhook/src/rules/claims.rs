//! Claims under migration, their staging claims, and what is made from either.

use std::collections::BTreeMap;

use pvmigrate_record::refusal;
use serde::Deserialize;

use super::Verdict;
use super::review::{self, Request};
use crate::fences::{Fenced, Fences, Key};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSpec {
    data_source: Option<DataSource>,
    data_source_ref: Option<DataSource>,
    volume_name: Option<String>,
    resources: Option<Resources>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataSource {
    api_group: Option<String>,
    kind: String,
    name: String,
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Resources {
    requests: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct SnapshotSpec {
    source: SnapshotSource,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotSource {
    persistent_volume_claim_name: Option<String>,
}

pub(super) fn create(request: &Request, fences: &Fences) -> Verdict {
    let namespace = review::namespace(request);
    let spec: ClaimSpec = review::spec(review::object(request)?)?;
    let named = named(request, fences, |of| refusal::claim(of))?;
    let cloned = || {
        let sources = [&spec.data_source, &spec.data_source_ref];
        let mut claims = sources
            .into_iter()
            .flatten()
            .filter(|source| source.is_claim());
        claims.find_map(|source| {
            let namespace = source.namespace.as_deref().unwrap_or(namespace);
            part_of(fences, namespace, &source.name, |of| refusal::clone(of))
        })
    };
    let bound = || {
        let volume = spec.volume_name.as_deref()?;
        let of = fences.first(Key::Volume(volume))?;
        Some(refusal::volume_name(of, volume))
    };
    Ok(named.or_else(cloned).or_else(bound))
}

pub(super) fn update(request: &Request, fences: &Fences) -> Verdict {
    // Whose claim it is first: of all others nothing is read.
    if named(request, fences, |of| refusal::resize(of))?.is_none() {
        return Ok(None);
    }
    if size(review::object(request)?)? != size(review::old_object(request)?)? {
        return named(request, fences, |of| refusal::resize(of));
    }
    match review::changed_mark(request)? {
        Some(mark) => named(request, fences, |of| refusal::claim_mark(of, &mark)),
        None => Ok(None),
    }
}

pub(super) fn delete(request: &Request, fences: &Fences) -> Verdict {
    named(request, fences, |of| refusal::claim_delete(of))
}

pub(super) fn snapshot(request: &Request, fences: &Fences) -> Verdict {
    let spec: SnapshotSpec = review::spec(review::object(request)?)?;
    let namespace = review::namespace(request);
    let source = spec.source.persistent_volume_claim_name;
    Ok(source.and_then(|claim| part_of(fences, namespace, &claim, |of| refusal::snapshot(of))))
}

/// The refusal if a claim is under migration, or is the staging claim of one that is.
pub(super) fn part_of(
    fences: &Fences,
    namespace: &str,
    name: &str,
    refuse: impl Fn(&Fenced) -> String,
) -> Option<String> {
    if let Some(of) = fences.first(Key::Claim { namespace, name }) {
        return Some(refuse(of));
    }
    let of = fences.first(Key::Staging { namespace, name })?;
    Some(refusal::staging(of, name))
}

/// The same of the claim that a request is about.
fn named(request: &Request, fences: &Fences, refuse: impl Fn(&Fenced) -> String) -> Verdict {
    let namespace = review::namespace(request);
    let names = review::names(request)?;
    let mut names = names.into_iter();
    Ok(names.find_map(|name| part_of(fences, namespace, name, &refuse)))
}

/// The size that a claim asks for, as it is written: the API server writes equal ones alike.
fn size(claim: &review::Reviewed) -> Result<Option<String>, review::Unreadable> {
    let spec: ClaimSpec = review::spec(claim)?;
    let requests = spec.resources.and_then(|resources| resources.requests);
    Ok(requests.and_then(|mut requests| requests.remove("storage")))
}

impl DataSource {
    fn is_claim(&self) -> bool {
        self.kind == "PersistentVolumeClaim" && self.api_group.as_deref().unwrap_or_default() == ""
    }
}
