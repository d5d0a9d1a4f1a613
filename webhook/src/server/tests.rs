use axum::routing::get;
use jiff::Timestamp;
use kube::runtime::watcher::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, version};
use tokio_rustls::{TlsConnector, rustls};

use super::*;
use crate::admission;
use crate::authority::Authority;
use crate::memory::Memory;
use crate::rotation::{Lives, Ring};
use crate::samples::{DEPLOYMENT_LABELLED, POD_GENERATED_NAME, fenced, release, volume};
use crate::tls::{self, Current};

const NAME: &str = "hook.ops.svc";
const LIVES: Lives = Lives {
    authority: Duration::from_secs(3600),
    leaf: Duration::from_secs(3600),
    settle: Duration::from_secs(600),
};

/// A server on loopback, and what its clients need.
struct Served {
    address: SocketAddr,
    authority: Authority,
    renewed: watch::Sender<Current>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    /// Of one page that takes its time.
    async fn start() -> Self {
        Self::of(Router::new().route(
            "/slow",
            get(async || {
                sleep(Duration::from_secs(4)).await;
                "at last"
            }),
        ))
        .await
    }

    async fn of(router: Router) -> Self {
        let authority = Authority::create("ca", LIVES.authority, Timestamp::now()).unwrap();
        let (renewed, current) = watch::channel(issue(&authority));
        let listener = bind(Some((Ipv4Addr::LOCALHOST, 0).into())).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let tls = tls::server_config(current).unwrap();
        let task = tokio::spawn(serve(listener, tls, router, shutdown.clone()));
        Self {
            address,
            authority,
            renewed,
            shutdown,
            task,
        }
    }

    async fn connect(
        &self,
        authority: &Authority,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, socket)
            .await
    }
}

fn issue(authority: &Authority) -> Current {
    Current::issue(
        &Ring::alone(authority.clone()),
        &LIVES,
        &[NAME.into()],
        Timestamp::now(),
    )
    .unwrap()
}

async fn get_slow(stream: &mut TlsStream<TcpStream>) -> String {
    ask(stream, "GET", "/slow", "").await
}

/// The whole answer, as it comes.
async fn ask(stream: &mut TlsStream<TcpStream>, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn tls_1_3_is_spoken_and_nothing_older() {
    let served = Served::start().await;
    let stream = served
        .connect(&served.authority, &[&version::TLS13])
        .await
        .unwrap();
    assert_eq!(
        stream.get_ref().1.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert!(
        served
            .connect(&served.authority, &[&version::TLS12])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_renewed_certificate_counts_from_the_next_connection_on() {
    let served = Served::start().await;
    let next = Authority::create("ca", LIVES.authority, Timestamp::now()).unwrap();
    assert!(served.connect(&next, &[&version::TLS13]).await.is_err());
    served.renewed.send_replace(issue(&next));
    assert!(served.connect(&next, &[&version::TLS13]).await.is_ok());
}

#[tokio::test]
async fn a_shutdown_lets_requests_finish_and_ends() {
    let served = Served::start().await;
    let mut stream = served
        .connect(&served.authority, &[&version::TLS13])
        .await
        .unwrap();
    let idle = served
        .connect(&served.authority, &[&version::TLS13])
        .await
        .unwrap();
    let start = Instant::now();
    served.shutdown.cancel();
    let answer = get_slow(&mut stream).await;
    assert!(answer.ends_with("at last"), "{answer}");
    served.task.await.unwrap();
    assert!(start.elapsed() < LAME_DUCK + DRAIN);
    drop(idle);
}

/// What an API server meets whose configuration is newer than what this replica has seen: whatever
/// it asks about, the answer is no verdict, which `failurePolicy: Fail` makes a refusal.
#[tokio::test]
async fn a_webhook_that_is_behind_answers_with_an_error_until_it_has_caught_up() {
    let claim = |generation| {
        let mut record = fenced("data", &[]);
        record.fence.generation = generation;
        volume("pv-1", Some(&record.to_json()))
    };
    let mut memory = Memory::new(release());
    for event in [Event::Init, Event::InitApply(claim(1)), Event::InitDone] {
        memory.take(event);
    }
    let (known, memory) = watch::channel(memory);
    let router = admission::router(memory, CancellationToken::new());
    let served = Served::of(router).await;
    let post = async |generation: u64, review| {
        let path = format!("/fence/{generation}");
        let authority = &served.authority;
        let mut stream = served.connect(authority, &[&version::TLS13]).await.unwrap();
        ask(&mut stream, "POST", &path, review).await
    };
    let behind = "pvmigrate: the webhook has seen the fence's generation 1, and is asked about 2";
    for review in [POD_GENERATED_NAME, DEPLOYMENT_LABELLED] {
        let answer = post(2, review).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains(behind), "{answer}");
        assert!(!answer.contains("allowed"), "{answer}");
    }
    known.send_modify(|memory| memory.take(Event::Apply(claim(2))));
    let refused = post(2, POD_GENERATED_NAME).await;
    assert!(refused.starts_with("HTTP/1.1 200 "), "{refused}");
    assert!(refused.contains("\"allowed\":false"), "{refused}");
    let allowed = post(2, DEPLOYMENT_LABELLED).await;
    assert!(allowed.contains("\"allowed\":true"), "{allowed}");
    // A configuration that is older than what was seen is answered too.
    assert_eq!(
        post(1, POD_GENERATED_NAME).await.lines().next(),
        refused.lines().next()
    );
}
