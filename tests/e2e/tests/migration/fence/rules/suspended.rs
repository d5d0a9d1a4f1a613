//! A Job, a CronJob and a custom resource that are stopped, and the size of their claim.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pvmigrate_e2e::{Test, claim, example, mount, pod, run_test, wait_for};
use pvmigrate_record::record::{Record, Workload};
use pvmigrate_record::{names, refusal};
use serde_json::{Value, json};

use super::super::super::operator::Operator;
use super::super::RELUCTANT;
use super::super::halted::Halted;
use super::super::requests::{at, create, delete, job_spec, object, patch};
use super::{IN_FORCE, Row, alone, asked_by, of, put};

/// The claim that all three use.
const CLAIM: &str = "shared";

#[tokio::test]
async fn a_job_a_cron_job_and_a_custom_resource_are_neither_resumed_nor_scaled_up_nor_deleted() {
    run_test("fence-suspended", async |test| {
        let widgets = Operator::define(test, "Widget", true).await?;
        let done = tokio::select! {
            done = stopped_and_asked(test, &widgets) => done,
            () = widgets.operate(test) => Ok(()),
        };
        widgets.forget(test).await?;
        done
    })
    .await;
}

async fn stopped_and_asked(test: &Test, widgets: &Operator) -> Result<()> {
    let classes = classes(test).await?;
    widgets.allow(test).await?;
    deploy(test, widgets, &classes[0]).await?;
    let changes = [
        ("PVMIGRATE_SOURCE_SC", classes[0].as_str()),
        ("PVMIGRATE_DEST_SC", classes[1].as_str()),
        ("PVMIGRATE_JOBS", "suspend"),
    ];
    let halted = Halted::when(test, &changes, async || all_stopped(test, widgets).await).await?;
    let records = halted.records().await?;
    let shared = of(&records, CLAIM)?;
    the_policy_knows_any_scale(&halted, widgets, shared).await?;

    let cases = asked_by(&halted.user, rows(test, widgets, shared)?);
    alone(&halted, &cases).await?;
    passing(&halted, widgets).await?;
    down_but_not_up(&halted, widgets, shared).await?;
    halted.finish().await
}

fn rows(test: &Test, widgets: &Operator, record: &Record) -> Result<Vec<Row>> {
    let unmarked = || json!({"metadata": {"annotations": {names::FROZEN: null}}});
    let mark = format!("annotation {}", names::FROZEN);
    let running = |suspend: Value| json!({"spec": {"suspend": suspend}});
    let cron = json!({"schedule": "0 0 * * *", "jobTemplate": {"spec": job_spec(&[])}});
    let mut rows = vec![];
    for (kind, group, spec) in [
        ("Job", "batch/v1", job_spec(&[])),
        ("CronJob", "batch/v1", cron),
        ("Widget", widgets.api_version(), json!({"replicas": 0})),
    ] {
        let workload = stopped(record, kind)?;
        let all = at(test, group, &workload.resource);
        let path = format!("{all}/{}", workload.name);
        rows.extend([
            (
                "names",
                create(all, object(group, kind, &workload.name, spec)),
                refusal::workload_create(record, workload),
            ),
            (
                "deletions",
                delete(path.clone()),
                refusal::workload_delete(record, workload),
            ),
            (
                "marks",
                patch(path.clone(), unmarked()),
                refusal::workload_mark(record, workload, &mark),
            ),
        ]);
        let (up, resumed) = (
            refusal::scale_up(record, workload),
            refusal::resume(record, workload),
        );
        let more = |change: Value, sentence: &str| {
            ("starts", patch(path.clone(), change), sentence.to_string())
        };
        rows.extend(match kind {
            "Job" => vec![
                more(running(json!(false)), &resumed),
                more(json!({"spec": {"parallelism": 2}}), &up),
            ],
            "CronJob" => vec![
                more(running(json!(false)), &resumed),
                more(running(json!(null)), &resumed),
            ],
            _ => vec![
                more(json!({"spec": {"replicas": 1}}), &up),
                (
                    "scales",
                    patch(format!("{path}/scale"), json!({"spec": {"replicas": 1}})),
                    up.clone(),
                ),
            ],
        });
    }
    if test.has_bed() {
        let more = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}});
        let path = at(test, "v1", &format!("persistentvolumeclaims/{CLAIM}"));
        rows.push(("claim-changes", patch(path, more), refusal::resize(record)));
    }
    Ok(rows)
}

/// What changes nothing of the freeze passes.
async fn passing(halted: &Halted<'_>, widgets: &Operator) -> Result<()> {
    let test = halted.test;
    for (group, path, change) in [
        (
            "batch/v1",
            "cronjobs/nightly",
            json!({"spec": {"schedule": "1 1 * * *"}}),
        ),
        (
            "batch/v1",
            "cronjobs/nightly",
            json!({"spec": {"suspend": true}}),
        ),
        (
            "batch/v1",
            "jobs/report",
            json!({"spec": {"parallelism": 0}}),
        ),
        (
            "batch/v1",
            "jobs/report",
            json!({"metadata": {"labels": {"note": "edited"}}}),
        ),
        (
            widgets.api_version(),
            "widgets/widget",
            json!({"spec": {"color": "red"}}),
        ),
    ] {
        let ask = patch(at(test, group, path), change);
        ask.passes(&halted.user).await?;
    }
    Ok(())
}

/// Both layers stand: the policy is the first to be asked.
async fn the_policy_knows_any_scale(
    halted: &Halted<'_>,
    widgets: &Operator,
    record: &Record,
) -> Result<()> {
    let (test, fence) = (halted.test, &halted.fence);
    let up = patch(
        at(test, widgets.api_version(), "widgets/widget/scale"),
        json!({"spec": {"replicas": 1}}),
    );
    let message = format!(
        "widgets.{} \"widget\" is forbidden: ValidatingAdmissionPolicy '{fence}' with binding '{fence}' denied request: pvmigrate stops widgets {}/widget while it migrates its claims to StorageClass {} (run {}): it will be scaled back up by itself when that is done; {}",
        widgets.group(),
        test.namespace,
        record.destination_class,
        record.run,
        refusal::follow(&halted.of, &record.run)
    );
    up.refused(&halted.user, &message).await
}

/// One that somebody has scaled up while the rules were out of force may come down again.
async fn down_but_not_up(halted: &Halted<'_>, widgets: &Operator, record: &Record) -> Result<()> {
    let client = &halted.test.cluster.client;
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let whole = api.get(&halted.fence).await?.webhooks.unwrap_or_default();
    let is_out = |name: &str| name.starts_with("starts.") || name.starts_with("scales.");
    let without: Vec<_> = whole.iter().filter(|entry| !is_out(&entry.name)).collect();
    put(&api, &halted.fence, json!({"webhooks": without})).await?;
    let what = "the rules to be out of force";
    wait_for(what, IN_FORCE, async || widgets.scale(halted.test, 3).await).await?;
    put(&api, &halted.fence, json!({"webhooks": whole})).await?;

    let to = |replicas: i32| {
        let path = at(halted.test, widgets.api_version(), "widgets/widget/scale");
        patch(path, json!({"spec": {"replicas": replicas}}))
    };
    let message = format!(
        "admission webhook \"scales.fence.pvmigrate.io\" denied the request: {}",
        refusal::scale_up(record, stopped(record, "Widget")?)
    );
    let what = "the rules to be in force";
    wait_for(what, IN_FORCE, async || {
        to(4).refused(&halted.user, &message).await
    })
    .await?;
    to(3).passes(&halted.user).await?;
    to(1).passes(&halted.user).await?;
    widgets.scale(halted.test, 0).await
}

fn stopped<'a>(record: &'a Record, kind: &str) -> Result<&'a Workload> {
    let mut all = record.freeze.workloads.iter();
    let found = all.find(|freezing| freezing.workload.kind == kind);
    let found = found.with_context(|| format!("no {kind} in {:?}", record.freeze))?;
    Ok(&found.workload)
}

/// Classes whose claims can grow, where there is one.
async fn classes(test: &Test) -> Result<[String; 2]> {
    if !test.has_bed() {
        return Ok(test.cluster.classes.clone());
    }
    let classes = Api::<StorageClass>::all(test.cluster.client.clone());
    let source = classes.get("csi-a").await?;
    ensure!(source.allow_volume_expansion == Some(true), "{source:?}");
    Ok(["csi-a".into(), "csi-b".into()])
}

/// A Job, a CronJob that is not due, and a custom resource, with one claim.
async fn deploy(test: &Test, widgets: &Operator, class: &str) -> Result<()> {
    let nodes = Api::<Node>::all(test.cluster.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?.items;
    let node = nodes.first().context("no node")?.name_any();
    test.create(&claim(CLAIM, class)).await?;
    // Ended by its suspension, a Job's pod must not count as done.
    let script = RELUCTANT.replace("exit 0", "exit 1");
    let mut template = serde_json::to_value(consumer(test, "report", &script, &node))?;
    template["spec"]["restartPolicy"] = json!("Never");
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": "report"},
        "spec": {"template": {"metadata": {"labels": {"app": "report"}}, "spec": template["spec"]}},
    }))?;
    let cron: CronJob = serde_json::from_value(json!({
        "metadata": {"name": "nightly"},
        "spec": {
            "schedule": "0 0 29 2 *",
            "jobTemplate": {"spec": {"template": {"spec": template["spec"]}}},
        },
    }))?;
    test.create(&job).await?;
    test.create(&cron).await?;
    let widget = consumer(test, "widget", RELUCTANT, &node);
    // Its owner asks for it to be scaled.
    let asked = [(names::FREEZE, "scale")];
    widgets.create(test, &widget, &asked).await?;
    example::pods(&test.cluster, &test.namespace, &[CLAIM]).await?;
    test.await_ready("widget-0").await?;
    Ok(())
}

fn consumer(test: &Test, name: &str, script: &str, node: &str) -> Pod {
    let mut pod = pod(name, &test.cluster.tools_image, script, &[mount(CLAIM)]);
    if let Some(spec) = &mut pod.spec {
        spec.termination_grace_period_seconds = Some(300);
        spec.node_selector = Some([("kubernetes.io/hostname".into(), node.into())].into());
    }
    pod
}

async fn all_stopped(test: &Test, widgets: &Operator) -> Result<()> {
    let limit = Duration::from_secs(120);
    wait_for("all three to be stopped", limit, async || {
        let widget = widgets.api(test).get("widget").await?;
        let job = test.api::<Job>().get("report").await?;
        let cron = test.api::<CronJob>().get("nightly").await?;
        let marked = [&widget.metadata, &job.metadata, &cron.metadata].map(|meta| {
            let annotations = meta.annotations.as_ref();
            annotations.is_some_and(|all| all.contains_key(names::FROZEN))
        });
        ensure!(marked == [true; 3], "frozen: {marked:?}");
        let replicas = &widget.data["spec"]["replicas"];
        ensure!(*replicas == json!(0), "{replicas} replicas");
        Ok(())
    })
    .await
}
