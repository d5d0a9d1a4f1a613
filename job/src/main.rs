//! `pvmigrate run` is the Job; `pvmigrate status` shows how far migrations are. This file wires,
//! and turns errors into exit codes; nothing else does.

#![forbid(unsafe_code)]
#![warn(clippy::large_futures)]

mod causes;
mod claim;
mod cluster;
mod config;
mod drive;
mod exit;
mod fence;
mod lease;
mod migration;
mod mover;
mod observe;
mod plan;
mod pods;
mod predecessors;
mod preflight;
mod quantity;
mod report;
mod run;
mod status;
mod steps;
mod stop;
mod wait;
mod workloads;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use k8s_openapi::api::batch::v1::Job;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::exit::Exit;
use crate::lease::Asked;
use crate::report::{Report, State};
use crate::stop::Stop;

/// How long a write in hand may take after SIGTERM.
const LAST_WRITE: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(
    version,
    about = "Moves the PersistentVolumeClaims of one StorageClass to another, in place"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Migrate, as configured by PVMIGRATE_… in the environment
    Run,
    /// List the claims that are or were migrated, and how far they are
    Status,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // A level is for this program. The client reports its own retries as errors; what comes of
    // them is said here.
    let log = std::env::var("PVMIGRATE_LOG").unwrap_or_else(|_| "info".into());
    let filter = match log.parse::<LevelFilter>() {
        Ok(level) => format!("pvmigrate={level}"),
        Err(_) => log,
    };
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false);
    let exit = match cli.verb {
        Verb::Run => {
            format.init();
            run_job().await
        }
        Verb::Status => {
            format.with_writer(std::io::stderr).init();
            status::print().await.unwrap_or_else(|error| {
                eprintln!("pvmigrate: {error:#}");
                Exit::Interrupted
            })
        }
    };
    exit.into()
}

async fn run_job() -> Exit {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("configuration: {error}");
            give_up_retries().await;
            return Exit::Config;
        }
    };
    let cluster = match Cluster::connect().await {
        Ok(cluster) => cluster,
        Err(error) => {
            tracing::error!("no API server: {error:#}");
            return Exit::Interrupted;
        }
    };
    let exit = leased(&cluster, &config)
        .await
        .unwrap_or_else(|stop| match stop {
            Stop::Refused(why) => {
                tracing::error!("{why}");
                Exit::Refused
            }
            other => {
                tracing::error!("interrupted, the next pod goes on: {other}");
                Exit::Interrupted
            }
        });
    if exit.is_final_failure() {
        give_up_retries().await;
    }
    tracing::info!(code = exit.code(), "the Job ends");
    exit
}

/// The run, while the Lease is held and nobody asks to stop.
async fn leased(cluster: &Cluster, config: &Config) -> Result<Exit, Stop> {
    if let Some(report) = Report::read(cluster, config).await?
        && report.state == State::Complete
    {
        let uncovered = run::uncovered(cluster, config, &report).await?;
        if uncovered.is_empty() {
            tracing::info!(run = %report.run, "this run is complete; nothing to do");
        } else {
            tracing::warn!(run = %report.run, "this run is complete and did not cover {}; set another runToken to move them", uncovered.join(", "));
        }
        return Ok(Exit::Done);
    }
    let (cluster_owner, owner) = run::owners(cluster, config).await?;
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|error| Stop::Api(error.to_string()))?;
    let held = tokio::select! {
        asked = lease::acquire(cluster, config, owner.clone()) => match asked? {
            Asked::Held(held) => held,
            Asked::Busy(holder) => {
                tracing::error!(%holder, "another Job of this release is at work");
                return Ok(Exit::Busy);
            }
        },
        _ = terminated.recv() => return Ok(Exit::Interrupted),
    };
    let work = tokio::spawn(run::execute(
        cluster.clone(),
        config.clone(),
        cluster_owner,
        owner,
    ));
    let abort = work.abort_handle();
    let outcome = tokio::select! {
        done = work => done.unwrap_or_else(|error| Err(Stop::Api(error.to_string()))),
        lost = held.as_ref().clone().keep() => Err(Stop::Api(lost)),
        _ = terminated.recv() => Err(Stop::Api("told to stop (SIGTERM)".into())),
    };
    if outcome.is_ok()
        && let Err(stop) = predecessors::let_go(cluster, config).await
    {
        tracing::warn!(why = %stop, "an earlier pod of this Job may stay Terminating on a lost node");
    }
    // The write in hand is finished, and no other begins.
    cluster.gate().quiesce(LAST_WRITE).await;
    abort.abort();
    held.release().await;
    outcome
}

/// A failure that another pod would only repeat ends the Job: its `backoffLimit` goes to 0.
async fn give_up_retries() {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(job), Some(namespace)) = (
        variable("PVMIGRATE_JOB"),
        variable("PVMIGRATE_RELEASE_NAMESPACE"),
    ) else {
        return;
    };
    // Connected anew: after a run the gate is shut.
    let Ok(cluster) = Cluster::connect().await else {
        return;
    };
    let api = cluster.namespaced::<Job>(&namespace);
    let given_up = async {
        let Some(state) = cluster.get(&api, &job).await? else {
            return Ok(());
        };
        cluster
            .update(&api, state, |_| {
                Ok(Some(json!({"spec": {"backoffLimit": 0}})))
            })
            .await
            .map(|_| ())
    };
    if let Err::<(), Stop>(stop) = given_up.await {
        tracing::warn!(why = %stop, "the Job's retries could not be ended; they will end the same way");
    }
}
