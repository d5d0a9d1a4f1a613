//! The volumes of a migration: its source and its destination.

use pvmigrate_record::refusal;
use serde::Deserialize;

use super::Verdict;
use super::review::{self, Request};
use crate::fences::{Fenced, Fences, Key};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeSpec {
    persistent_volume_reclaim_policy: Option<String>,
    claim_ref: Option<ClaimRef>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct ClaimRef {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<String>,
}

pub(super) fn update(request: &Request, fences: &Fences) -> Verdict {
    let Some((volume, of)) = ours(request, fences)? else {
        return Ok(None);
    };
    let before: VolumeSpec = review::spec(review::old_object(request)?)?;
    let after: VolumeSpec = review::spec(review::object(request)?)?;
    let what = if before.persistent_volume_reclaim_policy != after.persistent_volume_reclaim_policy
    {
        Some("reclaim policy".to_string())
    } else if retargeted(before.claim_ref.as_ref(), after.claim_ref.as_ref()) {
        Some("claimRef".to_string())
    } else {
        review::changed_mark(request)?
    };
    Ok(what.map(|what| refusal::volume(of, volume, &what)))
}

pub(super) fn delete(request: &Request, fences: &Fences) -> Verdict {
    let ours = ours(request, fences)?;
    Ok(ours.map(|(volume, of)| refusal::volume_delete(of, volume)))
}

fn ours<'a>(
    request: &'a Request,
    fences: &'a Fences,
) -> Result<Option<(&'a str, &'a Fenced)>, review::Unreadable> {
    let mut names = review::names(request)?.into_iter();
    Ok(names.find_map(|name| Some((name, fences.first(Key::Volume(name))?))))
}

/// Whether a volume would be another claim's. The binder adds the UID of the claim that has the
/// name; a volume without a claimRef anything may take.
fn retargeted(before: Option<&ClaimRef>, after: Option<&ClaimRef>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return before != after;
    };
    let uid = |of: &ClaimRef| of.uid.clone().filter(|uid| !uid.is_empty());
    before.namespace != after.namespace
        || before.name != after.name
        || uid(before).is_some_and(|before| Some(before) != uid(after))
}
