//! The certificate that is shown to each connection, and its renewal.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConfig,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, version};

use crate::authority::{self, Authority, Leaf};
use crate::secret::Store;

/// How often the Secret is looked at. By the wall clock, not by a timer of days: that one would
/// stand still while its machine is suspended.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// The certificate in force.
#[derive(Clone)]
pub struct Current {
    key: Arc<CertifiedKey>,
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
    pub fn issue(authority: &Authority, names: &[String], now: Timestamp) -> Result<Self, Error> {
        let Leaf {
            certificate,
            key,
            renew_at,
        } = authority.issue(names, now)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let key = ring::sign::any_supported_type(&key)?;
        Ok(Self {
            key: Arc::new(CertifiedKey::new(vec![certificate], key)),
            renew_at,
        })
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
/// the certificate in force has ten more days then.
pub async fn keep(
    store: Store,
    mut authority: Authority,
    names: &[String],
    current: watch::Sender<Current>,
) {
    loop {
        sleep(LOOK_EVERY).await;
        let stored = match store.keep(&authority).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the CA cannot be kept"
                );
                authority.clone()
            }
        };
        let now = Timestamp::now();
        let due = current.borrow().renew_at <= now;
        if stored == authority && !due {
            continue;
        }
        match Current::issue(&stored, names, now) {
            Ok(renewed) => {
                tracing::info!(renew_at = %renewed.renew_at, "the certificate was renewed");
                authority = stored;
                current.send_replace(renewed);
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the certificate cannot be renewed"
                );
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
