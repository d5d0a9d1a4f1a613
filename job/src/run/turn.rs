//! A group's place in its lane and on its nodes: it waits there until it may stop its applications.

use std::collections::BTreeSet;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::windows::{Window, Windows};
use crate::plan::stopped_by;
use crate::schedule::Turn;
use crate::stop::Stop;
use crate::wait::SAY_EVERY;

/// What the schedule says of all groups, which of them this is, and what it is told in return.
pub struct Place<'a> {
    turns: watch::Receiver<Vec<Turn>>,
    index: usize,
    windows: &'a Windows,
    /// Where its applications are stopped.
    nodes: BTreeSet<String>,
    movers_gone: mpsc::UnboundedSender<usize>,
}

impl<'a> Place<'a> {
    pub fn new(
        turns: watch::Receiver<Vec<Turn>>,
        index: usize,
        windows: &'a Windows,
        nodes: BTreeSet<String>,
        movers_gone: mpsc::UnboundedSender<usize>,
    ) -> Self {
        Self {
            turns,
            index,
            windows,
            nodes,
            movers_gone,
        }
    }

    /// Says that the group needs its movers no more.
    pub fn movers_gone(&self) {
        // Nobody listens where nothing more is to be started.
        let _ = self.movers_gone.send(self.index);
    }

    /// Waits until a group may stop its applications, for as long as it holds what this returns.
    pub async fn come(&self, group: &str) -> Result<Window, Stop> {
        self.turn(group).await?;
        self.windows.open(&self.nodes, group).await
    }

    /// Waits for the turn of a group. It ends when the pods before it have ended, each of whose
    /// waits has an end.
    async fn turn(&self, group: &str) -> Result<(), Stop> {
        let mut turns = self.turns.clone();
        let started = Instant::now();
        loop {
            let turn = turns.borrow_and_update()[self.index].clone();
            let pod = match turn {
                Turn::Now => return Ok(()),
                Turn::Never(pod) => return Err(Stop::Refused(stopped_by(&pod))),
                Turn::InAnotherJob => {
                    return Err(Stop::Api(
                        "a pod of its set that goes before it was interrupted".into(),
                    ));
                }
                Turn::After(pod) => pod,
            };
            match timeout(SAY_EVERY, turns.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Stop::Api("nobody tells whose turn it is".into())),
                Err(_) => {
                    let seconds = started.elapsed().as_secs();
                    tracing::info!(%group, after = %pod, seconds, "waiting for its turn");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_group_waits_for_the_one_before_it_and_goes_no_further_than_that_allows() {
        let after = || Turn::After("shop/db-1".into());
        let (send, turns) = watch::channel(vec![Turn::Now, after(), after(), after()]);
        let windows = Windows::new(1);
        let (gone, _) = mpsc::unbounded_channel();
        let nodes = BTreeSet::new;
        let place = |index| Place::new(turns.clone(), index, &windows, nodes(), gone.clone());
        assert!(place(0).come("g").await.is_ok());
        let (first, second, third) = (place(1), place(2), place(3));
        let all = tokio::join!(first.come("g"), second.come("g"), third.come("g"), async {
            tokio::time::sleep(SAY_EVERY * 2).await;
            let never = Turn::Never("shop/db-1".into());
            send.send_replace(vec![Turn::Now, Turn::Now, never, Turn::InAnotherJob]);
        });
        assert!(all.0.is_ok());
        let why = all.1.unwrap_err().to_string();
        assert_eq!(why, stopped_by("shop/db-1"));
        assert!(matches!(all.2, Err(Stop::Api(_))));
    }
}
