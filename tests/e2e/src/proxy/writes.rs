//! Which requests are writes, and which of them is the one that was chosen.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow};
use hyper::{Method, Request, Uri};
use tokio::sync::oneshot;

/// A request that changes something. One that is refused and tried again is one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The first is 1.
    pub number: usize,
    pub method: String,
    /// With the query.
    pub path: String,
    /// What the API server answered; `None` if it was never asked, or did not answer yet.
    pub status: Option<u16>,
}

impl std::fmt::Display for Write {
    /// Its number, what it does, and to what: the last two parts of the path.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        let kind_and_name = path.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        let object = &path[kind_and_name..];
        write!(f, "write {} ({} {object})", self.number, self.method)
    }
}

/// When the client dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The API server never sees the write.
    Before,
    /// The write has happened, and the client never learns it.
    After,
}

#[derive(Default)]
pub(super) struct State {
    /// Of every kind; a watch is one, however long it stays.
    pub requests: usize,
    pub writes: Vec<Write>,
    pub armed: Option<Armed>,
    pub held: Option<Held>,
    pub closed: bool,
}

pub(super) struct Armed {
    pub number: usize,
    pub when: When,
    pub kill: Box<dyn FnOnce() + Send>,
}

pub(super) struct Held {
    pub number: usize,
    pub reached: oneshot::Sender<Write>,
    pub forward: oneshot::Receiver<()>,
}

/// A request that came through: the number of its write, or 0 if it changes nothing, and what is
/// to happen at it.
pub(super) struct Counted {
    pub number: usize,
    pub armed: Option<Armed>,
    pub held: Option<Held>,
}

/// Counts a request; an error if nothing may come through any more.
pub(super) fn count<B>(state: &Mutex<State>, request: &Request<B>) -> Result<Counted> {
    let mut state = lock(state);
    if state.closed {
        return Err(anyhow!("closed"));
    }
    state.requests += 1;
    if !is_write(request.method(), request.uri()) {
        return Ok(Counted {
            number: 0,
            armed: None,
            held: None,
        });
    }
    let again = state.writes.last_mut().filter(|last| {
        let refused = last.status.is_some_and(|status| status >= 400);
        refused
            && last.method == request.method().as_str()
            && last.path == request.uri().to_string()
    });
    if let Some(write) = again {
        // How often it is tried is a matter of time; every try is the same write.
        write.status = None;
        return Ok(Counted {
            number: write.number,
            armed: None,
            held: None,
        });
    }
    let number = state.writes.len() + 1;
    state.writes.push(Write {
        number,
        method: request.method().to_string(),
        path: request.uri().to_string(),
        status: None,
    });
    let armed = state.armed.take_if(|armed| armed.number == number);
    let held = state.held.take_if(|held| held.number == number);
    state.closed = armed.is_some();
    Ok(Counted {
        number,
        armed,
        held,
    })
}

/// Whether a request changes anything that a Job could stumble over later: not dry runs, not
/// questions about rights, not the renewal of a Lease, which comes by the clock.
fn is_write(method: &Method, uri: &Uri) -> bool {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
    let dry = uri
        .query()
        .is_some_and(|query| query.split('&').any(|part| part == "dryRun=All"));
    let path = uri.path();
    let question = path.starts_with("/apis/authorization.k8s.io/")
        || path.starts_with("/apis/authentication.k8s.io/");
    changes && !dry && !question && !path.contains("/leases/")
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_is_refused_and_tried_again_is_one_write() {
        let state = Mutex::new(State::default());
        let request = |path: &str| Request::post(path).body(()).unwrap();
        let number = |path| count(&state, &request(path)).unwrap().number;
        assert_eq!(number("/api/v1/namespaces/n/pods"), 1);
        assert_eq!(number("/api/v1/namespaces/n/pods"), 2);
        lock(&state).writes[1].status = Some(403);
        assert_eq!(number("/api/v1/namespaces/n/pods"), 2);
        lock(&state).writes[1].status = Some(403);
        assert_eq!(number("/api/v1/namespaces/n/configmaps"), 3);
    }

    #[test]
    fn what_changes_nothing_is_not_counted() {
        for (method, path, counts) in [
            (Method::POST, "/api/v1/namespaces/n/pods", true),
            (
                Method::PATCH,
                "/api/v1/persistentvolumes/v?fieldManager=pvmigrate",
                true,
            ),
            (Method::DELETE, "/api/v1/namespaces/n/pods/p", true),
            (Method::GET, "/api/v1/namespaces/n/pods?watch=true", false),
            (
                Method::POST,
                "/api/v1/namespaces/n/pods?fieldManager=f&dryRun=All",
                false,
            ),
            (
                Method::PUT,
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/l",
                false,
            ),
            (
                Method::POST,
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                false,
            ),
        ] {
            assert_eq!(
                is_write(&method, &path.parse().unwrap()),
                counts,
                "{method} {path}"
            );
        }
    }
}
