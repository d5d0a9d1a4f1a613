use std::sync::{Arc, Mutex};

use axum::http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// An API server with one Deployment and a place for one Secret.
#[derive(Default)]
struct Cluster {
    secret: Option<Value>,
    /// Another replica's Secret, which is there when this one wants to create its own.
    rival: Option<Value>,
    /// How many reads it takes until the Secret is collected.
    collected_after: Option<u32>,
    creates: u32,
}

type Shared = Arc<Mutex<Cluster>>;

impl Cluster {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
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
            self.secret = Some(serde_json::from_slice(body).unwrap());
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
    let config = serde_json::from_value(json!({
        "release": "pvmigrate", "namespace": "ops", "service": "hook", "ca_secret": "ca",
        "owner": "hook", "log": "info",
    }));
    (Store::new(client, config.unwrap()), shared)
}

/// A Secret with a good CA, and an owner of that UID.
fn secret(owner: Option<&str>) -> (Value, Authority) {
    let authority = Authority::create("ca", Timestamp::now()).unwrap();
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
    assert_eq!(store.load_or_create().await.unwrap(), first);
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
    assert_ne!(store.load_or_create().await.unwrap(), old);
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
    assert_eq!(store.load_or_create().await.unwrap(), authority);
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
async fn a_ca_that_somebody_deleted_is_put_back() {
    let (store, cluster) = store(Cluster::default());
    let held = store.load_or_create().await.unwrap();
    cluster.lock().unwrap().secret = None;
    assert_eq!(store.keep(&held).await.unwrap(), held);
    assert_eq!(store.load_or_create().await.unwrap(), held);
}

#[tokio::test]
async fn a_ca_that_somebody_exchanged_is_taken_over() {
    let (store, cluster) = store(Cluster::default());
    let held = store.load_or_create().await.unwrap();
    let (other, authority) = secret(None);
    cluster.lock().unwrap().secret = Some(other);
    assert_eq!(store.keep(&held).await.unwrap(), authority);
}
