//! StatefulSets whose claims have moved: their `volumeClaimTemplates` still name the old class, so
//! that a pod which is added later would get a claim of it.
//!
//! Templates cannot be changed. Either that is said, with the command that does it, or the set is
//! made again around its running pods: see `templates/renew.rs`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use crate::config::{SetTemplates, class_of};
use crate::run::Run;
use crate::stop::Stop;

mod renew;

pub use renew::finish_earlier;

/// A set whose templates name the old class, and whose claims are on the new one.
#[derive(Clone, Debug, PartialEq)]
struct Outdated {
    set: StatefulSet,
    /// With the new class in its templates.
    renewed: StatefulSet,
}

/// Settles all sets whose claims have moved. Returns what is left to do, by the set's name.
pub async fn settle(run: &Run) -> Result<BTreeMap<String, String>, Stop> {
    let (from, to) = (&run.config.source_sc, &run.config.dest_sc);
    let sets: Vec<StatefulSet> = run.cluster.list(&run.cluster.all()).await?;
    let sets = sets
        .into_iter()
        .filter(|set| run.config.selects(&set.namespace().unwrap_or_default()));
    let claims: Vec<PersistentVolumeClaim> = run.cluster.list(&run.cluster.all()).await?;
    let mut left = BTreeMap::new();
    for outdated in sets.filter_map(|set| outdated(set, &claims, from, to)) {
        let name = full_name(&outdated.set);
        let why = match run.config.stateful_set_templates {
            SetTemplates::Report => how(&outdated.set, from, to),
            SetTemplates::Update if is_controlled(&outdated.set) => format!(
                "its volumeClaimTemplates name class {from}; what controls it has to be told of class {to}"
            ),
            SetTemplates::Update => match Box::pin(renew::renew(run, &outdated)).await {
                Ok(()) => continue,
                Err(Stop::Refused(why)) => why,
                Err(other) => return Err(other),
            },
        };
        tracing::warn!(stateful_set = %name, "{why}");
        left.insert(name, why);
    }
    Ok(left)
}

/// The set, if its templates name the old class, it has claims of those templates, and all of them
/// are of the new one. Pure.
fn outdated(
    set: StatefulSet,
    claims: &[PersistentVolumeClaim],
    from: &str,
    to: &str,
) -> Option<Outdated> {
    let (namespace, name) = (set.namespace(), set.name_any());
    let mut renewed = set.clone();
    let templates = renewed.spec.as_mut()?.volume_claim_templates.as_mut()?;
    let mut is_outdated = false;
    for template in templates {
        let prefix = format!("{}-{name}-", template.name_any());
        let mut classes = claims
            .iter()
            .filter(|claim| {
                claim.namespace() == namespace && is_ordinal(&claim.name_any(), &prefix)
            })
            .map(|claim| class_of(claim, None))
            .peekable();
        let Some(spec) = &mut template.spec else {
            continue;
        };
        let is_old = spec.storage_class_name.as_deref() == Some(from);
        if is_old && classes.peek().is_some() && classes.all(|class| class == to) {
            spec.storage_class_name = Some(to.into());
            is_outdated = true;
        }
    }
    is_outdated.then_some(Outdated { set, renewed })
}

fn is_ordinal(claim: &str, prefix: &str) -> bool {
    let ordinal = claim.strip_prefix(prefix).unwrap_or_default();
    !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a person can do about it.
fn how(set: &StatefulSet, from: &str, to: &str) -> String {
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    format!(
        "its volumeClaimTemplates name class {from}, and its claims are of {to}: change the class where the set comes from, and make it again without its pods: kubectl get statefulset {name} -n {namespace} -o json | sed 's/\"storageClassName\": \"{from}\"/\"storageClassName\": \"{to}\"/' | kubectl replace --force --cascade=orphan -f -"
    )
}

fn is_controlled(set: &StatefulSet) -> bool {
    let mut owners = set.owner_references().iter();
    owners.any(|owner| owner.controller == Some(true))
}

fn full_name(set: &StatefulSet) -> String {
    format!("{}/{}", set.namespace().unwrap_or_default(), set.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set() -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"selector": {}, "serviceName": "db", "template": {}, "volumeClaimTemplates": [
                {"metadata": {"name": "data"}, "spec": {"storageClassName": "a"}},
                {"metadata": {"name": "log"}, "spec": {"storageClassName": "other"}}
            ]}
        }))
        .unwrap()
    }

    fn claim(name: &str, class: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": {"storageClassName": class}
        }))
        .unwrap()
    }

    #[test]
    fn a_set_is_outdated_when_all_its_claims_have_moved_and_not_before() {
        let of = |claims: &[PersistentVolumeClaim]| outdated(set(), claims, "a", "b");
        assert_eq!(of(&[]), None, "it has no claims");
        assert_eq!(
            of(&[claim("data-db-0", "b"), claim("data-db-1", "a")]),
            None
        );
        assert_eq!(of(&[claim("data-db-x", "b")]), None, "another set's");
        let renewed = of(&[claim("data-db-0", "b"), claim("log-db-0", "other")])
            .unwrap()
            .renewed;
        let templates = renewed.spec.unwrap().volume_claim_templates.unwrap();
        let class = |number: usize| {
            let spec = templates[number].spec.clone().unwrap();
            spec.storage_class_name.unwrap()
        };
        assert_eq!((class(0), class(1)), ("b".into(), "other".into()));
    }

    #[test]
    fn what_to_do_about_it_is_a_command() {
        assert_eq!(
            how(&set(), "a", "b"),
            "its volumeClaimTemplates name class a, and its claims are of b: change the class where the set comes from, and make it again without its pods: kubectl get statefulset db -n shop -o json | sed 's/\"storageClassName\": \"a\"/\"storageClassName\": \"b\"/' | kubectl replace --force --cascade=orphan -f -"
        );
    }
}
