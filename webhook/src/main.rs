#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Context as _;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use pvmigrate_record::names;
use pvmigrate_webhook::config::{Config, LogFormat};
use pvmigrate_webhook::memory::Memory;
use pvmigrate_webhook::secret::Store;
use pvmigrate_webhook::{admission, server, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::ring;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_env().context("the configuration is wrong")?;
    log(&config).context("the log filter is wrong")?;
    let provider = ring::default_provider().install_default();
    anyhow::ensure!(provider.is_ok(), "there are two TLS providers");
    let shutdown = on_sigterm()?;

    let client = Client::try_default()
        .await
        .context("there is no cluster to talk to")?;
    let (known, memory) = watch::channel(Memory::new(config.release()));
    let volumes = watcher(
        Api::<PersistentVolume>::all(client.clone()),
        watcher::Config::default().labels(names::RUN),
    );
    tokio::spawn(follow(volumes.default_backoff(), known));

    let names = config.dns_names();
    let (listen, lives) = (config.listen, config.lives());
    let store = Store::new(client, config);
    let ring = tokio::select! {
        ring = store.load_or_create() => ring?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let leaf = tls::Current::issue(&ring, &lives, &names, Timestamp::now())?;
    let (renewed, current) = watch::channel(leaf);
    tokio::spawn(async move { tls::keep(store, ring, lives, &names, renewed).await });

    let listener = server::bind(listen)
        .await
        .context("the port cannot be listened on")?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let router = admission::router(memory, shutdown.clone());
    server::serve(listener, tls::server_config(current)?, router, shutdown).await;
    Ok(())
}

/// Takes in the watch. It never ends: what fails is tried again, and until then the last known
/// stands.
async fn follow(
    volumes: impl Stream<Item = watcher::Result<watcher::Event<PersistentVolume>>>,
    known: watch::Sender<Memory>,
) {
    let mut volumes = std::pin::pin!(volumes);
    while let Some(event) = volumes.next().await {
        match event {
            Ok(event) => {
                let synced = matches!(event, watcher::Event::InitDone);
                known.send_modify(|memory| memory.take(event));
                if synced {
                    tracing::info!("the records are read");
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the records cannot be watched");
            }
        }
    }
}

fn log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(config.log_filter())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Cancelled when the pod shall end. As process 1 a program has no default for the signal.
fn on_sigterm() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut term, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("shutting down");
        token.cancel();
    });
    Ok(shutdown)
}
