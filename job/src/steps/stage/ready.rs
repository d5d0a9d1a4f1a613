//! A mover stands ready: it runs, and has found that it can work with both volumes. One that could
//! not would be noticed only after its application was stopped for it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, LogParams};
use pvmigrate_record::order::Report;
use tokio::time::{Instant, sleep};

use crate::causes;
use crate::pods::has_ended;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::{SAY_EVERY, Seen, wait_for};

const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// For how long a log that cannot be read may be a passing thing.
const WITHOUT_A_LOG: Duration = Duration::from_secs(15);
/// A mover says that it is ready before anything else, but for what libraries have to say.
const BEGINNING: i64 = 64 << 10;

pub async fn stands_ready(run: &Run, pods: &Api<Pod>, mover: &Pod) -> Result<(), Stop> {
    let name = mover.name_any();
    let limit = run.config.stage_limit();
    let what = format!("mover {name} to run");
    wait_for(pods, &name, &what, limit, |pod| {
        let Some(pod) = pod else {
            return Seen::Never(deleted(&name));
        };
        let states = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_deref());
        let state = states
            .and_then(|all| all.first())
            .and_then(|container| container.state.clone());
        match state {
            Some(state) if state.running.is_some() => Seen::Reached(()),
            Some(state) if state.terminated.is_some() => Seen::Never(causes::of_pod(pod)),
            _ => Seen::NotYet(causes::of_pod(pod)),
        }
    })
    .await?;
    let params = LogParams {
        limit_bytes: Some(BEGINNING),
        ..LogParams::default()
    };
    let started = Instant::now();
    let mut said = started;
    loop {
        let missing = match pods.logs(&name, &params).await {
            Ok(log) if says_ready(&log) => return Ok(()),
            Ok(_) => "it has not said so".to_string(),
            // It runs, and its report comes by another way too.
            Err(error) if started.elapsed() > WITHOUT_A_LOG => {
                tracing::warn!(mover = name, %error, "its log cannot be read; it runs, so it is taken for ready");
                return Ok(());
            }
            Err(error) => format!("its log cannot be read: {error}"),
        };
        match run.cluster.get(pods, &name).await? {
            None => return Err(Stop::Refused(deleted(&name))),
            Some(pod) if has_ended(&pod) => return Err(Stop::Refused(causes::of_pod(&pod))),
            Some(_) => {}
        }
        if started.elapsed() > limit {
            return Err(Stop::Refused(format!(
                "waited {} s for mover {name} to be ready, in vain: {missing}",
                limit.as_secs()
            )));
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            let seconds = started.elapsed().as_secs();
            tracing::info!(waiting_for = %format!("mover {name} to be ready"), %missing, seconds, "still waiting");
        }
        sleep(BETWEEN_LOOKS).await;
    }
}

fn says_ready(log: &str) -> bool {
    log.lines()
        .any(|line| matches!(serde_json::from_str(line), Ok(Report::Ready { .. })))
}

fn deleted(name: &str) -> String {
    format!("mover {name} was deleted by somebody else")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mover_is_ready_when_it_says_so_whatever_else_is_said() {
        assert!(!says_ready(""));
        assert!(!says_ready("cannot open it\n{\"event\":\"rea"));
        assert!(says_ready(
            "a warning\n{\"event\":\"ready\",\"pod\":\"u\"}\n"
        ));
    }
}
