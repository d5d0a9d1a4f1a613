//! Hearing a mover's log while it carries out an order, and what is done about its pod meanwhile.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use pvmigrate_record::names;
use pvmigrate_record::order::{Order, PassReport, Report};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::log::Log;
use super::{SILENCE, Taken, is_last, last_order};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::SAY_EVERY;

/// How long an order may go without a sign that it was taken before the pod is touched again: for
/// the first time, and at most. The kubelet shows an annotation after 0.1 to 0.8 s. On a busy node
/// orders were seen to come more than half a minute late, as if a change had been missed until the
/// kubelet's next round of all pods (<https://github.com/kubernetes/kubernetes/issues/59813> tells
/// of such a race).
const NUDGE_AFTER: Duration = Duration::from_secs(1);
const NUDGE_AT_MOST: Duration = Duration::from_secs(8);
/// How long after a line nothing more was in a log when it was opened.
const ALL_IS_SAID: Duration = Duration::from_millis(30);

/// What was heard of one order so far, over several connections.
pub struct Listener<'a> {
    pub run: &'a Run,
    pub pods: &'a Api<Pod>,
    pub name: &'a str,
    pub order: &'a Order,
    /// Whether the mover has said that it carries the order out.
    pub taken: bool,
    /// How long that may take from now on.
    patience: Duration,
    /// The highest number of a pass that was heard: a log that is read again begins anew.
    passes: u32,
    heard: Instant,
    said: Instant,
}

impl<'a> Listener<'a> {
    pub fn new(run: &'a Run, pods: &'a Api<Pod>, name: &'a str, order: &'a Order) -> Self {
        Self {
            run,
            pods,
            name,
            order,
            taken: false,
            patience: NUDGE_AFTER,
            passes: 0,
            heard: Instant::now(),
            said: Instant::now(),
        }
    }

    /// The same for the order that a mover was made with, which it finds when it starts.
    pub fn of_the_first(run: &'a Run, pods: &'a Api<Pod>, name: &'a str, order: &'a Order) -> Self {
        Self {
            patience: NUDGE_AT_MOST,
            ..Self::new(run, pods, name, order)
        }
    }

    /// For how long the mover has said nothing.
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Hears the log; none if it ended, or the mover is silent, before the order was done.
    pub async fn listen(
        &mut self,
        log: &mut Log,
        seen: &mut impl FnMut(&PassReport),
    ) -> Result<Option<Box<PassReport>>, Stop> {
        while let Some(line) = self.next(log).await? {
            match serde_json::from_str::<Report>(&line) {
                Ok(Report::Pass(report)) if report.order.as_ref() == Some(self.order) => {
                    if report.pass > self.passes {
                        self.passes = report.pass;
                        seen(&report);
                    }
                    if is_last(&report, self.order.what) {
                        return Ok(Some(report));
                    }
                }
                Ok(Report::Progress { entries, bytes }) if self.said.elapsed() > SAY_EVERY => {
                    self.said = Instant::now();
                    tracing::info!(mover = self.name, entries, bytes, "copying");
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Hears the log until the order is taken; not if it ended before that.
    pub async fn hears_it_taken(&mut self, log: &mut Log) -> Result<Taken, Stop> {
        let mut last = None;
        let mut note = |line: &str| {
            if let Ok(Report::Pass(report)) = serde_json::from_str(line) {
                last = Some(report);
            }
        };
        while !self.taken {
            match self.next(log).await? {
                Some(line) => note(&line),
                None => return Ok(Taken::No),
            }
        }
        // It may have taken it long ago, and made passes since.
        while let Ok(Some(Ok(line))) = timeout(ALL_IS_SAID, log.next()).await {
            note(&line);
        }
        Ok(match last {
            Some(report) if !report.ok => Taken::Failed(report),
            _ => Taken::Yes,
        })
    }

    /// The next line; none if the log ended, or the mover is silent.
    async fn next(&mut self, log: &mut Log) -> Result<Option<String>, Stop> {
        loop {
            let patience = if self.taken { SILENCE } else { self.patience };
            let line = match timeout(patience, log.next()).await {
                Ok(Some(Ok(line))) => line,
                Err(_) if !self.taken && self.heard.elapsed() < SILENCE => {
                    self.nudge().await?;
                    continue;
                }
                _ => return Ok(None),
            };
            self.heard = Instant::now();
            if let Ok(Report::Taken { order }) = serde_json::from_str(&line) {
                self.taken |= order == *self.order;
            }
            return Ok(Some(line));
        }
    }

    /// Changes the mover's pod once more, so that its kubelet shows it the order.
    async fn nudge(&mut self) -> Result<(), Stop> {
        let waited = self.patience;
        self.patience = NUDGE_AT_MOST.min(self.patience * 2);
        let (api, name) = (&self.run.cluster, self.name);
        let Some(pod) = api.get(self.pods, name).await? else {
            return Ok(());
        };
        tracing::debug!(
            mover = name,
            seconds = waited.as_secs(),
            "the mover has not taken its order; changing its pod once more"
        );
        let now = jiff::Timestamp::now().to_string();
        let nudged = api.update(self.pods, pod, |pod| {
            Ok((last_order(pod).as_ref() == Some(self.order))
                .then(|| json!({"metadata": {"annotations": {names::NUDGED: now}}})))
        });
        match nudged.await {
            // It was deleted meanwhile: whoever waits for its end sees that.
            Err(stop) if api.get(self.pods, name).await?.is_some() => Err(stop),
            _ => Ok(()),
        }
    }
}
