//! When pods were Ready, as a watch told it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;

/// Follows the pods of a namespace until it is dropped. A pod counts by its name: an ordinal of a
/// StatefulSet that is made again is the same one.
pub struct Readiness {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    ready: BTreeSet<String>,
    /// Since when a pod that was Ready is not.
    away: BTreeMap<String, Instant>,
    /// How long each pod was away at most, in seconds.
    pub longest: BTreeMap<String, f64>,
    /// The fewest that were Ready at the same time, since the first moment that all were.
    pub fewest: usize,
}

impl Readiness {
    /// Of the pods with this label, of which `all` are expected to be Ready from the start.
    pub fn follow(api: Api<Pod>, label: &str, all: usize) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            fewest: all,
            ..Seen::default()
        }));
        let config = watcher::Config::default().labels(label);
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                let events = watcher(api, config).default_backoff();
                pin_mut!(events);
                let mut complete = false;
                while let Some(event) = events.next().await {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    match event {
                        Ok(watcher::Event::InitApply(pod) | watcher::Event::Apply(pod)) => {
                            seen.note(&pod.name_any(), is_ready(&pod));
                        }
                        Ok(watcher::Event::Delete(pod)) => seen.note(&pod.name_any(), false),
                        Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => {}
                    }
                    complete |= seen.ready.len() >= all;
                    if complete {
                        seen.fewest = seen.fewest.min(seen.ready.len());
                    }
                }
            }
        });
        Self { seen, task }
    }

    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn note(&mut self, name: &str, ready: bool) {
        if ready {
            self.ready.insert(name.into());
            if let Some(since) = self.away.remove(name) {
                let seconds = since.elapsed().as_secs_f64();
                let longest = self.longest.entry(name.into()).or_default();
                *longest = longest.max(seconds);
            }
        } else if self.ready.remove(name) {
            self.away.insert(name.into(), Instant::now());
        }
    }
}

/// A pod that is on its way out serves nobody, whatever its condition says.
fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
    ready.next().is_some() && pod.metadata.deletion_timestamp.is_none()
}
