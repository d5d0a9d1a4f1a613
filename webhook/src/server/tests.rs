use axum::routing::get;
use jiff::Timestamp;
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
use crate::authority::Authority;
use crate::tls::{self, Current};

const NAME: &str = "hook.ops.svc";

/// A server of one page on loopback, and what its clients need.
struct Served {
    address: SocketAddr,
    authority: Authority,
    renewed: watch::Sender<Current>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let authority = Authority::create("ca", Timestamp::now()).unwrap();
        let (renewed, current) = watch::channel(issue(&authority));
        let listener = bind(Some((Ipv4Addr::LOCALHOST, 0).into())).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let router = Router::new().route(
            "/slow",
            get(async || {
                sleep(Duration::from_secs(4)).await;
                "at last"
            }),
        );
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
    Current::issue(authority, &[NAME.into()], Timestamp::now()).unwrap()
}

async fn get_slow(stream: &mut TlsStream<TcpStream>) -> String {
    let request = format!("GET /slow HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n");
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
    let next = Authority::create("ca", Timestamp::now()).unwrap();
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
