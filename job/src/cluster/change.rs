//! Changing objects that exist: by patches, each against the state that it was decided on.

use futures::future::BoxFuture;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use pvmigrate_record::names::FIELD_MANAGER;
use serde_json::{Value, json};

use super::{AnyObject, CONFLICTS, Cluster, kind_of, retried};
use crate::stop::Stop;

impl Cluster {
    /// Changes an object by merge patches, against its newest state, until it is as wanted.
    ///
    /// `change` sees a state and returns the patch that it needs, or none when nothing is left to
    /// do. Each patch carries the UID and resourceVersion of the state that it was decided on.
    pub fn update<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        change: impl Fn(&K) -> Result<Option<Value>, Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        self.patched(api, known, move |state| {
            let patch = change(state)?;
            Ok(patch.map(|mut patch| {
                patch["metadata"]["uid"] = json!(state.uid());
                patch["metadata"]["resourceVersion"] = json!(state.resource_version());
                Patch::Merge(patch)
            }))
        })
    }

    /// Like [`update`](Self::update), by JSON patches: these can remove a field that a merge
    /// patch of a newer form would bring back.
    pub fn update_json<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        change: impl Fn(&K) -> Result<Option<Vec<Value>>, Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        self.patched(api, known, move |state| {
            let operations = change(state)?;
            Ok(operations.map(|operations| {
                let test = |path, value| json!({"op": "test", "path": path, "value": value});
                let mut all = vec![
                    test("/metadata/uid", state.uid()),
                    test("/metadata/resourceVersion", state.resource_version()),
                ];
                all.extend(operations);
                let patch = serde_json::from_value(Value::Array(all));
                Patch::Json(patch.expect("operations are JSON patches"))
            }))
        })
    }

    /// Makes an object so that nothing is left to `change`: the state of it that is known, and
    /// where there is none any more, a new one or whichever is there.
    pub async fn write<K: AnyObject>(
        &self,
        api: &Api<K>,
        known: Option<K>,
        wanted: &K,
        change: impl Fn(&K) -> Result<Option<Value>, Stop> + Send + Sync,
    ) -> Result<K, Stop> {
        if let Some(known) = known {
            match self.update(api, known, &change).await {
                Err(Stop::Refused(_)) => {}
                other => return other,
            }
        }
        let found = self.create(api, wanted).await?;
        self.update(api, found, &change).await
    }

    fn patched<'a, K: AnyObject>(
        &'a self,
        api: &'a Api<K>,
        known: K,
        patch: impl Fn(&K) -> Result<Option<Patch<Value>>, Stop> + Send + Sync + 'a,
    ) -> BoxFuture<'a, Result<K, Stop>> {
        Box::pin(async move {
            let name = known.name_any();
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.into()),
                ..PatchParams::default()
            };
            let mut state = known;
            for _ in 0..CONFLICTS {
                let Some(patch) = patch(&state)? else {
                    return Ok(state);
                };
                let in_hand = self.gate.pass().await?;
                let answer = retried(|| api.patch(&name, &params, &patch)).await;
                drop(in_hand);
                match answer {
                    Ok(changed) => return Ok(changed),
                    // A test of a JSON patch that fails is 422, and so is a patch that is wrong.
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
                kind_of(&state)
            )))
        })
    }

    /// The newest state of an object that must still be the same one.
    pub(super) async fn reread<K: AnyObject>(&self, api: &Api<K>, known: &K) -> Result<K, Stop> {
        let name = known.name_any();
        match self.get(api, &name).await? {
            Some(newer) if newer.uid() == known.uid() => Ok(newer),
            Some(_) => Err(Stop::Refused(format!(
                "{} {name} was deleted and made again by somebody else",
                kind_of(known)
            ))),
            None => Err(Stop::Refused(format!(
                "{} {name} was deleted by somebody else",
                kind_of(known)
            ))),
        }
    }
}
