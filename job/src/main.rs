//! `pvmigrate run` is the Job; `pvmigrate abort` ends it; `pvmigrate status` shows how far
//! migrations are. This file wires, and turns errors into exit codes; nothing else does.

#![forbid(unsafe_code)]
#![warn(clippy::large_futures)]

mod abort;
mod causes;
mod claim;
mod cluster;
mod config;
mod default_class;
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
mod schedule;
mod sites;
mod status;
mod steps;
mod stop;
mod templates;
mod wait;
mod workloads;

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::cluster::Cluster;
use crate::config::{Config, ConfigError, Output, PlanAsked, Verb};
use crate::exit::Exit;
use crate::lease::Asked;
use crate::report::{Report, State};
use crate::stop::Stop;

/// How long a write in hand may take after SIGTERM.
const LAST_WRITE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> ExitCode {
    let line: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let exit = match config::read(environment(), &line) {
        Ok(Verb::Run(config)) => {
            log_to(&config.log, std::io::stdout);
            let exit = Box::pin(run_job(*config)).await;
            if exit.is_final_failure() {
                give_up_retries().await;
            }
            tracing::info!(code = exit.code(), "the Job ends");
            exit
        }
        Ok(Verb::Abort(config)) => {
            log_to(&config.log, std::io::stdout);
            Box::pin(abort_run(*config)).await
        }
        Ok(Verb::Plan(asked)) => {
            log_to(&asked.config.log, std::io::stderr);
            Box::pin(print_plan(*asked)).await
        }
        Ok(Verb::Status) => {
            log_to("info", std::io::stderr);
            status::print().await.unwrap_or_else(|error| {
                eprintln!("pvmigrate: {error:#}");
                Exit::Interrupted
            })
        }
        Ok(Verb::Options) => {
            print!("{}", config::options());
            Exit::Done
        }
        Err(error) => refused(&error).await,
    };
    exit.into()
}

/// What is said in the environment. A variable whose value is no text is none of ours.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// A level is for this program. The client reports its own retries as errors; what comes of them
/// is said here.
fn log_to<W>(log: &str, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = match log.parse::<LevelFilter>() {
        Ok(level) => format!("pvmigrate={level}"),
        Err(_) => log.to_string(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(false)
        .with_writer(writer)
        .init();
}

/// Says what is wrong with the configuration; or answers, where only help was asked for.
async fn refused(error: &ConfigError) -> Exit {
    if let ConfigError::Usage(words) = error {
        // Whoever closes the pipe has read enough.
        let _ = words.print();
        if !words.use_stderr() {
            return Exit::Done;
        }
    } else {
        log_to("info", std::io::stdout);
        tracing::error!("configuration: {error}");
    }
    give_up_retries().await;
    Exit::Config
}

async fn run_job(config: Config) -> Exit {
    let (cluster, config) = match connect(config).await {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    Box::pin(unless_complete(&cluster, &config))
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
        })
}

async fn abort_run(config: Config) -> Exit {
    let (cluster, config) = match connect(config).await {
        Ok(both) => both,
        Err(exit) => return exit,
    };
    let aborted = Box::pin(abort::abort(&cluster, &config)).await;
    aborted.unwrap_or_else(|stop| {
        tracing::error!("not aborted yet, run it again to go on: {stop}");
        Exit::Interrupted
    })
}

async fn print_plan(PlanAsked { config, output }: PlanAsked) -> Exit {
    // Nothing that the image is needed for is made.
    let connected = Cluster::connect().await;
    let shown = match &connected {
        Ok(cluster) => run::shown(cluster, &config).await,
        Err(error) => Err(Stop::Api(format!("{error:#}"))),
    };
    match shown {
        Ok(shown) if output == Output::Json => {
            println!(
                "{}",
                serde_json::to_string_pretty(&shown).unwrap_or_default()
            );
            Exit::Done
        }
        Ok(shown) => {
            print!("{}", shown.table());
            Exit::Done
        }
        Err(stop) => {
            eprintln!("pvmigrate: {stop}");
            Exit::Interrupted
        }
    }
}

/// The cluster, and the configuration with what only the cluster knows.
async fn connect(config: Config) -> Result<(Cluster, Config), Exit> {
    let cluster = Cluster::connect().await.map_err(|error| {
        tracing::error!("no API server: {error:#}");
        Exit::Interrupted
    })?;
    let config = config
        .settle(cluster.default_namespace())
        .map_err(|error| {
            tracing::error!("configuration: {error}");
            Exit::Config
        })?;
    Ok((cluster, config))
}

async fn unless_complete(cluster: &Cluster, config: &Config) -> Result<Exit, Stop> {
    if config.preflight_only {
        let (cluster_owner, owner) = run::owners(cluster, config).await?;
        let rehearsal = run::execute(cluster.clone(), config.clone(), cluster_owner, owner);
        return Box::pin(rehearsal).await;
    }
    if let Some(report) = Report::read(cluster, config).await?
        && report.state == State::Complete
    {
        let uncovered = run::uncovered(cluster, config, &report).await?;
        if uncovered.is_empty() {
            tracing::info!(run = %report.run, "this run is complete; nothing to do");
            // A Job with this setting may come after the one that moved the claims.
            if !default_class::set(cluster, config).await? {
                return Ok(Exit::Failed);
            }
        } else {
            tracing::warn!(run = %report.run, "this run is complete and did not cover {}; set another runToken to move them", uncovered.join(", "));
        }
        return Ok(Exit::Done);
    }
    leased(cluster, config, run::execute).await
}

/// Some work, while the Lease is held and nobody asks to stop.
async fn leased<W, F>(cluster: &Cluster, config: &Config, work: W) -> Result<Exit, Stop>
where
    W: FnOnce(Cluster, Config, Option<OwnerReference>, Option<OwnerReference>) -> F,
    F: Future<Output = Result<Exit, Stop>> + Send + 'static,
{
    let (cluster_owner, owner) = run::owners(cluster, config).await?;
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|error| Stop::Api(error.to_string()))?;
    let mut acquired = Box::pin(lease::acquire(cluster, config, owner.clone()));
    let held = tokio::select! {
        asked = &mut acquired => match asked? {
            Asked::Held(held) => held,
            Asked::Busy(holder) => {
                tracing::error!(%holder, "another Job of this release is at work");
                return Ok(Exit::Busy);
            }
        },
        _ = terminated.recv() => {
            // It may be ours by the write in hand, and nobody else could have it for a while.
            if let Ok(Ok(Asked::Held(held))) = timeout(LAST_WRITE, acquired).await {
                held.release().await;
            }
            return Ok(Exit::Interrupted);
        }
    };
    let work = tokio::spawn(work(cluster.clone(), config.clone(), cluster_owner, owner));
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
