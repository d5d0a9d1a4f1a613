//! Shows the Job's log as it comes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;
use pvmigrate_e2e::example::LONG;
use pvmigrate_e2e::{Release, wait_for};

/// Prints the log of the Job's first pod until it ends, each line with the seconds since `began`.
pub async fn log(release: &Release, app: &str, began: Instant) -> Result<()> {
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let log = wait_for("the Job's log", Duration::from_secs(60), async || {
        let job = release.job().await?;
        let pods = release.pods(&job.name_any()).await?;
        let pod = pods.first().context("the Job has no pod")?;
        Ok(release
            .api::<Pod>()
            .log_stream(&pod.name_any(), &params)
            .await?)
    })
    .await?;
    let mut lines = log.lines();
    while let Some(line) = lines.try_next().await? {
        if let Some(short) = shorten(&line, app) {
            println!("   {:5.1} s  {short}", began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// What changes for a reader; the phases between these follow within a tenth of a second.
const SHOWN: [&str; 6] = [
    "Staged", "Fenced", "Frozen", "Verified", "Rebound", "Thawed",
];

/// A line without what every line has: its time, the namespace, and most of a very long name. Of
/// the report at the end, which is shown in another way, nothing.
fn shorten(line: &str, app: &str) -> Option<String> {
    let (_, line) = line.split_once(' ')?;
    let line = line.trim_start();
    let line = line.strip_prefix("INFO ").unwrap_or(line);
    let is_report = line.starts_with(' ') || line.starts_with("run ");
    let phase = line.split_once("phase=").map(|(_, phase)| phase);
    if is_report || phase.is_some_and(|phase| !SHOWN.contains(&phase)) {
        return None;
    }
    let line = line.replace(&format!("{app}/"), "");
    Some(line.replace(LONG, &format!("{}…", &LONG[..12])))
}
