//! The proxy that ends its client at a chosen write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use pvmigrate_e2e::{Local, Proxy, Test, When, run_test};

#[tokio::test]
async fn the_proxy_strikes_before_a_write_reaches_the_cluster() {
    run_test("proxy-before", async |test| {
        let exists = strike(test, When::Before).await?;
        ensure!(!exists, "the second write was to be swallowed, and was not");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_proxy_strikes_after_a_write_before_its_client_learns_of_it() {
    run_test("proxy-after", async |test| {
        let exists = strike(test, When::After).await?;
        ensure!(exists, "the second write was to happen, and did not");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_proxy_lets_watches_through_and_does_not_count_what_changes_nothing() {
    run_test("proxy-watch", async |test| {
        let proxy = Proxy::start(test.cluster.config().await?).await?;
        let maps = Api::<ConfigMap>::namespaced(through(&proxy)?, &test.namespace);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        maps.create(&dry, &config_map("dry")).await?;
        let list = maps.list(&ListParams::default()).await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let mut events =
            maps.watch(&WatchParams::default().timeout(20), &version).await?.boxed();
        maps.create(&PostParams::default(), &config_map("seen")).await?;
        let event = events.try_next().await?.context("the watch ended")?;
        ensure!(
            matches!(&event, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("seen")),
            "the watch saw {event:?}"
        );
        let writes = proxy.writes();
        ensure!(writes.len() == 1 && writes[0].status == Some(201), "it counted {writes:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_local_program_dies_at_the_write_that_was_chosen() {
    run_test("local-kill", async |test| {
        let proxy = Proxy::start(test.cluster.config().await?).await?;
        let log = std::env::temp_dir().join(format!("{}.log", test.namespace));
        let mut sleeper = Local::start("/bin/sleep".as_ref(), &["60"], &[], &log)?;
        proxy.arm(1, When::After, sleeper.killer());
        let maps = Api::<ConfigMap>::namespaced(through(&proxy)?, &test.namespace);
        let answered = maps
            .create(&PostParams::default(), &config_map("last"))
            .await;
        ensure!(answered.is_err(), "the client was answered: {answered:?}");
        let status = sleeper.wait(Duration::from_secs(5)).await?;
        std::fs::remove_file(&log)?;
        ensure!(status.code().is_none(), "it ended by itself: {status}");
        Ok(())
    })
    .await;
}

/// Makes two objects through a proxy that is armed for the second; whether that one exists.
async fn strike(test: &Test, when: When) -> Result<bool> {
    let proxy = Proxy::start(test.cluster.config().await?).await?;
    let killed = Arc::new(AtomicBool::new(false));
    let kill = Arc::clone(&killed);
    proxy.arm(2, when, move || kill.store(true, Ordering::SeqCst));
    let maps = Api::<ConfigMap>::namespaced(through(&proxy)?, &test.namespace);
    maps.create(&PostParams::default(), &config_map("first"))
        .await?;
    let second = maps
        .create(&PostParams::default(), &config_map("second"))
        .await;
    ensure!(second.is_err(), "the client was answered: {second:?}");
    ensure!(
        killed.load(Ordering::SeqCst) && proxy.has_struck(),
        "nobody was killed"
    );
    ensure!(
        maps.get("first").await.is_err(),
        "the proxy answers after it has struck"
    );
    let exists = test.api::<ConfigMap>().get_opt("second").await?.is_some();

    proxy.open();
    maps.get("first")
        .await
        .context("the proxy was opened again")?;
    Ok(exists)
}

fn through(proxy: &Proxy) -> Result<Client> {
    let mut config = kube::Config::new(proxy.url().parse()?);
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}
