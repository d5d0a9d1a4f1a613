//! What the Job sees of a kind of objects: one list and one watch, however many steps wait for one
//! of them. Objects change every few milliseconds while claims are swapped, and each wait of its own
//! would cost the API server a list and a watch.
//!
//! A view may lag behind a write. Whoever has an answer of the API server in hand passes it as
//! `known`, and sees nothing older; resourceVersions of one kind grow with each write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, pin_mut, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use pvmigrate_record::names;
use tokio::sync::{Mutex, OnceCell, watch};
use tokio::task::JoinHandle;

use super::{Cluster, Object, retried};
use crate::stop::Stop;

/// How long after a list that failed the next one begins.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// The views that were asked for so far.
#[derive(Default)]
pub struct Views {
    claims: Mutex<BTreeMap<String, View<PersistentVolumeClaim>>>,
    volumes: OnceCell<View<PersistentVolume>>,
}

/// It ends when the last clone of it is dropped.
#[derive(Clone)]
pub struct View<K> {
    /// Only objects with this label are seen.
    label: Option<&'static str>,
    seen: watch::Receiver<Seen<K>>,
    _task: Arc<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Seen<K> {
    objects: BTreeMap<String, K>,
    /// All writes up to this one are in it.
    version: u64,
}

impl Cluster {
    /// The claims of a namespace.
    pub async fn claims_seen(&self, namespace: &str) -> Result<View<PersistentVolumeClaim>, Stop> {
        let mut views = self.views.claims.lock().await;
        if let Some(view) = views.get(namespace) {
            return Ok(view.clone());
        }
        let view = View::start(self.namespaced(namespace), None).await?;
        views.insert(namespace.to_string(), view.clone());
        Ok(view)
    }

    /// The volumes that carry a run's label: sources from their first record on, destinations from
    /// Retained on.
    pub async fn volumes_seen(&self) -> Result<View<PersistentVolume>, Stop> {
        let volumes = &self.views.volumes;
        let view = volumes
            .get_or_try_init(|| View::start(self.all(), Some(names::RUN)))
            .await?;
        Ok(view.clone())
    }
}

impl<K: Object> View<K> {
    /// Lists, then watches from exactly there; objects with this label, if one is given.
    async fn start(api: Api<K>, label: Option<&'static str>) -> Result<Self, Stop> {
        let (version, listed) = list(&api, label).await?;
        let (sender, seen) = watch::channel(listed);
        let task = tokio::spawn(follow(api, label, version, sender));
        Ok(Self {
            label,
            seen,
            _task: Arc::new(Task(task)),
        })
    }

    pub fn get(&self, name: &str) -> Option<K> {
        self.seen.borrow().objects.get(name).cloned()
    }

    /// A state that is known, or a newer one of the same object.
    pub fn newest(&self, known: K) -> K {
        let seen = self.seen.borrow();
        match seen.objects.get(&known.name_any()) {
            Some(newer) if newer.uid() == known.uid() && version(newer) > version(&known) => {
                newer.clone()
            }
            _ => known,
        }
    }

    /// The states of an object from a known one on; none while it does not exist. One that is not
    /// for this view to see stays as it is known.
    pub fn states(
        &self,
        name: &str,
        known: Option<K>,
    ) -> impl Stream<Item = Result<Option<K>, Stop>> + use<K> {
        let name = name.to_string();
        let is_unseen = self.label.is_some_and(|label| {
            let known = known.as_ref();
            known.is_some_and(|known| !known.labels().contains_key(label))
        });
        let begin = (self.seen.clone(), known, true);
        stream::unfold(begin, move |(mut seen, known, is_first)| {
            let name = name.clone();
            async move {
                if !is_first && seen.changed().await.is_err() {
                    return None;
                }
                let state = seen.borrow_and_update().after(&name, known.as_ref());
                let state = state.or_else(|| known.clone().filter(|_| is_unseen));
                Some((Ok(state), (seen, known, false)))
            }
        })
    }
}

impl<K: Object> Seen<K> {
    fn after(&self, name: &str, known: Option<&K>) -> Option<K> {
        let floor = known.map_or(0, version);
        match self.objects.get(name) {
            Some(seen) if version(seen) >= floor => Some(seen.clone()),
            None if self.version >= floor => None,
            _ => known.cloned(),
        }
    }
}

/// The write that a state of an object comes from: of one kind, later ones have greater numbers.
pub fn version<K: Object>(object: &K) -> u64 {
    parsed(object.meta().resource_version.as_deref())
}

fn parsed(version: Option<&str>) -> u64 {
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

async fn list<K: Object>(
    api: &Api<K>,
    label: Option<&'static str>,
) -> Result<(String, Seen<K>), Stop> {
    let params = match label {
        Some(label) => ListParams::default().labels(label),
        None => ListParams::default(),
    };
    let list = retried(|| api.list(&params)).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let objects = list
        .items
        .into_iter()
        .map(|object| (object.name_any(), object));
    let seen = Seen {
        objects: objects.collect(),
        version: parsed(Some(&version)),
    };
    Ok((version, seen))
}

/// Keeps the view up to date for as long as anybody holds its other end.
async fn follow<K: Object>(
    api: Api<K>,
    label: Option<&'static str>,
    mut from: String,
    seen: watch::Sender<Seen<K>>,
) {
    let params = match label {
        Some(label) => WatchParams::default().labels(label),
        None => WatchParams::default(),
    };
    loop {
        let is_lost = match retried(|| api.watch(&params, &from)).await {
            Ok(events) => {
                pin_mut!(events);
                take(events, &mut from, &seen).await
            }
            Err(error) => {
                tracing::warn!(%error, "a watch was refused; the objects are listed anew");
                true
            }
        };
        if is_lost {
            from = list_at_last(&api, label, &seen).await;
        }
    }
}

/// Lists until that succeeds; those who wait meanwhile have an end of their own.
async fn list_at_last<K: Object>(
    api: &Api<K>,
    label: Option<&'static str>,
    seen: &watch::Sender<Seen<K>>,
) -> String {
    loop {
        match list(api, label).await {
            Ok((version, listed)) => {
                seen.send_replace(listed);
                return version;
            }
            Err(why) => tracing::warn!(%why, "objects that are waited for cannot be listed"),
        }
        tokio::time::sleep(LIST_AGAIN).await;
    }
}

/// Takes events until the watch ends; whether its history is lost.
async fn take<K: Object>(
    mut events: impl Stream<Item = Result<WatchEvent<K>, kube::Error>> + Unpin,
    from: &mut String,
    seen: &watch::Sender<Seen<K>>,
) -> bool {
    while let Some(event) = events.next().await {
        let (object, exists) = match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => (object, true),
            Ok(WatchEvent::Deleted(object)) => (object, false),
            Ok(WatchEvent::Bookmark(bookmark)) => {
                *from = bookmark.metadata.resource_version;
                seen.send_modify(|seen| seen.version = parsed(Some(from)).max(seen.version));
                continue;
            }
            Ok(WatchEvent::Error(status)) => return status.code == 410,
            Err(_) => return false,
        };
        if let Some(version) = object.resource_version() {
            *from = version;
        }
        seen.send_modify(|seen| {
            seen.version = version(&object).max(seen.version);
            if exists {
                seen.objects.insert(object.name_any(), object);
            } else {
                seen.objects.remove(&object.name_any());
            }
        });
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(version: &str) -> PersistentVolumeClaim {
        let metadata = json!({"name": "data", "uid": "u", "resourceVersion": version});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn seen(claims: &[PersistentVolumeClaim], version: u64) -> Seen<PersistentVolumeClaim> {
        let objects = claims
            .iter()
            .map(|claim| ("data".to_string(), claim.clone()));
        Seen {
            objects: objects.collect(),
            version,
        }
    }

    #[test]
    fn nothing_older_than_what_is_known_is_seen() {
        let table = [
            (seen(&[claim("9")], 9), Some("7"), Some("9")),
            (seen(&[claim("5")], 6), Some("7"), Some("7")),
            // Not made yet, as far as it is seen; and made and gone again.
            (seen(&[], 6), Some("7"), Some("7")),
            (seen(&[], 8), Some("7"), None),
            (seen(&[], 0), None, None),
            (seen(&[claim("5")], 6), None, Some("5")),
        ];
        for (seen, known, expected) in table {
            let state = seen.after("data", known.map(claim).as_ref());
            let version = state.and_then(|claim| claim.resource_version());
            assert_eq!(version.as_deref(), expected);
        }
    }

    #[tokio::test]
    async fn events_are_taken_until_the_history_is_lost() {
        let (sender, receiver) = watch::channel(seen(&[], 1));
        let mut from = String::from("1");
        let gone: WatchEvent<PersistentVolumeClaim> = serde_json::from_value(json!({"type": "ERROR",
            "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}}))
        .unwrap();
        let events = [
            Ok(WatchEvent::Added(claim("3"))),
            Ok(WatchEvent::Modified(claim("4"))),
            Ok(gone),
        ];
        assert!(take(stream::iter(events), &mut from, &sender).await);
        assert_eq!((from.as_str(), receiver.borrow().version), ("4", 4));
        let events = [Ok(WatchEvent::Deleted(claim("6")))];
        assert!(!take(stream::iter(events), &mut from, &sender).await);
        assert_eq!((from.as_str(), receiver.borrow().version), ("6", 6));
        assert!(receiver.borrow().objects.is_empty());
    }
}
