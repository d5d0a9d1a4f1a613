//! Jobs are waited for or suspended, CronJobs suspended or held.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::DeleteParams;
use kube::{Api, Resource, ResourceExt};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, migrate, mount, once, pod,
    run_test, stay, wait_for,
};
use pvmigrate_record::names;
use serde_json::json;

#[tokio::test]
async fn a_running_job_is_waited_for_and_a_cron_job_goes_on_afterwards() {
    run_test("jobs", async |test| {
        for name in ["report", "nightly"] {
            test.create(&claim(name, &test.cluster.classes[0])).await?;
        }
        let script = "date >/report/begun; sleep 12; date >/report/ended";
        test.create(&job(test, "report", script)?).await?;
        example::pods(&test.cluster, &test.namespace, &["report"]).await?;
        // A claim that no pod has ever used may have no volume yet.
        once(test, &["nightly"], "true").await?;
        test.create(&cron_job(test, "nightly")?).await?;

        let release = migrate(test, &[]).await?;
        let to = &test.cluster.classes[1];
        for name in ["report", "nightly"] {
            let class = bound(&test.cluster, &test.namespace, name)
                .await?
                .class()
                .to_string();
            ensure!(class == *to, "{name} is of {class}");
        }
        let ended = test.api::<Job>().get("report").await?;
        let status = ended.status.context("no status")?;
        ensure!(
            status.succeeded == Some(1) && status.failed.unwrap_or(0) == 0,
            "the Job was not left to end: {status:?}"
        );
        let after = test.api::<CronJob>().get("nightly").await?;
        ensure!(
            after.spec.and_then(|spec| spec.suspend) == Some(false),
            "the CronJob is suspended still"
        );
        test.create(&pod(
            "look",
            &test.cluster.tools_image,
            &stay(""),
            &[mount("report")],
        ))
        .await?;
        test.await_ready("look").await?;
        test.exec("look", "[ -s /report/begun ] && [ -s /report/ended ]")
            .await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_job_that_was_removed_since_the_plan_needs_no_stop() {
    run_test("jobs-removed", async |test| {
        let from = &test.cluster.classes[0];
        let mut first = claim("first", from);
        let wave = (names::WAVE.to_string(), "-1".to_string());
        first.annotations_mut().extend([wave]);
        test.create(&first).await?;
        test.create(&claim("report", from)).await?;
        let image = &test.cluster.tools_image;
        test.create(&deployment("first", image, &stay(""), &[mount("first")]))
            .await?;
        test.create(&job(test, "report", &stay(""))?).await?;
        example::pods(&test.cluster, &test.namespace, &["first", "report"]).await?;
        let source = source_of(test, "report").await?;

        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        // All is planned before the first wave begins, and the second begins when that has ended.
        planned(test, &source).await?;
        test.api::<Job>()
            .delete("report", &DeleteParams::background())
            .await?;

        let here = &test.namespace;
        let removed = format!(
            "it was removed; its pods are waited for all the same workload=Job {here}/report"
        );
        release.ended().await?.expect(0, &["migrated", &removed])?;
        let now = bound(&test.cluster, here, "report").await?;
        let to = &test.cluster.classes[1];
        ensure!(now.class() == *to, "it is of {}", now.class());
        leftovers::none_of_the_run(&release, &test.cluster, here).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn what_is_held_is_waited_for_where_it_is_a_job() {
    run_test("jobs-held", async |test| {
        // They end a while after the plan was made, however long it takes until then.
        let script = |name: &str| {
            format!("date >/{name}/begun; until [ -e /{name}/go ]; do sleep 0.2; done; sleep 12; date >/{name}/ended")
        };
        for name in ["report", "nightly"] {
            test.create(&claim(name, &test.cluster.classes[0])).await?;
        }
        let hold = || (names::FREEZE.to_string(), "hold".to_string());
        let mut report = job(test, "report", &script("report"))?;
        report.annotations_mut().extend([hold()]);
        test.create(&report).await?;
        let mut nightly = cron_job(test, "nightly")?;
        nightly.annotations_mut().extend([hold()]);
        let nightly = test.create(&nightly).await?;
        test.create(&started_by(test, &nightly, &script("nightly"))?)
            .await?;
        let both = ["report", "nightly"];
        let pods = example::pods(&test.cluster, &test.namespace, &both).await?;
        let sources = [source_of(test, both[0]).await?, source_of(test, both[1]).await?];

        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        for (name, source) in both.iter().zip(&sources) {
            planned(test, source).await?;
            test.exec(&pods[*name], &format!("touch /{name}/go")).await?;
        }
        let here = &test.namespace;
        let why = "is held: its annotation pvmigrate.io/freeze says so";
        let said = ["Job", "CronJob"].map(|kind| match kind {
            "Job" => format!("Job {here}/report {why}"),
            _ => format!("CronJob {here}/nightly {why}"),
        });
        release
            .ended()
            .await?
            .expect(0, &["migrated", &said[0], &said[1]])?;
        for name in ["report", "nightly-1"] {
            let status = test.api::<Job>().get(name).await?.status;
            let status = status.context("no status")?;
            ensure!(
                status.succeeded == Some(1) && status.failed.unwrap_or(0) == 0,
                "{name} was not left to end: {status:?}"
            );
        }
        for name in ["report", "nightly"] {
            let class = bound(&test.cluster, here, name).await?.class().to_string();
            ensure!(class == test.cluster.classes[1], "{name} is of {class}");
            let look = format!("[ -s /{name}/begun ] && [ -s /{name}/ended ]");
            once(test, &[name], &look).await?;
        }
        leftovers::none_of_the_run(&release, &test.cluster, here).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn what_a_cron_job_has_started_is_suspended_where_that_is_asked_for_and_runs_again() {
    run_test("jobs-suspended", async |test| {
        test.create(&claim("nightly", &test.cluster.classes[0]))
            .await?;
        let nightly = test.create(&cron_job(test, "nightly")?).await?;
        let script = stay("echo begun >>/nightly/log");
        test.create(&started_by(test, &nightly, &script)?).await?;
        example::pods(&test.cluster, &test.namespace, &["nightly"]).await?;

        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&["--set", "jobs=suspend"]).await?;
        let here = &test.namespace;
        let said = format!(
            "CronJob {here}/nightly starts no more pods: its next Jobs can wait, and those that run are suspended"
        );
        release.ended().await?.expect(0, &["migrated", &said])?;
        let class = bound(&test.cluster, here, "nightly").await?.class().to_string();
        ensure!(class == test.cluster.classes[1], "it is of {class}");
        // It runs again, from its beginning, and the end of its first pod counts against nothing.
        let pods = example::pods(&test.cluster, here, &["nightly"]).await?;
        let log = test.exec(&pods["nightly"], "cat /nightly/log").await?;
        ensure!(log == "begun\nbegun\n", "{log:?}");
        let after = test.api::<Job>().get("nightly-1").await?;
        let mark = after.annotations().get(names::FROZEN);
        ensure!(mark.is_none(), "it is marked still: {mark:?}");
        let suspend = after.spec.and_then(|spec| spec.suspend);
        ensure!(suspend == Some(false), "the Job has suspend {suspend:?}");
        let failed = after.status.and_then(|status| status.failed);
        ensure!(failed.unwrap_or(0) == 0, "{failed:?} of its pods failed");
        let cron_job = test.api::<CronJob>().get("nightly").await?;
        let suspend = cron_job.spec.and_then(|spec| spec.suspend);
        ensure!(suspend == Some(false), "the CronJob has suspend {suspend:?}");
        leftovers::none_of_the_run(&release, &test.cluster, here).await?;
        release.uninstall().await
    })
    .await;
}

/// The volume of a claim.
async fn source_of(test: &Test, claim: &str) -> Result<String> {
    let both = bound(&test.cluster, &test.namespace, claim).await?;
    Ok(both.volume.name_any())
}

/// Waits until a volume has a record: then all is planned.
async fn planned(test: &Test, volume: &str) -> Result<()> {
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    wait_for("the plan", Duration::from_secs(180), async || {
        let volume = volumes.get(volume).await?;
        ensure!(
            volume.annotations().contains_key(names::RECORD),
            "no record"
        );
        Ok(())
    })
    .await
}

/// The spec of a Job's pods, with a claim of its name.
fn template(test: &Test, name: &str, script: &str) -> Result<serde_json::Value> {
    let mut like = pod(name, &test.cluster.tools_image, script, &[mount(name)]);
    if let Some(spec) = &mut like.spec {
        spec.restart_policy = Some("Never".into());
    }
    Ok(json!({"spec": serde_json::to_value(like.spec)?}))
}

fn job(test: &Test, name: &str, script: &str) -> Result<Job> {
    let spec = json!({"backoffLimit": 0, "template": template(test, name, script)?});
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name}, "spec": spec}),
    )?)
}

/// A Job that a CronJob has started, of pods that are not made again when they fail.
fn started_by(test: &Test, cron_job: &CronJob, script: &str) -> Result<Job> {
    let name = cron_job.name_any();
    let mut job = job(test, &name, script)?;
    job.metadata.name = Some(format!("{name}-1"));
    job.metadata.owner_references = cron_job.controller_owner_ref(&()).map(|owner| vec![owner]);
    Ok(job)
}

/// One that is not due while the test runs.
fn cron_job(test: &Test, name: &str) -> Result<CronJob> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "schedule": "0 0 29 2 *",
            "jobTemplate": {"spec": {"template": template(test, name, "true")?}},
        },
    }))?)
}
