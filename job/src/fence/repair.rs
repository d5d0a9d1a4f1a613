//! Keeping the fence as it was made: what somebody edits or deletes is put back at once, and who
//! it was is said. What slipped in meanwhile is found by the watch on the pods, and by the proof
//! that is repeated before anything counts as Frozen.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use pvmigrate_record::record::Record;

use super::apply::{Part, editors, essence, write};
use super::ca::certificates;
use super::{Fence, key};
use crate::cluster::{Object, version};
use crate::stop::Stop;

/// Between two repairs of one object, and two tries of a watch: whoever fights for it is not to
/// keep us from everything else.
const PAUSE: Duration = Duration::from_millis(200);
/// How often it is looked whether a fence without an owner still needs to be one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Fence {
    /// Does some work, and meanwhile keeps the fence as it was made, for as long as it stands.
    pub async fn guarding<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            done = work => done,
            never = Box::pin(self.guard()) => match never {},
        }
    }

    /// Proves the fence again where something had to be put back since it was proved: between the
    /// two it may have been open. What the watches have not told yet is for the watch on the pods.
    pub async fn prove_again(&self, records: &[&Record]) -> Result<(), Stop> {
        let state = self.state.lock().await;
        let is_proved = |record: &Record| {
            let fenced = state.fenced.get(&key(record));
            fenced.is_some_and(|fenced| fenced.proved == Some(state.repairs))
        };
        let again: Vec<&Record> = records.iter().copied().filter(|r| !is_proved(r)).collect();
        drop(state);
        self.prove_closed(&again).await
    }

    /// How many repairs there have been so far: what a proof that begins now is worth.
    pub(super) async fn repairs(&self) -> u64 {
        self.state.lock().await.repairs
    }

    /// These records are proved, as of so many repairs.
    pub(super) async fn proved(&self, records: &[&Record], repairs: u64) {
        let mut state = self.state.lock().await;
        for record in records {
            if let Some(fenced) = state.fenced.get_mut(&key(record)) {
                fenced.proved = Some(repairs);
            }
        }
    }

    async fn guard(&self) -> Infallible {
        let mut stands = self.stands.subscribe();
        loop {
            // The other end is in this fence: neither wait can fail.
            let _ = stands.wait_for(|stands| *stands).await;
            tokio::select! {
                _ = stands.wait_for(|stands| !*stands) => {}
                _ = async { tokio::join!(
                    self.follow::<ServiceAccount>(),
                    self.follow::<ValidatingAdmissionPolicy>(),
                    self.follow::<ValidatingAdmissionPolicyBinding>(),
                    self.follow::<ValidatingWebhookConfiguration>(),
                    self.follow_ca(),
                    self.keep_owned(),
                ) } => {}
            }
        }
    }

    async fn follow<K: Part>(&self) -> Infallible {
        let mut events = pin!(watcher(K::api(self), named(&K::name(self))));
        loop {
            let mut seen = match next(&mut events).await {
                Event::Apply(object) | Event::InitApply(object) => Some(object),
                Event::Delete(_) | Event::InitDone => None,
                Event::Init => continue,
            };
            loop {
                match self.look(seen.take().as_ref()).await {
                    Ok(false) => break,
                    Ok(true) => {}
                    Err(why) => {
                        tracing::warn!(kind = %K::kind(&()), %why, "this part of the fence cannot be put back; trying again");
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Looks whether an object is as it was made, and puts it back if it is not: then it is
    /// true. What was seen may be older than our own last write: only the newest state counts as somebody's change.
    async fn look<K: Part>(&self, seen: Option<&K>) -> Result<bool, Stop> {
        let mut state = self.state.lock().await;
        let Some(made) = K::of(&mut state.standing) else {
            return Ok(false);
        };
        let stored = essence(&made.stored);
        let is_untouched = |object: &K| essence(object) == stored;
        match seen {
            Some(seen) if version(seen) < version(&made.stored) => return Ok(false),
            Some(seen) if is_untouched(seen) => {
                // Its status was written: the next change is decided on this state.
                made.stored = seen.clone();
                return Ok(false);
            }
            _ => {}
        }
        let api = K::api(self);
        let now = self.cluster.get(&api, &K::name(self)).await?;
        if now.as_ref().is_some_and(is_untouched) {
            return Ok(false);
        }
        made.stored = write(&self.cluster, &api, now.clone(), &made.wanted).await?;
        state.repairs += 1;
        tracing::warn!(kind = %K::kind(&()), name = %K::name(self), "the fence {}; it was put back, and will be proved again", done_by(now.as_ref()));
        Ok(true)
    }

    /// Sees to it that a fence over nothing does not stay without an owner.
    async fn keep_owned(&self) -> Infallible {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Err(why) = self.own_again().await {
                tracing::warn!(%why, "the fence could not be given its owners back; trying again");
            }
        }
    }

    /// Passes on what the webhook's CA becomes.
    async fn follow_ca(&self) -> Infallible {
        let api: Api<Secret> = self.cluster.namespaced(&self.config.release_namespace);
        let mut events = pin!(watcher(api, named(&self.config.ca_secret)));
        loop {
            if let Event::Apply(secret) | Event::InitApply(secret) = next(&mut events).await
                && let Some(ca) = certificates(secret)
                && let Err(why) = self.trust(ca).await
            {
                tracing::warn!(%why, "the webhook's new CA cannot be passed on");
            }
        }
    }

    async fn trust(&self, ca: Vec<u8>) -> Result<(), Stop> {
        let mut state = self.state.lock().await;
        if state.standing.webhook.is_none() || state.ca == ca {
            return Ok(());
        }
        let before = std::mem::replace(&mut state.ca, ca);
        let wanted = self.scope(&state).webhook();
        let put = self.put(&mut state.standing.webhook, wanted).await;
        match put {
            Ok(()) => tracing::info!("the webhook's CA has changed, and the fence with it"),
            Err(_) => state.ca = before,
        }
        put
    }
}

async fn next<K: Object>(
    events: &mut (impl futures::Stream<Item = watcher::Result<Event<K>>> + Unpin),
) -> Event<K> {
    loop {
        match events.next().await {
            Some(Ok(event)) => return event,
            Some(Err(error)) => {
                tracing::warn!(kind = %K::kind(&()), %error, "this part of the fence cannot be watched; trying again");
            }
            None => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn named(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

fn done_by<K: Object>(now: Option<&K>) -> String {
    match now.map(editors) {
        None => "was deleted by somebody".into(),
        Some(others) => match others.last() {
            Some(manager) => format!("was edited, by {manager}"),
            None => "was edited".into(),
        },
    }
}
