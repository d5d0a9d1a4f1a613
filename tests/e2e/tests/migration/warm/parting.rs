//! Movers that are to make their last pass when they end, and are ended too early: while the
//! application, which was asked to go, still writes.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{Test, deployment, example, leftovers, mount, run_test, wait_for};
use rustix::process::{Pid, Signal, kill_process};

use super::{appending_as, is_of, migrate, nothing_is_lost};

/// Goes on for ten seconds when it is asked to end.
static RELUCTANT: LazyLock<String> = LazyLock::new(|| {
    let first = "trap \"end=\\$((SECONDS + 10))\" TERM";
    let each = "[ -z \"$end\" ] || [ $SECONDS -lt $end ] || exit 0
  echo \"$line\" >>/data/log";
    example::numbering(first, "/data/log", each, "0.05")
});

#[tokio::test]
async fn a_last_pass_that_somebody_elses_deletion_began_does_not_count() {
    let ended_by = async |test: &Test, mover: &Pod| {
        let api = test.api::<Pod>();
        let params = DeleteParams::default();
        api.delete(&mover.name_any(), &params).await?;
        Ok(())
    };
    ended_too_early("parting-deleted", "was deleted by somebody else", ended_by).await;
}

#[tokio::test]
async fn a_signal_that_its_kubelet_did_not_send_begins_no_last_pass() {
    let ended_by = async |_: &Test, mover: &Pod| {
        let uid = mover.uid().context("a pod without a UID")?;
        Ok(kill_process(process(&uid)?, Signal::TERM)?)
    };
    ended_too_early("parting-signal", "was ended by somebody else", ended_by).await;
}

async fn ended_too_early(name: &str, why: &str, end: impl AsyncFn(&Test, &Pod) -> Result<()>) {
    run_test(name, async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let [source, dest] = test.cluster.classes.clone();
        let mut app = deployment(
            "app",
            &test.cluster.tools_image,
            &RELUCTANT,
            &[mount("data")],
        );
        let template = app.spec.as_mut().map(|spec| &mut spec.template);
        let spec = template.and_then(|template| template.spec.as_mut());
        spec.context("no pod's spec")?
            .termination_grace_period_seconds = Some(60);
        appending_as(
            test,
            &app,
            &source,
            "head -c 100000 /dev/urandom >/data/file",
        )
        .await?;
        let release = migrate(test, &source, &dest, &[]).await?;
        let mover = await_freeze(test).await?;
        end(test, &mover).await?;
        let said = [why, "the copy starts again", "migrated"];
        release.ended().await?.expect(0, &said)?;
        nothing_is_lost(test).await?;
        is_of(test, &dest).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

/// The mover, once it was told what to do at its end, and the application was asked to go.
async fn await_freeze(test: &Test) -> Result<Pod> {
    let api: Api<Pod> = test.api();
    let what = "an application that is about to end";
    wait_for(what, Duration::from_secs(180), async || {
        let pods = api.list(&ListParams::default()).await?.items;
        let going = pods.iter().any(|pod| {
            pod.name_any().starts_with("app-") && pod.metadata.deletion_timestamp.is_some()
        });
        ensure!(going, "it runs");
        let is_told = |pod: &&Pod| {
            let order = pod.annotations().get("pvmigrate.io/order");
            order.is_some_and(|order| order.contains(r#""atEnd":true"#))
        };
        pods.iter().find(is_told).cloned().context("no such order")
    })
    .await
}

/// The process of a mover: what runs in the test bed's pods are processes here.
fn process(pod: &str) -> Result<Pid> {
    for process in fs::read_dir("/proc")? {
        let path = process?.path();
        let read = |file: &str| fs::read(path.join(file)).unwrap_or_default();
        let command = read("cmdline");
        let is_of_pod = read("environ")
            .split(|byte| *byte == 0)
            .any(|pair| pair == format!("POD_UID={pod}").as_bytes());
        if command.starts_with(b"/pvmigrate-mover\0serve") && is_of_pod {
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            return number.and_then(Pid::from_raw).context("no process id");
        }
    }
    anyhow::bail!("pod {pod} has no process here")
}
