//! Deleting objects, each in the state that it was decided on.

use futures::future::BoxFuture;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Preconditions};

use super::{AnyObject, CONFLICTS, Cluster, kind_of, retried};
use crate::stop::Stop;

impl Cluster {
    /// Deletes an object in exactly this state; if it has changed, `still` decides about the new
    /// one. Gone already is fine. `grace` is in seconds; none is the object's own.
    pub fn delete<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        grace: Option<u32>,
        still: impl Fn(&K) -> Result<(), Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        let params = DeleteParams {
            grace_period_seconds: grace,
            ..DeleteParams::default()
        };
        Box::pin(async move { self.delete_by(api, known, params, still).await.map(drop) })
    }

    /// The same for an object whose end tells something about when it was asked to go: whether that
    /// was by this call. Not if it was gone before, nor if the answer to the request was lost.
    pub fn delete_ourselves<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        grace: u32,
        still: impl Fn(&K) -> Result<(), Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<bool, Stop>> {
        let params = DeleteParams {
            grace_period_seconds: Some(grace),
            ..DeleteParams::default()
        };
        self.delete_by(api, known, params, still)
    }

    /// The same for an object whose dependents are to live on, with nobody as their owner.
    pub fn delete_orphaning<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
    ) -> BoxFuture<'a, Result<(), Stop>> {
        let params = DeleteParams::orphan();
        Box::pin(async move {
            self.delete_by(api, known, params, |_| Ok(()))
                .await
                .map(drop)
        })
    }

    fn delete_by<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        params: DeleteParams,
        still: impl Fn(&K) -> Result<(), Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<bool, Stop>> {
        Box::pin(async move {
            let name = known.name_any();
            let mut state = known;
            for _ in 0..CONFLICTS {
                still(&state)?;
                let params = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: state.uid(),
                        resource_version: state.resource_version(),
                    }),
                    ..params.clone()
                };
                let in_hand = self.gate.pass().await?;
                let answer = retried(|| api.delete(&name, &params)).await;
                drop(in_hand);
                match answer {
                    Ok(_) => return Ok(true),
                    Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(false),
                    Err(kube::Error::Api(status)) if status.is_conflict() => {}
                    Err(error) => return Err(error.into()),
                }
                match self.get(api, &name).await? {
                    Some(newer) if newer.uid() == state.uid() => state = newer,
                    _ => return Ok(false),
                }
            }
            Err(Stop::Api(format!(
                "{} {name} changes faster than it can be deleted",
                kind_of(&state)
            )))
        })
    }
}
