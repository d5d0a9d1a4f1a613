//! The only place that writes to the API: one field manager, a precondition on every write,
//! retries while the API server cannot answer.
//!
//! Writes are boxed: each holds several states of its object, and a step is many calls deep.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, Resource,
};
use kube::{Client, ResourceExt};
use pvmigrate_record::names::{self, FIELD_MANAGER};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::stop::Stop;

mod gate;
mod retry;

use gate::Gate;
pub use retry::retried;

/// How often an update is tried against a newer state of its object. Controllers write the
/// objects that we write, so a few conflicts are ordinary; this many are not.
const CONFLICTS: usize = 20;

/// An API object as this program handles it.
pub trait Object:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug
        + Send
        + Sync
        + 'static
{
}

#[derive(Clone)]
pub struct Cluster {
    client: Client,
    config: Arc<kube::Config>,
    gate: Arc<Gate>,
}

impl Cluster {
    pub async fn connect() -> anyhow::Result<Self> {
        let config = kube::Config::infer().await?;
        Ok(Self {
            client: Client::try_from(config.clone())?,
            config: Arc::new(config),
            gate: Arc::new(Gate::open()),
        })
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A client with connections of its own, to this address of an API server if one is given.
    pub fn new_connection(&self, url: Option<&str>) -> anyhow::Result<Client> {
        let mut config = self.config.as_ref().clone();
        if let Some(url) = url {
            config.cluster_url = url.parse()?;
        }
        Ok(Client::try_from(config)?)
    }

    pub fn all<K: Object>(&self) -> Api<K> {
        Api::all(self.client())
    }

    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Object + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client(), namespace)
    }

    pub async fn get<K: Object>(&self, api: &Api<K>, name: &str) -> Result<Option<K>, Stop> {
        Ok(retried(|| api.get_opt(name)).await?)
    }

    pub async fn list<K: Object>(&self, api: &Api<K>) -> Result<Vec<K>, Stop> {
        let all = ListParams::default();
        Ok(retried(|| api.list(&all)).await?.items)
    }

    /// Creates an object, or returns the one of this name that exists.
    pub fn create<'a, K: Object>(
        &'a self,
        api: &'a Api<K>,
        object: &'a K,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        Box::pin(async move {
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PostParams::default()
            };
            let _in_hand = self.gate.pass().await?;
            match retried(|| api.create(&params, object)).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    let name = object.name_any();
                    self.get(api, &name).await?.ok_or_else(|| {
                        Stop::Api(format!(
                            "{} {name} came and went while it was created",
                            K::kind(&())
                        ))
                    })
                }
                Ok(created) if self.gate.has_lapsed() => Err(self.take_back(api, &created).await),
                other => Ok(other?),
            }
        })
    }

    /// A create has no precondition: one that was under way while the Lease lapsed may have come
    /// after a newer Job's end, and nobody else would remove what is ours alone.
    ///
    /// By its UID: what came too late was adopted by nobody, but controllers may have written it.
    /// In a task of its own, for the step that waits may be dropped.
    async fn take_back<K: Object>(&self, api: &Api<K>, created: &K) -> Stop {
        if created.labels().contains_key(names::RUN) {
            let (api, name) = (api.clone(), created.name_any());
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: created.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            let taken_back = tokio::spawn(async move {
                match api.delete(&name, &params).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => {}
                    Err(error) => {
                        tracing::warn!(kind = %K::kind(&()), %name, %error, "it came too late and stays");
                    }
                    Ok(_) => {}
                }
            });
            if let Err(error) = taken_back.await {
                tracing::warn!(%error, "what came too late could not be taken back");
            }
        }
        Stop::Superseded("the Lease has lapsed; the work".into())
    }

    /// Asks the API server whether it would take an object. The answer is its own sentence.
    pub async fn dry_run<K: Object>(&self, api: &Api<K>, object: &K) -> Result<(), Stop> {
        let params = PostParams {
            dry_run: true,
            field_manager: Some(FIELD_MANAGER.into()),
        };
        retried(|| api.create(&params, object)).await?;
        Ok(())
    }

    /// Changes an object by merge patches, against its newest state, until it is as wanted.
    ///
    /// `change` sees a state and returns the patch that it needs, or none when nothing is left to
    /// do. Each patch carries the UID and resourceVersion of the state that it was decided on.
    pub fn update<'a, K: Object>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        change: impl Fn(&K) -> Result<Option<Value>, Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        Box::pin(async move {
            let name = known.name_any();
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let mut state = known;
            for _ in 0..CONFLICTS {
                let Some(mut patch) = change(&state)? else {
                    return Ok(state);
                };
                patch["metadata"]["uid"] = json!(state.uid());
                patch["metadata"]["resourceVersion"] = json!(state.resource_version());
                let merge = Patch::Merge(&patch);
                let in_hand = self.gate.pass().await?;
                let answer = retried(|| api.patch(&name, &params, &merge)).await;
                drop(in_hand);
                match answer {
                    Ok(changed) => return Ok(changed),
                    Err(kube::Error::Api(status)) if status.is_conflict() => {}
                    Err(error) => return Err(error.into()),
                }
                state = self.reread(api, &state).await?;
            }
            Err(Stop::Api(format!(
                "{} {name} changes faster than it can be written",
                K::kind(&())
            )))
        })
    }

    /// Like [`update`](Self::update), by JSON patches: these can remove a field that a merge
    /// patch of a newer form would bring back.
    pub fn update_json<'a, K: Object>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        change: impl Fn(&K) -> Result<Option<Vec<Value>>, Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        Box::pin(async move {
            let name = known.name_any();
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let mut state = known;
            for _ in 0..CONFLICTS {
                let Some(operations) = change(&state)? else {
                    return Ok(state);
                };
                let mut all = vec![
                    json!({"op": "test", "path": "/metadata/uid", "value": state.uid()}),
                    json!({"op": "test", "path": "/metadata/resourceVersion", "value": state.resource_version()}),
                ];
                all.extend(operations);
                let patch: json_patch::Patch =
                    serde_json::from_value(Value::Array(all)).expect("operations are JSON patches");
                let patch = Patch::<()>::Json(patch);
                let in_hand = self.gate.pass().await?;
                let answer = retried(|| api.patch(&name, &params, &patch)).await;
                drop(in_hand);
                match answer {
                    Ok(changed) => return Ok(changed),
                    // A test that fails is 422 here, and 409 when the object changed in between.
                    Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => {
                        let newer = self.reread(api, &state).await?;
                        if newer.resource_version() == state.resource_version() {
                            return Err(Stop::Refused(status.message));
                        }
                        state = newer;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(Stop::Api(format!(
                "{} {name} changes faster than it can be written",
                K::kind(&())
            )))
        })
    }

    /// Deletes an object in exactly this state; if it has changed, `still` decides about the new
    /// one. Gone already is fine. `grace` is in seconds; none is the object's own.
    pub fn delete<'a, K: Object>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        grace: Option<u32>,
        still: impl Fn(&K) -> Result<(), Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        Box::pin(async move {
            let name = known.name_any();
            let mut state = known;
            for _ in 0..CONFLICTS {
                still(&state)?;
                let params = DeleteParams {
                    grace_period_seconds: grace,
                    preconditions: Some(Preconditions {
                        uid: state.uid(),
                        resource_version: state.resource_version(),
                    }),
                    ..DeleteParams::default()
                };
                let in_hand = self.gate.pass().await?;
                let answer = retried(|| api.delete(&name, &params)).await;
                drop(in_hand);
                match answer {
                    Ok(_) => return Ok(()),
                    Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
                    Err(kube::Error::Api(status)) if status.is_conflict() => {}
                    Err(error) => return Err(error.into()),
                }
                match self.get(api, &name).await? {
                    Some(newer) if newer.uid() == state.uid() => state = newer,
                    _ => return Ok(()),
                }
            }
            Err(Stop::Api(format!(
                "{} {name} changes faster than it can be deleted",
                K::kind(&())
            )))
        })
    }

    /// The newest state of an object that must still be the same one.
    async fn reread<K: Object>(&self, api: &Api<K>, known: &K) -> Result<K, Stop> {
        let name = known.name_any();
        match self.get(api, &name).await? {
            Some(newer) if newer.uid() == known.uid() => Ok(newer),
            Some(_) => Err(Stop::Refused(format!(
                "{} {name} was deleted and made again by somebody else",
                K::kind(&())
            ))),
            None => Err(Stop::Refused(format!(
                "{} {name} was deleted by somebody else",
                K::kind(&())
            ))),
        }
    }
}
