use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response, StatusCode};
use k8s_openapi::ByteString;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// An API server with one Deployment and a place for one Secret.
#[derive(Default)]
pub struct Cluster {
    pub secret: Option<Value>,
    /// Another replica's Secret, which is there when this one wants to create its own.
    rival: Option<Value>,
    /// How many reads it takes until the Secret is collected.
    collected_after: Option<u32>,
    creates: u32,
    /// How often the Secret was written, which makes its resourceVersion.
    pub writes: u64,
    /// Answers nothing but errors.
    pub down: bool,
}

pub type Shared = Arc<Mutex<Cluster>>;

const LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);
const SETTLE: Duration = Duration::from_secs(600);

impl Cluster {
    pub fn put(&mut self, mut secret: Value) {
        self.writes += 1;
        secret["metadata"]["resourceVersion"] = json!(self.writes.to_string());
        self.secret = Some(secret);
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        if self.down {
            return status(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        if path.ends_with("/deployments/hook") {
            let deployment = json!({"metadata": {"name": "hook", "uid": "now"}});
            return (StatusCode::OK, deployment);
        }
        if method == Method::POST {
            self.creates += 1;
            self.secret = self.secret.take().or(self.rival.take());
            if self.secret.is_some() {
                return status(StatusCode::CONFLICT, "AlreadyExists");
            }
            self.put(serde_json::from_slice(body).unwrap());
        }
        if let (&Method::PUT, Some(secret)) = (method, &self.secret) {
            let wanted: Value = serde_json::from_slice(body).unwrap();
            let version = |secret: &Value| secret["metadata"]["resourceVersion"].clone();
            if version(&wanted) != version(secret) {
                return status(StatusCode::CONFLICT, "Conflict");
            }
            self.put(wanted);
        }
        match self.collected_after {
            Some(0) => (self.secret, self.collected_after) = (None, None),
            Some(reads) => self.collected_after = Some(reads - 1),
            None => {}
        }
        match &self.secret {
            Some(secret) => (StatusCode::OK, secret.clone()),
            None => status(StatusCode::NOT_FOUND, "NotFound"),
        }
    }
}

fn status(code: StatusCode, reason: &str) -> (StatusCode, Value) {
    let code_number = code.as_u16();
    let body =
        json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code_number});
    (code, body)
}

fn store(cluster: Cluster) -> (Store, Shared) {
    let shared = Arc::new(Mutex::new(cluster));
    (replica(&shared, &config(&json!({}))), shared)
}

/// A webhook's configuration, with these changes.
pub fn config(changes: &Value) -> Config {
    let mut config = json!({
        "release": "pvmigrate", "namespace": "ops", "service": "hook", "ca_secret": "ca",
        "owner": "hook", "log": "info",
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

/// A store of one of several replicas in the same cluster.
pub fn replica(shared: &Shared, config: &Config) -> Store {
    let served = shared.clone();
    let client = Client::new(
        service_fn(move |request: Request<Body>| {
            let served = served.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let (code, answer) =
                    served
                        .lock()
                        .unwrap()
                        .answer(&parts.method, parts.uri.path(), &body);
                let body = Body::from(answer.to_string().into_bytes());
                Ok::<_, kube::Error>(Response::builder().status(code).body(body).unwrap())
            }
        }),
        "ops",
    );
    Store::new(client, config.clone())
}

/// A Secret with a good CA, and an owner of that UID.
fn secret(owner: Option<&str>) -> (Value, Authority) {
    secret_of(owner, Timestamp::now())
}

/// The same, with a CA that was made at that time.
fn secret_of(owner: Option<&str>, made: Timestamp) -> (Value, Authority) {
    let authority = Authority::create("ca", LIFE, made).unwrap();
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let owners = owner.map(
        |uid| json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "hook", "uid": uid}]),
    );
    let secret = json!({
        "metadata": {"name": "ca", "ownerReferences": owners},
        "data": {"ca.crt": text(&authority.certificate), "ca.key": text(&authority.key)},
    });
    (secret, authority)
}

#[tokio::test]
async fn the_first_replica_makes_the_ca_and_the_deployment_owns_it() {
    let (store, cluster) = store(Cluster::default());
    let made = store.load_or_create().await.unwrap();
    let secret = cluster.lock().unwrap().secret.clone().unwrap();
    assert_eq!(
        secret["metadata"]["ownerReferences"],
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "hook", "uid": "now"}])
    );
    assert_eq!(store.load_or_create().await.unwrap(), made);
    assert_eq!(cluster.lock().unwrap().creates, 1);
}

#[tokio::test]
async fn a_replica_that_comes_second_takes_the_first_ones_ca() {
    let (rival, first) = secret(Some("now"));
    let (store, cluster) = store(Cluster {
        rival: Some(rival),
        ..Cluster::default()
    });
    assert_eq!(store.load_or_create().await.unwrap().current, first);
    assert_eq!(cluster.lock().unwrap().creates, 1);
}

#[tokio::test(start_paused = true)]
async fn the_secret_of_an_uninstalled_release_is_waited_out() {
    let (left, old) = secret(Some("gone"));
    let (store, cluster) = store(Cluster {
        secret: Some(left),
        collected_after: Some(5),
        ..Cluster::default()
    });
    assert_ne!(store.load_or_create().await.unwrap().current, old);
    assert_eq!(cluster.lock().unwrap().creates, 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_never_collected_is_named() {
    let (left, _) = secret(Some("gone"));
    let (store, _) = store(Cluster {
        secret: Some(left),
        ..Cluster::default()
    });
    let error = store.load_or_create().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Secret ca belongs to a Deployment that is gone, and was not collected"
    );
}

#[tokio::test]
async fn somebodys_own_secret_is_taken_as_it_is() {
    let (own, authority) = secret(None);
    let (store, _) = store(Cluster {
        secret: Some(own),
        ..Cluster::default()
    });
    assert_eq!(
        store.load_or_create().await.unwrap(),
        Ring::alone(authority)
    );
}

#[tokio::test]
async fn a_secret_that_is_no_ca_is_an_error_at_once() {
    let (mut bad, _) = secret(Some("now"));
    bad["data"]["ca.key"] = json!(ByteString(b"nonsense".to_vec()));
    let (store, cluster) = store(Cluster {
        secret: Some(bad.clone()),
        ..Cluster::default()
    });
    let error = store.load_or_create().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the CA in Secret ca cannot be used: delete it, and a new one is made"
    );
    bad["data"].as_object_mut().unwrap().remove("ca.key");
    cluster.lock().unwrap().secret = Some(bad);
    let error = store.load_or_create().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Secret ca has no text under ca.key: delete it, and a new one is made"
    );
}

#[tokio::test]
async fn a_ca_that_somebody_deleted_is_put_back_and_gives_way_to_another() {
    let (store, cluster) = store(Cluster::default());
    let held = store.load_or_create().await.unwrap();
    cluster.lock().unwrap().secret = None;
    let now = Timestamp::now();
    let back = store.keep(&held, now).await.unwrap();
    assert_eq!(back.current, held.current);
    let next = back.next.clone().unwrap();
    assert_eq!(store.load_or_create().await.unwrap(), back);
    // In the middle of that, it is put back as it was.
    cluster.lock().unwrap().secret = None;
    assert_eq!(store.keep(&back, now).await.unwrap(), back);
    let done = store.keep(&back, now + SETTLE * 2 + SKEW).await.unwrap();
    assert_eq!(done, Ring::alone(next));
}

/// What times in certificates are rounded by.
const SKEW: Duration = Duration::from_secs(1);

#[tokio::test]
async fn somebodys_own_ca_is_taken_over_and_never_written() {
    let (store, cluster) = store(Cluster::default());
    let held = store.load_or_create().await.unwrap();
    let now = Timestamp::now();
    let (mut other, authority) = secret_of(None, now - LIFE.mul_f64(0.9));
    other["metadata"]["annotations"] = json!({names::ROTATE: "now"});
    cluster.lock().unwrap().secret = Some(other.clone());
    assert_eq!(store.keep(&held, now).await.unwrap().current, authority);
    assert_eq!(cluster.lock().unwrap().secret, Some(other));
    let error = store.keep(&held, now + LIFE / 5).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the CA in Secret ca cannot be used: delete it, and a new one is made"
    );
}

#[tokio::test]
async fn two_replicas_agree_on_every_step_of_a_rotation() {
    let now = Timestamp::now();
    let (old, first) = secret_of(Some("now"), now - LIFE * 2 / 3 - SKEW);
    let (one, cluster) = store(Cluster::default());
    let two = replica(&cluster, &config(&json!({})));
    cluster.lock().unwrap().put(old);
    let held = Ring::alone(first.clone());

    let (a, b) = tokio::join!(one.keep(&held, now), two.keep(&held, now));
    let (begun, b) = (a.unwrap(), b.unwrap());
    assert_eq!(begun, b);
    let next = begun.next.clone().unwrap();
    assert_eq!(begun.current, first);
    let secret = cluster.lock().unwrap().secret.clone().unwrap();
    let published: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone()).unwrap();
    assert_eq!(published.0, begun.certificates().into_bytes());
    assert_eq!(cluster.lock().unwrap().writes, 2);

    let later = now + SETTLE * 2 + SKEW;
    let (a, b) = tokio::join!(one.keep(&begun, later), two.keep(&begun, later));
    assert_eq!(a.unwrap(), Ring::alone(next.clone()));
    assert_eq!(b.unwrap(), Ring::alone(next));
    assert_eq!(cluster.lock().unwrap().writes, 3);
    let secret = cluster.lock().unwrap().secret.clone().unwrap();
    assert_eq!(
        secret["data"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["ca.crt", "ca.key"]
    );
}

#[tokio::test]
async fn a_decision_about_a_secret_that_has_changed_is_not_written() {
    let now = Timestamp::now();
    let (old, _) = secret_of(Some("now"), now - LIFE * 2 / 3 - SKEW);
    let (store, cluster) = store(Cluster::default());
    cluster.lock().unwrap().put(old);
    let stale = store.load(now).await.unwrap().unwrap();
    let first = store.load_or_create().await.unwrap();
    assert!(first.next.is_some());
    assert_eq!(store.renew(stale, now).await.unwrap(), first);
    assert_eq!(cluster.lock().unwrap().writes, 2);
}

#[tokio::test]
async fn a_rotation_is_asked_for_by_an_annotation() {
    let (store, cluster) = store(Cluster::default());
    let held = store.load_or_create().await.unwrap();
    let mut secret = cluster.lock().unwrap().secret.clone().unwrap();
    secret["metadata"]["annotations"] = json!({names::ROTATE: "monday"});
    cluster.lock().unwrap().put(secret);
    let now = Timestamp::now();
    let begun = store.keep(&held, now).await.unwrap();
    assert_eq!(begun.current, held.current);
    let next = begun.next.clone().unwrap();
    let secret = cluster.lock().unwrap().secret.clone().unwrap();
    assert_eq!(
        secret["metadata"]["annotations"],
        json!({names::ROTATE: "monday", names::ROTATED: "monday"})
    );
    let done = store.keep(&begun, now + SETTLE * 2 + SKEW).await.unwrap();
    assert_eq!((done.current, done.next), (next, None));
    let writes = cluster.lock().unwrap().writes;
    store.load_or_create().await.unwrap();
    assert_eq!(cluster.lock().unwrap().writes, writes, "once");
}

#[tokio::test]
async fn an_expired_ca_of_ours_is_replaced_and_one_that_cannot_be_written_goes_on() {
    let now = Timestamp::now();
    let (old, first) = secret_of(Some("now"), now - LIFE.mul_f64(0.9));
    let (store, cluster) = store(Cluster::default());
    cluster.lock().unwrap().put(old);
    let held = Ring::alone(first.clone());
    cluster.lock().unwrap().down = true;
    assert!(store.keep(&held, now).await.is_err());
    cluster.lock().unwrap().down = false;
    let later = now + LIFE / 5;
    let replaced = store.keep(&held, later).await.unwrap();
    assert_ne!(replaced.current, first);
    assert!(replaced.next.is_none() && replaced.current.expires > later + LIFE / 2);
}
