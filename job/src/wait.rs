//! Waiting for the cluster: by watches, with an end, saying what for.

use std::fmt::Display;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::Instant;

use crate::cluster::{AnyObject, Object, View};
use crate::stop::Stop;

/// How often a wait that goes on says so.
pub const SAY_EVERY: Duration = Duration::from_secs(10);

/// What a state means for a wait.
pub enum Seen<T> {
    Reached(T),
    /// Not yet; the text says what is missing.
    NotYet(String),
    /// It will never come; the text says why.
    Never(String),
}

/// Waits until an object is as wanted. `look` sees every state of it, `None` while it does not
/// exist.
pub async fn wait_for<K: AnyObject, T>(
    api: &Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    look: impl FnMut(Option<&K>) -> Seen<T>,
) -> Result<T, Stop> {
    let states = watcher::watch_object(api.clone(), name).default_backoff();
    wait_on(states.boxed(), what, limit, look).await
}

/// The same by a view of many objects, from a state that is `known`. Of states that follow close on
/// each other the last is seen.
pub async fn wait_seen<K: Object, T>(
    view: &View<K>,
    (name, known): (&str, Option<K>),
    what: &str,
    limit: Duration,
    look: impl FnMut(Option<&K>) -> Seen<T>,
) -> Result<T, Stop> {
    wait_on(view.states(name, known).boxed(), what, limit, look).await
}

/// The states are boxed: they hold whole objects, and waits are many calls deep.
async fn wait_on<K, E: Display, T>(
    mut states: BoxStream<'_, Result<Option<K>, E>>,
    what: &str,
    limit: Duration,
    mut look: impl FnMut(Option<&K>) -> Seen<T>,
) -> Result<T, Stop> {
    let started = Instant::now();
    let mut missing = String::from("nothing was seen yet");
    loop {
        let Some(left) = limit.checked_sub(started.elapsed()) else {
            return Err(Stop::Refused(format!(
                "waited {} s for {what}, in vain: {missing}",
                limit.as_secs()
            )));
        };
        match tokio::time::timeout(left.min(SAY_EVERY), states.next()).await {
            Ok(Some(Ok(state))) => match look(state.as_ref()) {
                Seen::Reached(value) => return Ok(value),
                Seen::Never(why) => return Err(Stop::Refused(why)),
                Seen::NotYet(what_is_missing) => missing = what_is_missing,
            },
            Ok(Some(Err(error))) => {
                tracing::warn!(%error, "the watch was interrupted; it is taken up again");
            }
            Ok(None) => return Err(Stop::Api(format!("the watch for {what} ended"))),
            Err(_) => {
                tracing::info!(waiting_for = what, %missing, seconds = started.elapsed().as_secs(), "still waiting");
            }
        }
    }
}

/// Waits until this object, by its UID, is gone.
pub async fn wait_gone<K: Object>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    limit: Duration,
) -> Result<(), Stop> {
    wait_for(api, name, &to_be_gone::<K>(name), limit, |state| {
        is_gone(state, uid)
    })
    .await
}

/// The same by a view: that this object, in a state that is known, is gone.
pub async fn wait_seen_gone<K: Object>(
    view: &View<K>,
    known: K,
    limit: Duration,
) -> Result<(), Stop> {
    let (name, uid) = (known.name_any(), known.uid().unwrap_or_default());
    let what = to_be_gone::<K>(&name);
    wait_seen(view, (&name, Some(known)), &what, limit, |state| {
        is_gone(state, &uid)
    })
    .await
}

fn to_be_gone<K: Object>(name: &str) -> String {
    format!("{} {name} to be gone", K::kind(&()))
}

fn is_gone<K: Object>(state: Option<&K>, uid: &str) -> Seen<()> {
    match state {
        Some(object) if object.meta().uid.as_deref() == Some(uid) => {
            let finalizers = object.meta().finalizers.clone().unwrap_or_default();
            if object.meta().deletion_timestamp.is_none() {
                Seen::NotYet("it is not being deleted".into())
            } else if finalizers.is_empty() {
                Seen::NotYet("it is Terminating".into())
            } else {
                Seen::NotYet(format!(
                    "it is Terminating, with finalizers {}",
                    finalizers.join(", ")
                ))
            }
        }
        _ => Seen::Reached(()),
    }
}
