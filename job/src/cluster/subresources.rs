//! Writes to subresources: eviction and scale.

use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::Status;
use pvmigrate_record::names::FIELD_MANAGER;
use serde_json::{Value, json};

use super::{CONFLICTS, Cluster, kind_of, retried};
use crate::stop::Stop;

/// What became of an eviction.
pub enum Evicted {
    /// The pod is on its way out, or gone.
    Yes,
    /// Its budgets do not allow it now; the text is theirs.
    NotNow(String),
}

impl Cluster {
    /// Asks for a pod's eviction, by its UID, so that its budgets are respected by the API server.
    ///
    /// By a body of our own: that of kube's `Api::evict` calls its options `delete_options`, which
    /// the API server does not know and leaves out, and the precondition with them.
    pub async fn evict(&self, api: &Api<Pod>, pod: &Pod) -> Result<Evicted, Stop> {
        let name = pod.name_any();
        let eviction = Eviction {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: pod.namespace(),
                ..ObjectMeta::default()
            },
            delete_options: Some(DeleteOptions {
                preconditions: Some(Preconditions {
                    uid: pod.uid(),
                    resource_version: None,
                }),
                ..DeleteOptions::default()
            }),
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let _in_hand = self.gate.pass().await?;
        let answer: Result<Result<Status, Status>, kube::Error> = retried(|| async {
            match api
                .create_subresource("eviction", &name, &params, &eviction)
                .await
            {
                Ok(status) => Ok(Ok(status)),
                // What a budget says is no reason to repeat the request at once.
                Err(kube::Error::Api(status)) if is_budget(&status) => Ok(Err(*status)),
                Err(error) => Err(error),
            }
        })
        .await;
        match answer {
            Ok(Ok(_)) => Ok(Evicted::Yes),
            Ok(Err(status)) => Ok(Evicted::NotNow(said(&status))),
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                Ok(Evicted::Yes)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many replicas an object of any kind shall have, by its `/scale`.
    pub async fn scale_of(
        &self,
        api: &Api<DynamicObject>,
        object: &DynamicObject,
    ) -> Result<i32, Stop> {
        let name = object.name_any();
        let scale = retried(|| api.get_scale(&name)).await?;
        Ok(scale.spec.and_then(|spec| spec.replicas).unwrap_or(0))
    }

    /// Changes how many replicas an object of any kind shall have, by its `/scale`.
    ///
    /// `change` sees a state of the object with its replicas, and returns how many there shall be,
    /// or none when nothing is left to do. A Scale has the resourceVersion of what it scales, so
    /// that each write carries that of the state that it was decided on.
    pub async fn update_scale(
        &self,
        api: &Api<DynamicObject>,
        known: DynamicObject,
        change: impl Fn(&DynamicObject, i32) -> Result<Option<i32>, Stop>,
    ) -> Result<DynamicObject, Stop> {
        let name = known.name_any();
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let mut state = known;
        for _ in 0..CONFLICTS {
            let scale: Scale = retried(|| api.get_scale(&name)).await?;
            if scale.resource_version() == state.resource_version() {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                let Some(wanted) = change(&state, replicas)? else {
                    return Ok(state);
                };
                let patch: Value = json!({
                    "metadata": {"uid": state.uid(), "resourceVersion": state.resource_version()},
                    "spec": {"replicas": wanted},
                });
                let patch = Patch::Merge(&patch);
                let in_hand = self.gate.pass().await?;
                let answer = retried(|| api.patch_scale(&name, &params, &patch)).await;
                drop(in_hand);
                match answer {
                    Ok(_) => return self.reread(api, &state).await,
                    Err(kube::Error::Api(status)) if status.is_conflict() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            state = self.reread(api, &state).await?;
        }
        Err(Stop::Api(format!(
            "{} {name} changes faster than it can be scaled",
            kind_of(&state)
        )))
    }
}

/// A refusal by a PodDisruptionBudget has its code in common with an API server that is busy.
fn is_budget(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut reasons = causes.map(|cause| cause.reason.as_str());
    status.code == 429 && reasons.any(|reason| reason == "DisruptionBudget")
        // Two budgets for one pod are an internal error to the API server.
        || status.message.contains("more than one PodDisruptionBudget")
}

/// The API server's sentence, with what its causes add: those name the budget.
fn said(status: &Status) -> String {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes: Vec<&str> = causes.map(|cause| cause.message.as_str()).collect();
    format!("{} {}", status.message, causes.join("; "))
        .trim()
        .to_string()
}
