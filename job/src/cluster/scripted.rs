//! An API server for tests: objects by their paths, merged with the patches that are sent.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::{Cluster, Gate};

/// What it holds, and the paths of the writes that it took.
#[derive(Clone, Default)]
pub struct Scripted {
    pub objects: Arc<Mutex<BTreeMap<String, Value>>>,
    pub writes: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    pub fn with(objects: &[(&str, Value)]) -> Self {
        let scripted = Self::default();
        for (path, object) in objects {
            scripted.put(path, object.clone());
        }
        scripted
    }

    pub fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.into(), object);
    }

    pub fn at(&self, path: &str) -> Value {
        self.objects.lock().unwrap()[path].clone()
    }

    pub fn cluster(&self) -> Cluster {
        let scripted = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let scripted = scripted.clone();
            async move { Ok::<_, Infallible>(scripted.answer(request).await) }
        });
        let url = "http://scripted.invalid".parse().unwrap();
        Cluster {
            client: Client::new(service, "default"),
            config: Arc::new(kube::Config::new(url)),
            gate: Arc::new(Gate::open()),
            views: Arc::default(),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_string();
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut objects = self.objects.lock().unwrap();
        let Some(object) = objects.get_mut(&path) else {
            return reply(404, &status(404, "NotFound"));
        };
        if method == Method::PATCH {
            let change: Value = serde_json::from_slice(&body).unwrap();
            for precondition in ["uid", "resourceVersion"] {
                let (has, asks) = (
                    &object["metadata"][precondition],
                    &change["metadata"][precondition],
                );
                if has != asks {
                    return reply(409, &status(409, "Conflict"));
                }
            }
            json_patch::merge(object, &change);
            self.writes.lock().unwrap().push(path);
        }
        reply(200, object)
    }
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason})
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let body = Body::from(body.to_string().into_bytes());
    Response::builder().status(code).body(body).unwrap()
}
