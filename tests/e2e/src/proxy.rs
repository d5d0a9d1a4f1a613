//! A proxy before the API server that counts writes and can end its client at the n-th.
//!
//! ```text
//!  Job ──http──► proxy ──TLS──► API server
//!                  │ write n, armed "before": kill the Job, forward nothing
//!                  │ write n, armed "after":  forward, take the answer, kill the Job
//!                  ▼ then every connection is dropped, until armed or opened again
//!                  │ write n, held: forward it when told to, whether the Job still waits or not
//! ```

mod writes;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use writes::{Armed, Counted, Held, State, count, lock};
pub use writes::{When, Write};

/// The running proxy. It ends when this is dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of this machine. Requests reach the cluster with the identity and the
    /// headers of `config`, whoever sends them.
    pub async fn start(config: kube::Config) -> Result<Self> {
        let client = Client::try_from(config)?;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("the proxy's port")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let server = tokio::spawn(serve(listener, client, Arc::clone(&state)));
        Ok(Self {
            address,
            state,
            server,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Counts from zero again, and calls `kill` at the write of this number.
    pub fn arm(&self, number: usize, when: When, kill: impl FnOnce() + Send + 'static) {
        let armed = Some(Armed {
            number,
            when,
            kill: Box::new(kill),
        });
        *lock(&self.state) = State {
            armed,
            ..State::default()
        };
    }

    /// Counts from zero again, and keeps the write of this number until it is let go.
    pub fn hold(&self, number: usize) -> Hold {
        let (reached, came) = oneshot::channel();
        let (go, forward) = oneshot::channel();
        *lock(&self.state) = State {
            held: Some(Held {
                number,
                reached,
                forward,
            }),
            ..State::default()
        };
        Hold { came, go }
    }

    /// Counts from zero again, and lets everything pass.
    pub fn open(&self) {
        *lock(&self.state) = State::default();
    }

    /// Whether the write came that it was armed for.
    pub fn has_struck(&self) -> bool {
        lock(&self.state).closed
    }

    /// All writes since the counting began.
    pub fn writes(&self) -> Vec<Write> {
        lock(&self.state).writes.clone()
    }

    /// How many requests of any kind came since then.
    pub fn requests(&self) -> usize {
        lock(&self.state).requests
    }

    /// Writes a kubeconfig that leads here.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "proxy", "cluster": {"server": self.url()}},
            ],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        });
        std::fs::write(path, serde_json::to_vec_pretty(&config)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// A write that is kept on its way. It goes on when this is dropped.
pub struct Hold {
    came: oneshot::Receiver<Write>,
    go: oneshot::Sender<()>,
}

impl Hold {
    /// Waits until the write has come; none if the proxy was told otherwise meanwhile.
    pub async fn came(&mut self) -> Option<Write> {
        (&mut self.came).await.ok()
    }

    /// Lets the write reach the API server.
    pub fn forward(self) {
        // A client that has ended meanwhile does not keep a request from its way.
        let _ = self.go.send(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, client: Client, state: Arc<Mutex<State>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if lock(&state).closed {
            continue;
        }
        let (client, state) = (client.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let service =
                service_fn(move |request| answer(client.clone(), Arc::clone(&state), request));
            // An error here is a connection that was dropped: by the client, or by us on purpose.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// An error drops the connection without an answer.
async fn answer(
    client: Client,
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let Counted {
        number,
        armed,
        held,
    } = count(&state, &request)?;
    if let Some(Armed {
        when: When::Before,
        kill,
        ..
    }) = armed
    {
        kill();
        return Err(anyhow!("killed before write {number}"));
    }
    if number == 0 {
        return forward(&client, request).await;
    }
    // A write that was sent happens, whether its client waits for it or not.
    let written = Arc::clone(&state);
    let response = tokio::spawn(async move {
        if let Some(held) = held {
            let write = lock(&written).writes.get(number - 1).cloned();
            if let Some(write) = write {
                let _ = held.reached.send(write);
            }
            let _ = held.forward.await;
        }
        let response = forward(&client, request).await?;
        let status = response.status().as_u16();
        if let Some(write) = lock(&written).writes.get_mut(number - 1) {
            write.status = Some(status);
        }
        anyhow::Ok(response)
    })
    .await??;
    if let Some(Armed { kill, .. }) = armed {
        response.into_body().collect().await?;
        kill();
        return Err(anyhow!("killed after write {number}"));
    }
    Ok(response)
}

async fn forward(client: &Client, request: Request<Incoming>) -> Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    // They are about this connection, or of the identity that is replaced.
    for header in [
        HOST,
        CONNECTION,
        TRANSFER_ENCODING,
        CONTENT_LENGTH,
        AUTHORIZATION,
    ] {
        parts.headers.remove(header);
    }
    let mut response = client
        .send(Request::from_parts(parts, Body::from(body)))
        .await?;
    for header in [CONNECTION, TRANSFER_ENCODING] {
        response.headers_mut().remove(header);
    }
    // kube would speak HTTP/2 where it can; this side speaks HTTP/1.1.
    *response.version_mut() = hyper::Version::HTTP_11;
    Ok(response)
}
