//! The certificate that is shown to each connection, and its renewal.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, version};

use crate::authority::{self, Authority, Leaf};
use crate::rotation::{Lives, Ring};
use crate::secret::Store;

/// How long the Secret is waited for: who issues, and until when, is known without it.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The certificate in force.
#[derive(Clone)]
pub struct Current {
    key: Arc<CertifiedKey>,
    issuer: Authority,
    renew_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Authority(#[from] authority::Error),
    #[error("the certificate cannot be used")]
    Rustls(#[from] rustls::Error),
}

impl Current {
    /// A certificate for these names, by the CA whose turn it is.
    pub fn issue(
        ring: &Ring,
        lives: &Lives,
        names: &[String],
        now: Timestamp,
    ) -> Result<Self, Error> {
        let issuer = ring.issuer(lives, now).clone();
        let Leaf {
            certificate,
            key,
            renew_at,
        } = issuer.issue(names, lives.leaf, now)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = ring::sign::any_supported_type(&key)?;
        Ok(Self {
            key: Arc::new(CertifiedKey::new(vec![certificate], key)),
            issuer,
            renew_at,
        })
    }

    /// Whether another one has to take its place.
    fn is_due(&self, ring: &Ring, lives: &Lives, now: Timestamp) -> bool {
        self.renew_at <= now || self.issuer != *ring.issuer(lives, now)
    }
}

/// The server's side of TLS 1.3: the API server speaks it since Kubernetes is written in a Go
/// that does. No session is resumed, so a new certificate counts from the next connection on.
pub fn server_config(current: watch::Receiver<Current>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(current)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Keeps the Secret and the certificate as they should be, for ever. What fails is tried again:
/// the certificate in force has a third of its life left then.
pub async fn keep(
    store: Store,
    mut ring: Ring,
    lives: Lives,
    names: &[String],
    current: watch::Sender<Current>,
) {
    loop {
        sleep(lives.look_every()).await;
        let now = Timestamp::now();
        match timeout(ANSWER_LIMIT, store.keep(&ring, now)).await {
            Ok(Ok(stored)) => ring = stored,
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the CA cannot be kept");
            }
            Err(_) => tracing::error!("the CA cannot be kept: the API server does not answer"),
        }
        if !current.borrow().is_due(&ring, &lives, now) {
            continue;
        }
        match Current::issue(&ring, &lives, names, now) {
            Ok(renewed) => {
                tracing::info!(renew_at = %renewed.renew_at, "the certificate was renewed");
                current.send_replace(renewed);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the certificate cannot be renewed");
            }
        }
    }
}

struct Resolver(watch::Receiver<Current>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.borrow().key.clone())
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
mod tests;
