//! Downtime windows: on one node only so many groups are stopped at the same time. Where pods end
//! and start side by side they wait for the same kubelet and the same processors, and each
//! application is away for longer than it would be by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::stop::Stop;
use crate::wait::SAY_EVERY;

pub struct Windows {
    per_node: usize,
    nodes: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// The right to stop a group's applications, until it is dropped.
#[derive(Debug)]
pub struct Window {
    _permits: Vec<OwnedSemaphorePermit>,
}

impl Windows {
    pub fn new(per_node: usize) -> Self {
        Self {
            per_node,
            nodes: Mutex::default(),
        }
    }

    /// Waits until on each of these nodes a group less is stopped than may be. It ends when those
    /// before it are Ready again or taken back, each of whose waits has an end.
    ///
    /// Nodes are taken in the order of their names, so no two groups wait for each other.
    pub async fn open(&self, nodes: &BTreeSet<String>, group: &str) -> Result<Window, Stop> {
        let mut permits = Vec::new();
        for node in nodes {
            permits.push(self.permit(node, group).await?);
        }
        Ok(Window { _permits: permits })
    }

    async fn permit(&self, node: &str, group: &str) -> Result<OwnedSemaphorePermit, Stop> {
        let mut permit = Box::pin(self.semaphore(node).acquire_owned());
        let started = Instant::now();
        loop {
            match timeout(SAY_EVERY, &mut permit).await {
                Ok(Ok(permit)) => return Ok(permit),
                Ok(Err(_)) => return Err(Stop::Api("nobody says who may be stopped".into())),
                Err(_) => {
                    let seconds = started.elapsed().as_secs();
                    tracing::info!(%group, node, seconds, "waiting until what is stopped on this node runs again");
                }
            }
        }
    }

    fn semaphore(&self, node: &str) -> Arc<Semaphore> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = nodes.entry(node.to_string());
        known
            .or_insert_with(|| Arc::new(Semaphore::new(self.per_node)))
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MOMENT: Duration = Duration::from_secs(60);

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_groups_are_stopped_on_a_node_and_others_elsewhere() {
        let windows = Windows::new(2);
        let (a, b, both) = (nodes(&["a"]), nodes(&["b"]), nodes(&["a", "b"]));
        let first = windows.open(&a, "1").await.unwrap();
        let _second = windows.open(&a, "2").await.unwrap();
        assert!(timeout(MOMENT, windows.open(&a, "3")).await.is_err());
        assert!(timeout(MOMENT, windows.open(&both, "4")).await.is_err());
        let _elsewhere = windows.open(&b, "5").await.unwrap();
        drop(first);
        let _third = timeout(MOMENT, windows.open(&both, "4")).await.unwrap();
        assert!(timeout(MOMENT, windows.open(&b, "6")).await.is_err());
    }

    #[tokio::test]
    async fn a_group_that_stops_nobody_on_a_known_node_waits_for_nobody() {
        let windows = Windows::new(1);
        let _one = windows.open(&nodes(&["a"]), "1").await.unwrap();
        assert!(windows.open(&nodes(&[]), "2").await.is_ok());
    }
}
