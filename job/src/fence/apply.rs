//! Making the cluster's objects of the fence as they shall be.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::names::{self, FIELD_MANAGER};
use serde_json::{Map, Value, json};

use super::{Fence, Standing};
use crate::cluster::{Cluster, Object};
use crate::stop::Stop;

/// An object of the fence: what was asked for, and what the API server made of it.
pub(super) struct Made<K> {
    pub wanted: K,
    /// Another [`essence`] than this one's is somebody's change.
    pub stored: K,
}

/// The kinds that the fence is made of.
pub(super) trait Part: Object + PartialEq {
    fn of(standing: &mut Standing) -> &mut Option<Made<Self>>;
    fn api(fence: &Fence) -> Api<Self>;
    fn name(fence: &Fence) -> String {
        names::fence_object(&fence.setting.release)
    }
}

impl Part for ValidatingAdmissionPolicy {
    fn of(standing: &mut Standing) -> &mut Option<Made<Self>> {
        &mut standing.policy
    }
    fn api(fence: &Fence) -> Api<Self> {
        fence.cluster.all()
    }
}

impl Part for ValidatingAdmissionPolicyBinding {
    fn of(standing: &mut Standing) -> &mut Option<Made<Self>> {
        &mut standing.binding
    }
    fn api(fence: &Fence) -> Api<Self> {
        fence.cluster.all()
    }
}

impl Part for ValidatingWebhookConfiguration {
    fn of(standing: &mut Standing) -> &mut Option<Made<Self>> {
        &mut standing.webhook
    }
    fn api(fence: &Fence) -> Api<Self> {
        fence.cluster.all()
    }
}

impl Part for ServiceAccount {
    fn of(standing: &mut Standing) -> &mut Option<Made<Self>> {
        &mut standing.parameters
    }
    fn api(fence: &Fence) -> Api<Self> {
        fence.cluster.namespaced(&fence.config.release_namespace)
    }
    fn name(fence: &Fence) -> String {
        names::fence_claims(&fence.setting.release)
    }
}

impl Fence {
    /// Makes an object as it is wanted, unless that was done before.
    pub(super) async fn put<K: Part>(
        &self,
        made: &mut Option<Made<K>>,
        wanted: K,
    ) -> Result<(), Stop> {
        if made.as_ref().is_some_and(|made| made.wanted == wanted) {
            return Ok(());
        }
        let known = made.as_ref().map(|made| made.stored.clone());
        let stored = write(&self.cluster, &K::api(self), known, &wanted).await?;
        *made = Some(Made { wanted, stored });
        Ok(())
    }

    /// Removes an object, whoever has made it.
    pub(super) async fn remove<K: Part>(&self, made: &mut Option<Made<K>>) -> Result<(), Stop> {
        let api = K::api(self);
        let known = match made {
            Some(made) => Some(made.stored.clone()),
            None => self.cluster.get(&api, &K::name(self)).await?,
        };
        if let Some(object) = known {
            self.cluster.delete(&api, object, None, |_| Ok(())).await?;
        }
        *made = None;
        Ok(())
    }
}

/// Makes an object of the fence as it is wanted, from the state that is known.
pub(super) async fn write<K: Part>(
    cluster: &Cluster,
    api: &Api<K>,
    known: Option<K>,
    wanted: &K,
) -> Result<K, Stop> {
    let shall = essence(wanted);
    let change = |state: &K| {
        let edited = !editors(state).is_empty();
        Ok(difference(&essence(state), &shall, edited))
    };
    cluster.write(api, known, wanted, change).await
}

/// Who else has written an object, but for its status; the last one last.
pub(super) fn editors<K: Object>(object: &K) -> Vec<String> {
    let mut others: Vec<_> = object
        .managed_fields()
        .iter()
        .filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty())
        .filter_map(|entry| {
            Some((
                entry.time.as_ref().map(|time| time.0),
                entry.manager.clone()?,
            ))
        })
        .filter(|(_, manager)| manager != FIELD_MANAGER)
        .collect();
    others.sort();
    others.into_iter().map(|(_, manager)| manager).collect()
}

/// What makes the fence of an object, in the form of a patch.
pub(super) fn essence<K: Object>(object: &K) -> Value {
    let mut whole = serde_json::to_value(object).unwrap_or_default();
    let ours = |of: &Value| -> Map<String, Value> {
        let all = of.as_object().into_iter().flatten();
        let ours = all.filter(|(key, _)| key.contains("pvmigrate.io/"));
        ours.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let metadata = &whole["metadata"];
    let owners = metadata.get("ownerReferences").cloned();
    let mut essence = json!({"metadata": {
        "ownerReferences": owners.unwrap_or_else(|| json!([])),
        "labels": ours(&metadata["labels"]),
        "annotations": ours(&metadata["annotations"]),
    }});
    for part in ["spec", "webhooks"] {
        if let Some(value) = whole.get_mut(part) {
            essence[part] = value.take();
        }
    }
    essence
}

/// The patch that an object needs; none if it is as wanted. What the API server adds to a spec by
/// itself is no difference, what others have added (`edited`) is one.
fn difference(state: &Value, wanted: &Value, edited: bool) -> Option<Value> {
    let is_like_it = !edited && state["metadata"] == wanted["metadata"] && contains(state, wanted);
    (!is_like_it).then(|| patch(state, wanted))
}

/// The merge patch that makes one of the other: what only the first has is named null.
fn patch(state: &Value, wanted: &Value) -> Value {
    let (Value::Object(state), Value::Object(fields)) = (state, wanted) else {
        return wanted.clone();
    };
    let gone = state.keys().filter(|key| !fields.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), Value::Null));
    let nothing = Value::Null;
    let kept = fields.iter().map(|(key, value)| {
        let before = state.get(key).unwrap_or(&nothing);
        (key.clone(), patch(before, value))
    });
    Value::Object(gone.chain(kept).collect())
}

/// Whether an object already is as a patch would make it: what the API server adds is not looked
/// at. Empty lists and absent ones are the same.
fn contains(state: &Value, wanted: &Value) -> bool {
    use Value::{Array, Null, Object};
    match (state, wanted) {
        (Object(state), Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| contains(state.get(key).unwrap_or(&Null), value)),
        (Array(state), Array(wanted)) => {
            state.len() == wanted.len() && state.iter().zip(wanted).all(|(s, w)| contains(s, w))
        }
        (Null, Array(wanted)) => wanted.is_empty(),
        (Null, Object(wanted)) => wanted.is_empty(),
        (state, wanted) => state == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::super::objects::Scope;
    use super::super::objects::tests::{record, setting};
    use super::*;

    fn parameters(claims: &[&str]) -> Value {
        let records: Vec<_> = claims.iter().map(|c| record("x", c, vec![])).collect();
        essence(&Scope::of(&setting(), records.iter(), b"ca").parameters())
    }

    #[test]
    fn a_claim_that_is_not_fenced_any_more_is_a_difference() {
        let patch = difference(&parameters(&["one"]), &parameters(&[]), false).unwrap();
        assert_eq!(
            patch["metadata"]["annotations"],
            json!({"fence.pvmigrate.io/x": null, "volumes.fence.pvmigrate.io/x": null})
        );
    }

    #[test]
    fn the_parameters_of_a_fence_that_goes_name_a_sentinel_and_nothing_else() {
        let mut scope = Scope::of(&setting(), std::iter::empty(), b"ca");
        scope.sentinel = Some(("x".into(), "nobody-has-it".into()));
        let annotations = &essence(&scope.parameters())["metadata"]["annotations"];
        let named = json!({"fence.pvmigrate.io/x": "nobody-has-it"});
        assert_eq!(*annotations, named);
    }

    #[test]
    fn what_the_api_server_adds_is_no_difference_and_what_somebody_adds_is() {
        let wanted = json!({"metadata": {}, "spec": {"a": {"b": 1}, "none": []}});
        let state = json!({"metadata": {}, "spec": {"a": {"b": 1, "added": {}}}});
        assert_eq!(difference(&state, &wanted, false), None);
        let patch = difference(&state, &wanted, true).unwrap();
        assert_eq!(
            patch["spec"],
            json!({"a": {"b": 1, "added": null}, "none": []})
        );
    }

    #[test]
    fn a_changed_spec_and_a_lost_owner_are_differences() {
        let wanted = json!({"metadata": {"ownerReferences": [{"uid": "1"}]}, "spec": {"a": [1]}});
        let spec = json!({"metadata": {"ownerReferences": [{"uid": "1"}]}, "spec": {"a": []}});
        assert_eq!(difference(&spec, &wanted, false), Some(wanted.clone()));
        let owner = json!({"metadata": {"ownerReferences": []}, "spec": {"a": [1]}});
        assert_eq!(difference(&owner, &wanted, false), Some(wanted.clone()));
        assert_eq!(difference(&wanted, &wanted, false), None);
    }
}
