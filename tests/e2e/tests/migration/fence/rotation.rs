//! The webhook's CA, changed for another while a fence stands and is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use pvmigrate_e2e::{Test, run_test, wait_for};
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::Record;
use pvmigrate_record::{names, refusal};
use serde_json::json;

use super::halted::Halted;
use super::requests::{Ask, at, delete};

const SECRET: &str = "pvmigrate-webhook-ca";
/// How many seconds a new CA is published before certificates are issued by it, and the old one
/// after that; by default 600.
const SETTLING: u64 = 3;
/// A whole rotation, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(40);

#[tokio::test]
#[ignore = "takes long; part of make test-long"]
async fn while_the_webhook_gets_another_ca_no_request_passes_or_goes_unanswered() {
    run_test("fence-rotation", async |test| {
        let mut halted = Halted::start(test, "my-db", "scale").await?;
        settle_soon(test, &halted.of.namespace).await?;
        let before = web(&halted).await?;
        halted.go_on()?;
        let limit = Duration::from_secs(60);
        wait_for("the next Job to keep the fence", limit, async || {
            let now = web(&halted).await?;
            ensure!(now.epoch > before.epoch, "it has not taken over");
            Ok(())
        })
        .await?;

        let done = AtomicBool::new(false);
        let asking = refused_until(&done, &halted, &before);
        let changing = async {
            let bundles = rotate(&test.cluster.client, &halted).await;
            done.store(true, Ordering::Relaxed);
            bundles
        };
        let ((count, slowest), bundles) = tokio::try_join!(asking, changing)?;
        println!("{count} requests were refused while the CA changed, the slowest in {slowest:?}");
        ensure!(count > 50, "only {count} requests");
        let [first, both, next] = bundles.as_slice() else {
            bail!(
                "the configuration had {} bundles: {bundles:?}",
                bundles.len()
            );
        };
        ensure!(*both == format!("{first}{next}"), "both CAs: {both}");
        halted.finish().await
    })
    .await;
}

async fn web(halted: &Halted<'_>) -> Result<Record> {
    let mut records = halted.records().await?.into_iter();
    let web = records.find(|record| record.claim.name == "web");
    web.context("no record of web")
}

/// Two replicas, which need not ten minutes for each half of a rotation.
async fn settle_soon(test: &Test, namespace: &str) -> Result<()> {
    let webhook = "deployment/pvmigrate-webhook";
    let seconds = format!("PVMIGRATE_CA_SETTLE_SECONDS={SETTLING}");
    for arguments in [
        ["set", "env", webhook, &seconds],
        ["scale", webhook, "--replicas=2", "--timeout=60s"],
        ["rollout", "status", webhook, "--timeout=60s"],
    ] {
        let all = [&arguments[..], &["--namespace", namespace]].concat();
        test.cluster.kubectl(&all).await?.success()?;
    }
    Ok(())
}

/// Asks for what only the webhook refuses, one request after another, each of which it has to
/// refuse. How many there were, and how long the slowest took.
async fn refused_until(
    done: &AtomicBool,
    halted: &Halted<'_>,
    of: &Record,
) -> Result<(usize, Duration)> {
    // The record goes on meanwhile.
    let phases = [
        Phase::Planned,
        Phase::Staged,
        Phase::Retained,
        Phase::Fenced,
        Phase::Frozen,
    ];
    let sentences = phases.map(|phase| {
        let of = Record {
            phase,
            ..of.clone()
        };
        format!(
            "admission webhook \"claim-deletions.fence.pvmigrate.io\" denied the request: {}",
            refusal::claim_delete(&of)
        )
    });
    let ask: Ask = delete(at(halted.test, "v1", "persistentvolumeclaims/web"));
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        match ask.of(&halted.user).await {
            Err(kube::Error::Api(status))
                if status.code == 403 && sentences.contains(&status.message) => {}
            other => bail!("after {count} refusals: {other:?}"),
        }
        count += 1;
        slowest = slowest.max(began.elapsed());
    }
    Ok((count, slowest))
}

/// Asks for another CA; the bundles that the configuration had until it has only that.
async fn rotate(client: &Client, halted: &Halted<'_>) -> Result<Vec<String>> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &halted.of.namespace);
    let configurations = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let mut bundles = vec![bundle(&configurations, &halted.fence).await?];
    let asked = json!({"metadata": {"annotations": {names::ROTATE: "now"}}});
    secrets
        .patch(SECRET, &PatchParams::default(), &Patch::Merge(asked))
        .await?;
    let started = Instant::now();
    loop {
        let now = bundle(&configurations, &halted.fence).await?;
        if bundles.last() != Some(&now) {
            bundles.push(now);
        }
        if bundles.len() > 2 {
            break;
        }
        let so_far = bundles.len();
        ensure!(started.elapsed() < LIMIT, "{so_far} bundles in {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let secret = secrets.get(SECRET).await?;
    let obeyed = secret.metadata.annotations.unwrap_or_default();
    let obeyed = obeyed.get(names::ROTATED).map(String::as_str);
    ensure!(obeyed == Some("now"), "obeyed: {obeyed:?}");
    let ca = secret.data.unwrap_or_default().remove("ca.crt");
    let ca = String::from_utf8(ca.context("no CA")?.0)?;
    ensure!(bundles.last() == Some(&ca), "the Secret holds {ca}");
    Ok(bundles)
}

/// What the API server believes: the same in all entries.
async fn bundle(api: &Api<ValidatingWebhookConfiguration>, name: &str) -> Result<String> {
    let entries = api.get(name).await?.webhooks.unwrap_or_default();
    let mut bundles: Vec<_> = entries
        .into_iter()
        .map(|entry| entry.client_config.ca_bundle.unwrap_or_default().0)
        .collect();
    bundles.dedup();
    ensure!(bundles.len() == 1, "{} bundles", bundles.len());
    Ok(String::from_utf8(bundles.remove(0))?)
}
