//! Transport: sockets, TLS handshakes, HTTP connections, and their end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

const PORT: u16 = 8443;
/// An API server gives a whole review 5 s.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long connections are still taken after the end was announced: the time that the news
/// needs to get from here to every node's Service routes.
const LAME_DUCK: Duration = Duration::from_secs(3);
/// How long the last requests may take.
const DRAIN: Duration = Duration::from_secs(5);

/// Listens where it was told, else on every address. A host without IPv6 has no `[::]`.
pub async fn bind(listen: Option<SocketAddr>) -> std::io::Result<TcpListener> {
    if let Some(address) = listen {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await,
    }
}

/// Serves until `shutdown`, and a little longer: see [`LAME_DUCK`] and [`DRAIN`].
pub async fn serve(
    listener: TcpListener,
    tls: ServerConfig,
    router: Router,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connections = GracefulShutdown::new();
    let end = async {
        shutdown.cancelled().await;
        sleep(LAME_DUCK).await;
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    let watcher = connections.watcher();
                    tokio::spawn(connection(socket, acceptor.clone(), router.clone(), watcher));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: some will be given back.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
    drop(listener);
    if timeout(DRAIN, connections.shutdown()).await.is_err() {
        tracing::warn!("requests were cut off at the end");
    }
}

async fn connection(socket: TcpStream, acceptor: TlsAcceptor, router: Router, watcher: Watcher) {
    let stream = match timeout(HANDSHAKE, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            // Port scans and TCP probes are no event; a CA that does not fit can be.
            tracing::debug!(%error, "a handshake failed");
            return;
        }
        Err(_) => return,
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let service = TowerToHyperService::new(router);
    let served = builder
        .serve_connection(TokioIo::new(stream), service)
        .into_owned();
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%error, "a connection broke");
    }
}

#[cfg(test)]
mod tests;
