//! The only place that writes to the API: one field manager, a precondition on every write,
//! retries while the API server cannot answer.
//!
//! Writes are boxed: each holds several states of its object, and a step is many calls deep.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions, Resource,
};
use kube::{Client, ResourceExt};
use pvmigrate_record::names::{self, FIELD_MANAGER};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stop::Stop;

mod change;
mod delete;
mod gate;
mod retry;
#[cfg(test)]
pub mod scripted;
mod subresources;
mod view;

use gate::Gate;
pub use retry::retried;
pub use subresources::Evicted;
use view::Views;
pub use view::{View, version};

/// How often an update is tried against a newer state of its object. Controllers write the
/// objects that we write, so a few conflicts are ordinary; this many are not.
const CONFLICTS: usize = 20;

/// How often an object is created anew where the one that was in its way has gone meanwhile.
const CAME_AND_WENT: usize = 3;

/// How many objects one answer to a list holds, and how often a list that was too slow begins anew.
const PAGE: u32 = 200;
const RESTARTS: usize = 3;

/// An API object of any kind, also of one whose name is only known at run time.
pub trait AnyObject:
    Resource + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}

impl<K> AnyObject for K where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug + Send + Sync + 'static
{
}

/// An API object of a kind that this program knows.
pub trait Object: AnyObject + Resource<DynamicType = ()> {}

impl<K> Object for K where K: AnyObject + Resource<DynamicType = ()> {}

/// What came of making an object.
pub enum Made<K> {
    New(K),
    /// One of this name exists.
    Found(K),
}

#[derive(Clone)]
pub struct Cluster {
    client: Client,
    config: Arc<kube::Config>,
    gate: Arc<Gate>,
    views: Arc<Views>,
}

impl Cluster {
    pub async fn connect() -> anyhow::Result<Self> {
        let config = kube::Config::infer().await?;
        Ok(Self {
            client: Client::try_from(config.clone())?,
            config: Arc::new(config),
            gate: Arc::new(Gate::open()),
            views: Arc::default(),
        })
    }

    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The namespace of the kubeconfig's context, or of the pod that this runs in.
    pub fn default_namespace(&self) -> &str {
        &self.config.default_namespace
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

    /// The objects of a kind that is only known by its names.
    pub fn dynamic(&self, resource: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client(), namespace, resource)
    }

    pub async fn get<K: AnyObject>(&self, api: &Api<K>, name: &str) -> Result<Option<K>, Stop> {
        Ok(retried(|| api.get_opt(name)).await?)
    }

    pub async fn list<K: AnyObject>(&self, api: &Api<K>) -> Result<Vec<K>, Stop> {
        let all = ListParams::default();
        Ok(retried(|| api.list(&all)).await?.items)
    }

    /// What is needed of each object of a kind, a page at a time: a cluster has thousands of pods,
    /// and few of them matter here.
    pub async fn collect<K, T>(
        &self,
        api: &Api<K>,
        mut needed: impl FnMut(K) -> Option<T>,
    ) -> Result<Vec<T>, Stop>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let (mut all, mut restarts) = (Vec::new(), 0);
        let mut page = ListParams::default().limit(PAGE);
        loop {
            match retried(|| api.list(&page)).await {
                Ok(list) => {
                    all.extend(list.items.into_iter().filter_map(&mut needed));
                    page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
                    if page.continue_token.is_none() {
                        return Ok(all);
                    }
                }
                // A list that took minutes: its state is forgotten, and it begins anew.
                Err(kube::Error::Api(status)) if status.code == 410 && restarts < RESTARTS => {
                    restarts += 1;
                    all.clear();
                    page.continue_token = None;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Creates an object, or returns the one of this name that exists.
    pub fn create<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        object: &'a K,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        Box::pin(async move {
            match self.make(api, object).await? {
                Made::New(object) | Made::Found(object) => Ok(object),
            }
        })
    }

    /// The same for whom it matters which of the two it was.
    pub fn make<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        object: &'a K,
    ) -> BoxFuture<'a, Result<Made<K>, Stop>> {
        Box::pin(async move {
            let params = PostParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PostParams::default()
            };
            let _in_hand = self.gate.pass().await?;
            for _ in 0..CAME_AND_WENT {
                match retried(|| api.create(&params, object)).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        // One that was on its way out may be gone by now.
                        if let Some(found) = self.get(api, &object.name_any()).await? {
                            return Ok(Made::Found(found));
                        }
                    }
                    Ok(created) if self.gate.has_lapsed() => {
                        return Err(self.take_back(api, &created).await);
                    }
                    other => return Ok(Made::New(other?)),
                }
            }
            Err(Stop::Api(format!(
                "{} {} came and went {CAME_AND_WENT} times while it was created",
                kind_of(object),
                object.name_any()
            )))
        })
    }

    /// A create has no precondition: one that was under way while the Lease lapsed may have come
    /// after a newer Job's end, and nobody else would remove what is ours alone.
    ///
    /// By its UID: what came too late was adopted by nobody, but controllers may have written it.
    /// In a task of its own, for the step that waits may be dropped.
    async fn take_back<K: AnyObject>(&self, api: &Api<K>, created: &K) -> Stop {
        if created.labels().contains_key(names::RUN) {
            let (api, name, kind) = (api.clone(), created.name_any(), kind_of(created));
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
                        tracing::warn!(%kind, %name, %error, "it came too late and stays");
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
    pub async fn dry_run<K: AnyObject>(&self, api: &Api<K>, object: &K) -> Result<(), Stop> {
        let params = PostParams {
            dry_run: true,
            field_manager: Some(FIELD_MANAGER.into()),
        };
        retried(|| api.create(&params, object)).await?;
        Ok(())
    }
}

/// The kind of an object, as it says itself.
fn kind_of<K: AnyObject>(object: &K) -> String {
    let json = serde_json::to_value(object).unwrap_or_default();
    json["kind"].as_str().unwrap_or("object").to_string()
}
