//! A StatefulSet is made again with other claim templates, around its running pods.
//!
//! ```text
//! Secret with the set as it shall be  →  retention policy Retain  →  set deleted, its pods orphaned
//!     →  set made again, OnDelete  →  all pods adopted, their revision is the set's
//!     →  its own update strategy  →  its own retention policy  →  Secret cleared
//! ```
//!
//! No pod is restarted: a revision is made from the pod template alone, and with `OnDelete` one that
//! differed all the same would be left as it is. The Secret is in the release's namespace; a Job
//! that comes after a crash goes on from it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
    StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::names;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Outdated, full_name};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{Seen, wait_for, wait_gone};

/// How long the StatefulSet controller, or the garbage collector, may take for one of the steps.
const LIMIT: Duration = Duration::from_secs(120);
const ON_DELETE: &str = "OnDelete";

/// What a Job that comes later needs to go on.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    /// Of the set that is replaced.
    uid: String,
    /// As it shall be in the end.
    wanted: StatefulSet,
}

/// Makes a set again with its new templates.
pub async fn renew(run: &Run, outdated: &Outdated) -> Result<(), Stop> {
    let saved = Saved {
        uid: outdated.set.uid().unwrap_or_default(),
        wanted: wanted(&outdated.renewed),
    };
    save(run, &saved).await?;
    Box::pin(go_on(run, &saved)).await
}

/// Goes on with the sets that an earlier Job had begun to make again.
pub async fn finish_earlier(run: &Run) -> Result<(), Stop> {
    let Some(secret) = run.cluster.get(&secrets(run), &secret_name(run)).await? else {
        return Ok(());
    };
    for (key, bytes) in secret.data.unwrap_or_default() {
        let saved: Saved = serde_json::from_slice(&bytes.0)
            .map_err(|error| Stop::Api(format!("what is kept of StatefulSet {key}: {error}")))?;
        tracing::info!(stateful_set = %full_name(&saved.wanted), "an earlier Job has begun to make it again; going on");
        let name = full_name(&saved.wanted);
        match Box::pin(go_on(run, &saved)).await {
            Err(Stop::Refused(why)) if exists(run, &saved).await? => {
                tracing::error!(stateful_set = %name, "{why}");
            }
            // Its pods run on, but nothing would make one again.
            Err(Stop::Refused(why)) => {
                return Err(Stop::Api(format!(
                    "StatefulSet {name} is missing, and cannot be made again: {why}"
                )));
            }
            other => other?,
        }
    }
    Ok(())
}

/// From wherever an earlier Job has got to.
async fn go_on(run: &Run, saved: &Saved) -> Result<(), Stop> {
    let name = saved.wanted.name_any();
    let sets = sets(run, &saved.wanted);
    if let Some(old) = run.cluster.get(&sets, &name).await?
        && old.uid().as_deref() == Some(saved.uid.as_str())
    {
        orphan(run, &sets, old).await?;
    }
    let made = run.cluster.create(&sets, &at_first(saved)).await?;
    if made.annotations().get(names::RENEWED) != Some(&saved.uid) {
        tracing::warn!(stateful_set = %full_name(&made), "somebody else has made it; it is left as it is");
        return forget(run, saved).await;
    }
    adopted(&sets, &made).await?;
    let own = saved.wanted.spec.clone().unwrap_or_default();
    let strategy = json!({"spec": {"updateStrategy": own.update_strategy}});
    let made = run
        .cluster
        .update(&sets, made, |_| Ok(Some(strategy.clone())))
        .await?;
    let last = json!({
        "metadata": {"annotations": {names::RENEWED: null}},
        "spec": {"persistentVolumeClaimRetentionPolicy": own.persistent_volume_claim_retention_policy},
    });
    run.cluster
        .update(&sets, made, |_| Ok(Some(last.clone())))
        .await?;
    tracing::info!(stateful_set = %full_name(&saved.wanted), "its volumeClaimTemplates name the new class; its pods run on");
    forget(run, saved).await
}

async fn exists(run: &Run, saved: &Saved) -> Result<bool, Stop> {
    let sets = sets(run, &saved.wanted);
    let found = run.cluster.get(&sets, &saved.wanted.name_any()).await?;
    Ok(found.is_some())
}

/// Deletes a set without its pods, and without its claims whatever its policy was.
async fn orphan(run: &Run, sets: &Api<StatefulSet>, old: StatefulSet) -> Result<(), Stop> {
    let (name, uid) = (old.name_any(), old.uid().unwrap_or_default());
    let keep = json!({"spec": {"persistentVolumeClaimRetentionPolicy": retain()}});
    let old = run
        .cluster
        .update(sets, old, |old| {
            let spec = old.spec.as_ref();
            let policy =
                spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
            let deletes = policy.is_some_and(|policy| *policy != retain());
            Ok(deletes.then(|| keep.clone()))
        })
        .await?;
    let what = format!("the controller of StatefulSet {name} to see that claims are to be kept");
    let old = wait_for(sets, &name, &what, LIMIT, |set| match set {
        Some(set) if set.uid() == old.uid() && is_observed(set) => Seen::Reached(set.clone()),
        Some(set) if set.uid() == old.uid() => {
            Seen::NotYet("its observedGeneration is behind".into())
        }
        _ => Seen::Never(format!("StatefulSet {name} was deleted by somebody else")),
    })
    .await?;
    run.cluster.delete_orphaning(sets, old).await?;
    wait_gone(sets, &name, &uid, LIMIT).await
}

/// Waits until every pod is the new set's, and of its revision.
async fn adopted(sets: &Api<StatefulSet>, made: &StatefulSet) -> Result<(), Stop> {
    let name = made.name_any();
    let what = format!("StatefulSet {name} to adopt its pods");
    wait_for(sets, &name, &what, LIMIT, |set| {
        let Some(set) = set.filter(|set| set.uid() == made.uid()) else {
            return Seen::Never(format!("StatefulSet {name} was deleted by somebody else"));
        };
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let status = set.status.clone().unwrap_or_default();
        let updated = status.updated_replicas.unwrap_or(0);
        if is_observed(set) && status.replicas >= wanted && updated >= wanted {
            Seen::Reached(())
        } else {
            Seen::NotYet(format!(
                "{updated} of {wanted} pods are adopted and of its revision; it keeps the update strategy {ON_DELETE} until all are"
            ))
        }
    })
    .await
}

fn is_observed(set: &StatefulSet) -> bool {
    let status = set.status.as_ref();
    status.and_then(|status| status.observed_generation) >= set.metadata.generation
}

fn retain() -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some("Retain".into()),
        when_scaled: Some("Retain".into()),
    }
}

/// A set as it is made again: without what the cluster has added. Pure.
fn wanted(set: &StatefulSet) -> StatefulSet {
    StatefulSet {
        metadata: ObjectMeta {
            name: set.metadata.name.clone(),
            namespace: set.metadata.namespace.clone(),
            labels: set.metadata.labels.clone(),
            annotations: set.metadata.annotations.clone(),
            owner_references: set.metadata.owner_references.clone(),
            finalizers: set.metadata.finalizers.clone(),
            ..ObjectMeta::default()
        },
        spec: set.spec.clone(),
        status: None,
    }
}

/// The same as long as not all pods are its own: nothing of it may restart a pod or delete a claim.
fn at_first(saved: &Saved) -> StatefulSet {
    let mut set = saved.wanted.clone();
    set.annotations_mut()
        .insert(names::RENEWED.into(), saved.uid.clone());
    set.spec = set.spec.map(|spec| StatefulSetSpec {
        update_strategy: Some(StatefulSetUpdateStrategy {
            type_: Some(ON_DELETE.into()),
            rolling_update: None,
        }),
        persistent_volume_claim_retention_policy: Some(retain()),
        ..spec
    });
    set
}

fn sets(run: &Run, set: &StatefulSet) -> Api<StatefulSet> {
    run.cluster.namespaced(&set.namespace().unwrap_or_default())
}

fn secrets(run: &Run) -> Api<Secret> {
    run.cluster.namespaced(&run.config.release_namespace)
}

fn secret_name(run: &Run) -> String {
    names::renewed_sets(&run.config.release)
}

fn key(saved: &Saved) -> String {
    // A namespace has no dot.
    full_name(&saved.wanted).replace('/', ".")
}

async fn save(run: &Run, saved: &Saved) -> Result<(), Stop> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(run)),
            namespace: Some(run.config.release_namespace.clone()),
            labels: Some(BTreeMap::from([
                (names::RUN.into(), run.config.run()),
                (names::ROLE.into(), names::ROLE_MANIFEST.into()),
            ])),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    let known = run.cluster.create(&secrets(run), &secret).await?;
    let bytes = serde_json::to_vec(saved).map_err(|error| Stop::Api(error.to_string()))?;
    let patch = json!({"data": {key(saved): ByteString(bytes)}});
    run.cluster
        .update(&secrets(run), known, |_| Ok(Some(patch.clone())))
        .await?;
    Ok(())
}

/// The set is as it shall be: nothing of it is kept any longer.
async fn forget(run: &Run, saved: &Saved) -> Result<(), Stop> {
    let secrets = secrets(run);
    let Some(secret) = run.cluster.get(&secrets, &secret_name(run)).await? else {
        return Ok(());
    };
    let key = key(saved);
    let is_last = |secret: &Secret| secret.data.iter().flatten().all(|(other, _)| *other == key);
    if is_last(&secret) {
        return run.cluster.delete(&secrets, secret, None, |_| Ok(())).await;
    }
    let patch = json!({"data": {key.clone(): null}});
    run.cluster
        .update(&secrets, secret, |_| Ok(Some(patch.clone())))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_made_again_as_it_was_and_careful_until_its_pods_are_its_own() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "shop", "uid": "old", "resourceVersion": "3",
                "generation": 7, "labels": {"app": "db"}, "annotations": {"a": "b"}},
            "spec": {"selector": {}, "serviceName": "db", "template": {},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"}},
            "status": {"replicas": 2}
        }))
        .unwrap();
        let saved = Saved {
            uid: "old".into(),
            wanted: wanted(&set),
        };
        assert_eq!(saved.wanted.spec, set.spec);
        assert_eq!(saved.wanted.status, None);
        let metadata = serde_json::to_value(&saved.wanted.metadata).unwrap();
        assert_eq!(
            metadata,
            json!({"name": "db", "namespace": "shop", "labels": {"app": "db"}, "annotations": {"a": "b"}})
        );
        let first = at_first(&saved);
        assert_eq!(first.annotations()[names::RENEWED], "old");
        let spec = first.spec.unwrap();
        assert_eq!(spec.update_strategy.unwrap().type_.unwrap(), "OnDelete");
        assert_eq!(
            spec.persistent_volume_claim_retention_policy,
            Some(retain())
        );
        assert_eq!(key(&saved), "shop.db");
    }
}
