//! A mover stands ready: it runs, and has found that it can work with both volumes. One that could
//! not would be noticed only after its application was stopped for it.

use futures::StreamExt;
use futures::io::AsyncBufReadExt;
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use pvmigrate_record::order::Report;
use tokio::time::{Instant, timeout};

use crate::causes;
use crate::mover::orders::{self, BETWEEN_TRIES, WITHOUT_A_LOG, wait_over};
use crate::pods::{PodWatch, Pods};
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::SAY_EVERY;

pub async fn stands_ready(
    run: &Run,
    pods: &Api<Pod>,
    mover: &Pod,
    watch: &PodWatch,
) -> Result<(), Stop> {
    runs(run, mover, watch).await?;
    let (name, uid) = (mover.name_any(), mover.uid().unwrap_or_default());
    let limit = run.config.stage_limit();
    let started = Instant::now();
    loop {
        let missing = match timeout(SAY_EVERY, says_ready(pods, &name)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => "its log ended before it said so".to_string(),
            // It runs, and its report comes by another way too.
            Ok(Err(error)) if started.elapsed() > WITHOUT_A_LOG => {
                tracing::warn!(mover = name, %error, "its log cannot be read; it runs, so it is taken for ready");
                return Ok(());
            }
            Ok(Err(error)) => format!("its log cannot be read: {error}"),
            Err(_) => {
                let seconds = started.elapsed().as_secs();
                tracing::info!(waiting_for = %format!("mover {name} to be ready"), seconds, "still waiting");
                "it has not said so".into()
            }
        };
        // It has ended, or only the connection to its log.
        if let Ok(over) = timeout(BETWEEN_TRIES, wait_over(run, pods, &name, &uid)).await {
            let why = over?.map_or_else(|| orders::deleted(&name), |pod| causes::of_pod(&pod));
            return Err(Stop::Refused(why));
        }
        if started.elapsed() > limit {
            return Err(Stop::Refused(format!(
                "waited {} s for mover {name} to be ready, in vain: {missing}",
                limit.as_secs()
            )));
        }
    }
}

/// Waits until a mover runs, whatever it has to say.
pub async fn runs(run: &Run, mover: &Pod, watch: &PodWatch) -> Result<(), Stop> {
    has_started(run, mover, watch).await?;
    match state(&watch.now(), mover) {
        Some(state) if state.terminated.is_some() => {
            let now = watch.mover(&mover.name_any());
            Err(Stop::Refused(causes::of_pod(now.as_ref().unwrap_or(mover))))
        }
        _ => Ok(()),
    }
}

/// Waits until a mover runs, or has run.
pub async fn has_started(run: &Run, mover: &Pod, watch: &PodWatch) -> Result<(), Stop> {
    let name = mover.name_any();
    let limit = run.config.stage_limit();
    let what = format!("mover {name} to run");
    let mut is_deleted = false;
    watch
        .wait_until(&what, limit, |pods| {
            let seen = pods.movers.get(&name);
            let Some(seen) = seen.filter(|seen| Some(&seen.uid) == mover.metadata.uid.as_ref())
            else {
                return Err("it is not there".into());
            };
            is_deleted = seen.deleted;
            match state(pods, mover) {
                _ if is_deleted => Ok(()),
                Some(state) if state.running.is_some() || state.terminated.is_some() => Ok(()),
                _ => Err(causes::of_pod(&seen.pod)),
            }
        })
        .await?;
    if is_deleted {
        return Err(Stop::Refused(orders::deleted(&name)));
    }
    Ok(())
}

/// What a mover's container does, as far as it was seen.
fn state(pods: &Pods, mover: &Pod) -> Option<ContainerState> {
    let seen = pods.movers.get(&mover.name_any())?;
    if Some(&seen.uid) != mover.metadata.uid.as_ref() {
        return None;
    }
    let states = seen.pod.status.as_ref()?.container_statuses.as_deref()?;
    states.first()?.state.clone()
}

/// Follows a mover's log until it says that it is ready; not if the log ends before that. What else
/// is in it are orders of an earlier Job, and what libraries have to say.
async fn says_ready(pods: &Api<Pod>, name: &str) -> Result<bool, kube::Error> {
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut lines = pods.log_stream(name, &params).await?.lines();
    while let Some(Ok(line)) = lines.next().await {
        if is_ready(&line) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_ready(line: &str) -> bool {
    matches!(serde_json::from_str(line), Ok(Report::Ready { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mover_is_ready_when_it_says_so_whatever_else_is_said() {
        assert!(!is_ready(""));
        assert!(!is_ready("{\"event\":\"rea"));
        assert!(!is_ready("a warning"));
        assert!(is_ready("{\"event\":\"ready\",\"pod\":\"u\"}"));
    }
}
