//! An abort that finds nothing of the webhook any more: neither its pods, nor the CA that they
//! would have made again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams};
use pvmigrate_e2e::{Test, bound, run_test, wait_for};
use pvmigrate_record::names;

use super::halted::Halted;
use super::{let_go, requests};

/// A Job that waited for the webhook's CA would take two minutes.
const AT_ONCE: Duration = Duration::from_secs(60);

const ALONE: &str =
    "the webhook is gone, and its CA with it: from here on the policy alone keeps the fence";

#[tokio::test]
async fn an_abort_without_the_webhook_and_its_ca_lets_the_policy_keep_the_fence() {
    run_test("fence-gone", async |test| {
        let mut halted = Halted::start(test, "my-db", "scale").await?;
        let before = volumes(test).await?;
        webhook_is_gone(test, &halted.of.namespace).await?;
        let claim = format!("pvmigrate is migrating claim {}/web to ", test.namespace);
        requests::expect_refusal(super::mounting(test, "web").of(&halted.user).await, &claim)?;

        let_go(test).await?;
        let started = Instant::now();
        let log = halted.abort().await?;
        let took = started.elapsed();
        println!("the abort took {took:?}");
        ensure!(took < AT_ONCE, "it took {took:?}:\n{log}");
        ensure!(log.contains(ALONE), "nothing says {ALONE:?}:\n{log}");

        let after = volumes(test).await?;
        ensure!(before == after, "{before:?} became {after:?}");
        let web = test.api::<Deployment>().get("web").await?;
        let set = test.api::<StatefulSet>().get("my-db").await?;
        for (replicas, metadata) in [
            (web.spec.and_then(|spec| spec.replicas), web.metadata),
            (set.spec.and_then(|spec| spec.replicas), set.metadata),
        ] {
            ensure!(replicas == Some(1), "{replicas:?} replicas");
            let annotations = metadata.annotations.unwrap_or_default();
            ensure!(!annotations.contains_key(names::FROZEN), "it is marked");
        }
        super::mounting(test, "web").passes(&halted.user).await?;
        halted.release.uninstall().await
    })
    .await;
}

/// The volumes of both claims.
async fn volumes(test: &Test) -> Result<[String; 2]> {
    let mut names = [String::new(), String::new()];
    for (name, claim) in names.iter_mut().zip(["web", "data-my-db-0"]) {
        let both = bound(&test.cluster, &test.namespace, claim).await?;
        *name = both.volume.metadata.name.context("no name")?;
    }
    Ok(names)
}

/// As when somebody has deleted the Deployment: the Secret goes with its owner.
async fn webhook_is_gone(test: &Test, namespace: &str) -> Result<()> {
    let client = &test.cluster.client;
    let now = DeleteParams::default();
    Api::<Deployment>::namespaced(client.clone(), namespace)
        .delete("pvmigrate-webhook", &now)
        .await?;
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let secrets = Api::<Secret>::namespaced(client.clone(), namespace);
    let what = "the webhook's pods and its CA to be gone";
    wait_for(what, Duration::from_secs(120), async || {
        let of_webhook = ListParams::default().labels("app.kubernetes.io/component=webhook");
        let left = pods.list(&of_webhook).await?.items;
        ensure!(left.is_empty(), "there are {} pods", left.len());
        let left = secrets.list(&ListParams::default()).await?.items;
        ensure!(left.is_empty(), "there are {} Secrets", left.len());
        Ok(())
    })
    .await
}
