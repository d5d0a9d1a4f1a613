//! The pods of a namespace, seen without a gap.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Pods, Wanted, moved};
use crate::cluster::{Cluster, retried};
use crate::stop::Stop;

/// A running watch. It ends when it is dropped.
pub struct PodWatch {
    state: watch::Receiver<Pods>,
    wanted: Wanted,
    /// UIDs of what had been seen when the fence was proved.
    known: OnceLock<BTreeSet<String>>,
    task: JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    /// Lists, then watches from exactly there.
    pub async fn start(cluster: &Cluster, namespace: &str, wanted: Wanted) -> Result<Self, Stop> {
        let api: Api<Pod> = cluster.namespaced(namespace);
        let everything = ListParams::default();
        let list = retried(|| api.list(&everything)).await?;
        let mut pods = Pods::default();
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        for pod in list.items {
            pods.take(pod, false, &wanted);
        }
        let (sender, state) = watch::channel(pods);
        let task = tokio::spawn(follow(api, wanted.clone(), version, sender));
        Ok(Self {
            state,
            wanted,
            known: OnceLock::new(),
            task,
        })
    }

    /// The fence is proved: whatever is seen from here on came in late.
    pub fn mark_known(&self) -> Pods {
        let pods = self.now();
        self.known
            .get_or_init(|| pods.seen.keys().cloned().collect());
        pods
    }

    /// Why a write to a claim may have been missed since the fence was proved; none if not.
    pub fn late(&self, claim: &str) -> Option<String> {
        let pods = self.now();
        let Some(known) = self.known.get() else {
            return Some("the pods were not watched".into());
        };
        if pods.gap {
            return Some("the watch on the pods had a gap".into());
        }
        let mut mounting = pods.seen.values().filter(|pod| pod.claims.contains(claim));
        let late = mounting.find(|pod| !known.contains(&pod.uid))?;
        Some(format!("pod {} mounted it after it was fenced", late.name))
    }

    /// Waits until a consumer cannot reach its claim for a mover's sake: it is on another node, or
    /// finds none. Says which.
    pub async fn consumer_moved(&self) -> String {
        self.shown(|pods| moved(pods, &self.wanted)).await
    }

    /// Waits for as long as it takes until what is seen shows something.
    pub async fn shown<T>(&self, look: impl Fn(&Pods) -> Option<T>) -> T {
        let mut state = self.state.clone();
        loop {
            let found = look(&state.borrow_and_update());
            if let Some(found) = found {
                return found;
            }
            if state.changed().await.is_err() {
                // The watch has ended; the step that runs finds out why.
                return std::future::pending().await;
            }
        }
    }

    /// What the API server has now, past this watch: a pod that mounts a claim of the group, if
    /// there is one.
    pub async fn fresh_list(
        &self,
        cluster: &Cluster,
        namespace: &str,
    ) -> Result<Option<String>, Stop> {
        let mut pods = Pods::default();
        for pod in cluster.list(&cluster.namespaced(namespace)).await? {
            pods.take(pod, false, &self.wanted);
        }
        Ok(pods.seen.into_values().next().map(|pod| pod.name))
    }

    /// The last seen state of a mover that exists.
    pub fn mover(&self, name: &str) -> Option<Pod> {
        let pods = self.state.borrow();
        let mover = pods.movers.get(name).filter(|mover| !mover.deleted)?;
        Some(mover.pod.clone())
    }

    pub fn now(&self) -> Pods {
        self.state.borrow().clone()
    }

    /// Waits until what is seen satisfies `look`, which says what is missing as long as not.
    pub async fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&Pods) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let mut state = self.state.clone();
        let started = tokio::time::Instant::now();
        loop {
            let missing = match look(&state.borrow_and_update()) {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            let Some(left) = limit.checked_sub(started.elapsed()) else {
                return Err(Stop::Refused(format!(
                    "waited {:.0} s for {what}, in vain: {missing}",
                    limit.as_secs_f64()
                )));
            };
            let pause = left.min(Duration::from_secs(10));
            match tokio::time::timeout(pause, state.changed()).await {
                Ok(Ok(())) => {}
                // The watch has ended, and shows no more.
                Ok(Err(_)) => tokio::time::sleep(pause).await,
                Err(_) => tracing::info!(waiting_for = what, %missing, "still waiting"),
            }
        }
    }
}

/// Keeps the state up to date for as long as anybody holds its other end.
async fn follow(api: Api<Pod>, wanted: Wanted, mut version: String, state: watch::Sender<Pods>) {
    loop {
        let params = WatchParams::default();
        let Ok(events) = retried(|| api.watch(&params, &version)).await else {
            state.send_modify(|pods| pods.gap = true);
            return;
        };
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                    version = pod.resource_version().unwrap_or(version);
                    state.send_modify(|pods| pods.take(pod, false, &wanted));
                }
                Ok(WatchEvent::Deleted(pod)) => {
                    version = pod.resource_version().unwrap_or(version);
                    state.send_modify(|pods| pods.take(pod, true, &wanted));
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version = bookmark.metadata.resource_version,
                // The history is gone: pods may have come and gone unseen.
                Ok(WatchEvent::Error(status)) if status.code == 410 => {
                    state.send_modify(|pods| pods.gap = true);
                    return;
                }
                Ok(WatchEvent::Error(_)) | Err(_) => break,
            }
        }
    }
}
