//! The API server's side: reviews over connections that are kept.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::serving::{Announced, NAME};

/// Connections that ask at the same time.
const CONNECTIONS: usize = 16;

pub struct Client {
    address: std::net::SocketAddr,
    tls: TlsConnector,
    bodies: Vec<(String, Bytes)>,
}

/// What was asked in a time, and how long the answers took.
#[derive(Default)]
pub struct Asked {
    pub reviews: usize,
    pub per_second: u128,
    latencies: Vec<Duration>,
}

impl Asked {
    fn new(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort();
        Self {
            reviews: latencies.len(),
            per_second: latencies.len() as u128 * 1000 / took.as_millis().max(1),
            latencies,
        }
    }

    /// The time in which so many of a thousand answers came, in milliseconds.
    pub fn permille(&self, share: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let latency = self.latencies.get(last * share / 1000);
        latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}

impl Client {
    pub fn new(server: &Announced) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(
            server.certificate.as_bytes(),
        )?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/samples");
        let mut bodies = vec![];
        for file in std::fs::read_dir(folder)? {
            let file = file?;
            // Without the spaces, as an API server sends it.
            let review: Value = serde_json::from_slice(&std::fs::read(file.path())?)?;
            let name = file.file_name().to_string_lossy().into_owned();
            bodies.push((name, review.to_string().into()));
        }
        bodies.sort();
        Ok(Self {
            address: server.address,
            tls: TlsConnector::from(Arc::new(config)),
            bodies,
        })
    }

    pub fn mean_bytes(&self) -> usize {
        self.bodies
            .iter()
            .map(|(_, body)| body.len())
            .sum::<usize>()
            / self.bodies.len()
    }

    /// Asks about each review once. How many there are, and how many are refused.
    pub async fn try_each(&self) -> Result<(usize, usize)> {
        let mut connection = self.connect().await?;
        let mut refused = 0;
        for number in 0..self.bodies.len() {
            let answer: Value = serde_json::from_slice(&self.ask(&mut connection, number).await?)?;
            let allowed = answer["response"]["allowed"].as_bool();
            let name = &self.bodies[number].0;
            refused += usize::from(!allowed.with_context(|| format!("{name}: {answer}"))?);
        }
        Ok((self.bodies.len(), refused))
    }

    /// Each connection asks again as soon as it is answered.
    pub async fn full_speed(&self, length: Duration) -> Result<Asked> {
        let mut connections = self.connections().await?;
        let start = Instant::now();
        let loops = connections
            .iter_mut()
            .enumerate()
            .map(async |(first, connection)| {
                let mut latencies = vec![];
                let mut number = first;
                while start.elapsed() < length {
                    let asked = Instant::now();
                    self.ask(connection, number % self.bodies.len()).await?;
                    latencies.push(asked.elapsed());
                    number += 1;
                }
                anyhow::Ok(latencies)
            });
        let latencies = try_join_all(loops).await?.concat();
        Ok(Asked::new(latencies, start.elapsed()))
    }

    /// A review at each moment that is due, whether or not earlier ones are answered; a latency
    /// counts from that moment.
    pub async fn at_rate(&self, rate: u32, length: Duration) -> Result<Asked> {
        let mut connections = self.connections().await?;
        let (due, waiting) = mpsc::unbounded_channel::<(usize, Instant)>();
        let waiting = Mutex::new(waiting);
        let start = Instant::now();
        // A thread, since a runtime's timer knows milliseconds only.
        let clock = std::thread::spawn(move || {
            let step = Duration::from_secs(1) / rate;
            for number in 0.. {
                let moment = start + step * number;
                if moment - start >= length {
                    return;
                }
                std::thread::sleep(moment.saturating_duration_since(Instant::now()));
                if due.send((number as usize, moment)).is_err() {
                    return;
                }
            }
        });
        let loops = connections.iter_mut().map(async |connection| {
            let mut latencies = vec![];
            loop {
                let next = waiting.lock().await.recv().await;
                let Some((number, moment)) = next else {
                    return anyhow::Ok(latencies);
                };
                self.ask(connection, number % self.bodies.len()).await?;
                latencies.push(moment.elapsed());
            }
        });
        let latencies = try_join_all(loops).await?.concat();
        let took = start.elapsed();
        clock.join().expect("the clock's thread does not panic");
        Ok(Asked::new(latencies, took))
    }

    async fn connections(&self) -> Result<Vec<SendRequest<Full<Bytes>>>> {
        try_join_all((0..CONNECTIONS).map(|_| self.connect())).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let stream = self
            .tls
            .connect(ServerName::try_from(NAME)?, socket)
            .await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn ask(&self, to: &mut SendRequest<Full<Bytes>>, number: usize) -> Result<Bytes> {
        let request = Request::post("/fence/1?timeout=5s")
            .header("host", NAME)
            .header("content-type", "application/json")
            .body(Full::new(self.bodies[number].1.clone()))?;
        let response = to.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        ensure!(
            status == 200,
            "{}: {status}: {body:?}",
            self.bodies[number].0
        );
        Ok(body)
    }
}
