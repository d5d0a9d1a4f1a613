//! Leaf and CA are renewed under load, by two replicas that share a Secret, and no call fails.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use k8s_openapi::ByteString;
use pvmigrate_record::names;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::secret::tests::{Cluster, Shared, config, replica};
use crate::server;

const NAME: &str = "hook.ops.svc";
const CLIENTS: usize = 8;
/// How late a configuration takes in what the Secret holds.
const DELAY: Duration = Duration::from_millis(500);
const ROTATIONS: u64 = 2;
const LIMIT: Duration = Duration::from_secs(60);

/// What all clients see.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    failures: Mutex<Vec<String>>,
    /// Every certificate that was shown.
    leaves: Mutex<Vec<Vec<u8>>>,
    over: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaf_and_ca_are_renewed_under_load_without_one_failed_call() {
    let cluster: Shared = Arc::new(Mutex::new(Cluster::default()));
    let settings = config(&json!({
        "ca_seconds": 18, "leaf_seconds": 3, "ca_settle_seconds": 3,
    }));
    let shutdown = CancellationToken::new();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        replicas.push(start(&cluster, &settings, &shutdown).await);
    }
    let first = secret(&cluster);
    // The first rotation is asked for, the second one comes with age.
    annotate(&cluster, &first);
    let (published, bundle) = watch::channel(certificates(&first));
    let seen = Arc::new(Seen::default());
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let address = replicas[number % replicas.len()];
        clients.push(tokio::spawn(call(address, bundle.clone(), seen.clone())));
    }

    // A configuration, as the Job writes it: from the Secret, and late. Once both CAs of a rotation
    // are gone from a bundle that had them, that rotation is over.
    let (started, mut finished, mut both) = (Instant::now(), 0, false);
    while finished < ROTATIONS {
        assert!(
            started.elapsed() < LIMIT,
            "{finished} rotations in {LIMIT:?}"
        );
        let now = certificates(&secret(&cluster));
        sleep(DELAY).await;
        let count = now.matches("BEGIN CERTIFICATE").count();
        finished += u64::from(both && count == 1);
        both = count == 2;
        published.send_replace(now);
    }
    // What was dropped last is missed by nobody.
    sleep(DELAY).await;
    seen.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    shutdown.cancel();
    let (calls, leaves) = (
        seen.calls.load(Ordering::Relaxed),
        seen.leaves.lock().unwrap().len(),
    );
    eprintln!("{calls} calls, {leaves} certificates, {finished} rotations");
    assert_eq!(*seen.failures.lock().unwrap(), Vec::<String>::new());
    // A busy machine makes fewer, and each of them counts.
    assert!(calls >= 200, "{calls} calls");
    assert!(leaves >= 8, "{leaves} certificates");
    assert_ne!(certificates(&secret(&cluster)), certificates(&first));
}

/// A replica on loopback, with the code that serves and renews.
async fn start(
    cluster: &Shared,
    settings: &crate::config::Config,
    shutdown: &CancellationToken,
) -> SocketAddr {
    let (store, lives) = (replica(cluster, settings), settings.lives());
    let ring = store.load_or_create().await.unwrap();
    let names = settings.dns_names();
    let leaf = Current::issue(&ring, &lives, &names, Timestamp::now()).unwrap();
    let (renewed, current) = watch::channel(leaf);
    tokio::spawn(async move { keep(store, ring, lives, &names, renewed).await });
    let listener = server::bind(Some((Ipv4Addr::LOCALHOST, 0).into()))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || "yes"));
    let tls = server_config(current).unwrap();
    tokio::spawn(server::serve(listener, tls, router, shutdown.clone()));
    address
}

/// Calls over new connections for as long as the test lasts, believing what is published.
async fn call(address: SocketAddr, bundle: watch::Receiver<String>, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::Relaxed) {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.borrow().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        match once(address, roots).await {
            Ok(leaf) => {
                let mut leaves = seen.leaves.lock().unwrap();
                if !leaves.contains(&leaf) {
                    leaves.push(leaf);
                }
            }
            Err(error) => seen.failures.lock().unwrap().push(error.to_string()),
        }
        seen.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// One call; returns the certificate that was shown.
async fn once(address: SocketAddr, roots: RootCertStore) -> io::Result<Vec<u8>> {
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect(name, socket).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(answer));
    }
    let shown = stream.get_ref().1.peer_certificates();
    Ok(shown.unwrap()[0].to_vec())
}

fn secret(cluster: &Shared) -> Value {
    cluster.lock().unwrap().secret.clone().unwrap()
}

fn annotate(cluster: &Shared, secret: &Value) {
    let mut secret = secret.clone();
    secret["metadata"]["annotations"] = json!({names::ROTATE: "please"});
    cluster.lock().unwrap().put(secret);
}

fn certificates(secret: &Value) -> String {
    let bytes: ByteString = serde_json::from_value(secret["data"]["ca.crt"].clone()).unwrap();
    String::from_utf8(bytes.0).unwrap()
}
