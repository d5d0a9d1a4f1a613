//! Waiting for the cluster: by watches, with an end, saying what for.

use std::time::Duration;

use futures::StreamExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::Instant;

use crate::cluster::{AnyObject, Object};
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
    mut look: impl FnMut(Option<&K>) -> Seen<T>,
) -> Result<T, Stop> {
    let states = watcher::watch_object(api.clone(), name).default_backoff();
    // Boxed: it holds whole states of the object, and waits are many calls deep.
    let mut states = states.boxed();
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
    let kind = K::kind(&());
    let what = format!("{kind} {name} to be gone");
    wait_for(api, name, &what, limit, |state| match state {
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
    })
    .await
}
