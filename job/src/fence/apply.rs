//! Making the cluster's objects of the fence as they shall be.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::names;
use serde_json::json;

use super::Fence;
use super::objects::Scope;
use crate::cluster::Object;
use crate::stop::Stop;

impl Fence {
    /// The parameters, made if they are missing.
    pub(super) async fn put_parameters(&self, scope: &Scope) -> Result<(), Stop> {
        let wanted = scope.parameters();
        let known = self.cluster.create(&self.parameters(), &wanted).await?;
        self.update_parameters(known, &wanted).await
    }

    /// The parameters, where they exist: without them there is no fence to open.
    pub(super) async fn narrow_parameters(&self, scope: &Scope) -> Result<(), Stop> {
        let name = names::fence_claims(&scope.release);
        match self.cluster.get(&self.parameters(), &name).await? {
            Some(known) => self.update_parameters(known, &scope.parameters()).await,
            None => Ok(()),
        }
    }

    /// What the webhook is asked about, where it is asked at all; nothing if no claim is fenced.
    pub(super) async fn narrow_webhook(&self, scope: &Scope) -> Result<(), Stop> {
        let api = self.cluster.all::<ValidatingWebhookConfiguration>();
        let name = names::fence_object(&scope.release);
        if scope.claims.is_empty() {
            self.remove(&api, &name).await
        } else if self.cluster.get(&api, &name).await?.is_some() {
            self.put(scope.webhook()).await
        } else {
            Ok(())
        }
    }

    pub(super) fn parameters(&self) -> Api<ServiceAccount> {
        self.cluster.namespaced(&self.config.release_namespace)
    }

    async fn update_parameters(
        &self,
        known: ServiceAccount,
        wanted: &ServiceAccount,
    ) -> Result<(), Stop> {
        self.cluster
            .update(&self.parameters(), known, |state| {
                let owners = state.owner_references() == wanted.owner_references();
                if owners && fenced(state) == fenced(wanted) {
                    return Ok(None);
                }
                // A merge patch keeps what it does not name: claims that are gone are named null.
                let mut annotations = json!(wanted.annotations());
                for key in fenced(state).into_keys() {
                    if annotations.get(key).is_none() {
                        annotations[key] = json!(null);
                    }
                }
                Ok(Some(json!({"metadata": {
                    "annotations": annotations,
                    "ownerReferences": wanted.owner_references(),
                }})))
            })
            .await?;
        Ok(())
    }

    /// Creates a cluster-scoped object of the fence, or makes the one that exists like it.
    pub(super) async fn put<K: Object>(&self, wanted: K) -> Result<(), Stop> {
        let api = self.cluster.all::<K>();
        let wanted_json = serde_json::to_value(&wanted).map_err(|e| Stop::Api(e.to_string()))?;
        let known = self.cluster.create(&api, &wanted).await?;
        self.cluster
            .update(&api, known, |state| {
                let state = serde_json::to_value(state).map_err(|e| Stop::Api(e.to_string()))?;
                let mut patch = json!({"metadata": {
                    "ownerReferences": wanted_json["metadata"]["ownerReferences"],
                    "labels": wanted_json["metadata"]["labels"],
                }});
                for part in ["spec", "webhooks"] {
                    if let Some(value) = wanted_json.get(part) {
                        patch[part] = value.clone();
                    }
                }
                Ok((!contains(&state, &patch)).then_some(patch))
            })
            .await?;
        Ok(())
    }

    pub(super) async fn remove<K: Object>(&self, api: &Api<K>, name: &str) -> Result<(), Stop> {
        match self.cluster.get(api, name).await? {
            Some(object) => self.cluster.delete(api, object, None, |_| Ok(())).await,
            None => Ok(()),
        }
    }
}

/// What the parameters say of fenced claims.
fn fenced(parameters: &ServiceAccount) -> BTreeMap<&String, &String> {
    let annotations = parameters.annotations().iter();
    annotations
        .filter(|(key, _)| key.starts_with(names::FENCED))
        .collect()
}

/// Whether an object already is as a patch would make it: what the API server adds is not looked
/// at. Empty lists and absent ones are the same.
fn contains(state: &serde_json::Value, wanted: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Null, Object};
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
