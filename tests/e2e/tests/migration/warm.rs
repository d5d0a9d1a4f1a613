//! Warm passes: what is copied while an application runs, and who comes in their way.

mod many;
mod moving;
mod parting;

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, ListParams, LogParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, wait_for,
};
use serde_json::Value;

/// Numbers its lines, from where it was.
static APPEND: LazyLock<String> =
    LazyLock::new(|| example::numbering("", "/data/log", "echo \"$line\" >>/data/log", "0.05"));

#[tokio::test]
async fn most_is_copied_while_the_application_runs_and_little_while_it_is_stopped() {
    run_test("warm", async |test| {
        let [source, dest] = test.cluster.classes.clone();
        appending(
            test,
            &source,
            "mkdir /data/d; for i in $(seq 500); do head -c 20000 /dev/urandom >/data/d/$i; done",
        )
        .await?;
        let release = migrate(test, &source, &dest, &[]).await?;
        let end = release
            .ended()
            .await?
            .expect(0, &["warm pass done", "settled=true", "migrated"])?;
        let staged = end.log.find("phase=Staged").context("never Staged")?;
        let warm = end.log.rfind("warm pass done").context("no warm pass")?;
        ensure!(
            warm < staged,
            "Staged before its warm passes were done:\n{}",
            end.log
        );

        let report = release.report().await?;
        let line = &report["claims"][format!("{}/data", test.namespace)];
        let figure = |name: &str| {
            line.pointer(name)
                .and_then(Value::as_f64)
                .with_context(|| format!("no {name} in {line}"))
        };
        ensure!(
            figure("/warm/passes")? >= 1.0 && figure("/warm/files")? >= 500.0,
            "{line}"
        );
        ensure!(figure("/warm/bytes")? >= 500.0 * 20_000.0, "{line}");
        let last = figure("/finalBytes")?;
        ensure!(
            last < 200_000.0,
            "the final pass wrote {last} bytes: {line}"
        );
        ensure!(line["compared"] == "written", "{line}");
        let group = report["groups"]
            .as_object()
            .and_then(|all| all.values().next())
            .context("no group")?;
        for part in ["gone", "finalPass", "swap", "thaw"] {
            ensure!(
                group["downtime"][part]
                    .as_f64()
                    .is_some_and(|seconds| seconds >= 0.0),
                "{group}"
            );
        }
        println!("{}", serde_json::to_string(group)?);
        nothing_is_lost(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn without_warm_passes_all_of_it_is_copied_while_the_application_is_stopped() {
    run_test("cold", async |test| {
        let [source, dest] = test.cluster.classes.clone();
        appending(test, &source, "head -c 1000000 /dev/urandom >/data/file").await?;
        let release = migrate(test, &source, &dest, &["--set", "warm=false"]).await?;
        let end = release.ended().await?.expect(0, &["migrated"])?;
        ensure!(!end.log.contains("warm pass"), "{}", end.log);
        let line = &release.report().await?["claims"][format!("{}/data", test.namespace)];
        ensure!(line["warm"].is_null(), "{line}");
        ensure!(line["finalBytes"].as_u64() >= Some(1_000_000), "{line}");
        nothing_is_lost(test).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_mover_that_dies_in_a_warm_pass_is_made_again() {
    run_test("warm-death", async |test| {
        let [source, dest] = test.cluster.classes.clone();
        appending(test, &source, "head -c 16000000 /dev/urandom >/data/file").await?;
        let slow = ["--set", "mover.bandwidth=2Mi"];
        let release = migrate(test, &source, &dest, &slow).await?;
        let first = await_warm_order(test).await?;
        test.api::<Pod>()
            .delete(&first.name_any(), &DeleteParams::default())
            .await?;
        let why = ["the mover is made again", "warm pass done", "migrated"];
        release.ended().await?.expect(0, &why)?;
        nothing_is_lost(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

/// An application that appends to a file of its claim, after this was done there.
async fn appending(test: &Test, class: &str, fill: &str) -> Result<()> {
    let app = deployment("app", &test.cluster.tools_image, &APPEND, &[mount("data")]);
    appending_as(test, &app, class, fill).await
}

async fn appending_as(test: &Test, app: &Deployment, class: &str, fill: &str) -> Result<()> {
    test.create(&claim("data", class)).await?;
    test.create(app).await?;
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    test.exec(&pods["data"], fill).await?;
    Ok(())
}

/// Every line that the application wrote is there, in order, on a volume of the new class.
async fn nothing_is_lost(test: &Test) -> Result<f64> {
    let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
    let log = test.exec(&pods["data"], "cat /data/log").await?;
    let lines = example::lines(&log)?;
    ensure!(
        lines.first().is_some_and(|line| line.number == 1),
        "the log does not begin with line 1"
    );
    example::longest_silence(&lines)
}

async fn migrate(test: &Test, from: &str, to: &str, more: &[&str]) -> Result<Release> {
    let namespace = test.new_namespace("release").await?;
    let classes = [from.to_string(), to.to_string()];
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    release.start(more).await?;
    Ok(release)
}

/// The mover, once it has taken the order to make warm passes, and its claim is under migration: until
/// then it is a trial.
pub async fn await_warm_order(test: &Test) -> Result<Pod> {
    let api: Api<Pod> = test.api();
    wait_for("a warm order", Duration::from_secs(180), async || {
        let movers = ListParams::default().labels("pvmigrate.io/role=mover");
        let mover = api.list(&movers).await?.items.pop().context("no mover")?;
        let order = mover.annotations().get("pvmigrate.io/order").cloned();
        ensure!(
            order.is_some_and(|order| order.contains(r#""what":"warm""#)),
            "no warm order"
        );
        let log = api.logs(&mover.name_any(), &LogParams::default()).await?;
        ensure!(log.contains(r#""event":"taken""#), "it has not taken it");
        let claims = test.api::<PersistentVolumeClaim>();
        let staging = claims.get(&mover.name_any()).await?;
        let role = staging.labels().get("pvmigrate.io/role").cloned();
        ensure!(role.as_deref() == Some("staging"), "its claim is {role:?}");
        Ok(mover)
    })
    .await
}

/// The claim is of this class.
async fn is_of(test: &Test, class: &str) -> Result<()> {
    let now = bound(&test.cluster, &test.namespace, "data").await?;
    ensure!(now.class() == class, "the claim is of {}", now.class());
    Ok(())
}
