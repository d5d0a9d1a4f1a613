//! The test bed itself: what all other tests take for granted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use pvmigrate_e2e::{
    Cluster, Proxy, Test, When, claim, mount, pod, run_test, stateful_set, stay, wait_for,
};

#[tokio::test]
async fn each_class_has_a_file_system_of_its_own_that_keeps_metadata() {
    run_test("file-systems", async |test| {
        let [source, dest] = &test.cluster.classes;
        test.create(&claim("one", source)).await?;
        test.create(&claim("two", dest)).await?;
        let script = stay("");
        test.create(&pod(
            "app",
            &test.cluster.tools_image,
            &script,
            &[mount("one"), mount("two")],
        ))
        .await?;
        test.await_ready("app").await?;
        let devices = test.exec("app", "stat -c %d /one /two").await?;
        let devices: Vec<&str> = devices.lines().collect();
        ensure!(
            devices[0] != devices[1],
            "both classes lie on device {}",
            devices[0]
        );
        for folder in ["/one", "/two"] {
            let kept = test
                .exec(
                    "app",
                    &format!(
                        "cd {folder} && touch f && setfattr -n user.x -v y f && \
                         setfacl -m u:7:r f && setcap cap_chown+ep f && \
                         getfattr -n user.x --only-values f && getfacl -n f && getcap f"
                    ),
                )
                .await?;
            for part in ["y", "user:7:r--", "cap_chown=ep"] {
                ensure!(kept.contains(part), "{folder} lost {part}: {kept}");
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_deleted_claim_takes_its_volume_with_it() {
    run_test("reclaim", async |test| {
        let set = stateful_set(
            "db",
            1,
            &test.cluster.classes[0],
            &test.cluster.tools_image,
            &stay("echo data >/data/file"),
            &[mount("data")],
        );
        test.create(&set).await?;
        test.await_ready("db-0").await?;
        let volume = test
            .await_bound("data-db-0")
            .await?
            .spec
            .and_then(|spec| spec.volume_name)
            .context("a bound claim without a volume")?;
        test.api::<StatefulSet>()
            .delete("db", &DeleteParams::default())
            .await?;
        test.api::<k8s_openapi::api::core::v1::PersistentVolumeClaim>()
            .delete("data-db-0", &DeleteParams::default())
            .await?;
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        wait_for(
            &format!("volume {volume} to go"),
            Duration::from_secs(60),
            async || {
                let found = volumes.get_opt(&volume).await?;
                ensure!(
                    found.is_none(),
                    "it is still there: {:?}",
                    found.and_then(|pv| pv.status)
                );
                Ok(())
            },
        )
        .await
    })
    .await;
}

#[tokio::test]
#[ignore = "takes a node away, which other tests may need"]
async fn a_node_whose_kubelet_stops_is_lost_and_comes_back() {
    run_test("node-loss", async |test| {
        let Some(()) = test.cluster.stop_kubelet("node-b").await? else {
            return Ok(());
        };
        let lost = await_ready_is(&test.cluster, "Unknown").await;
        test.cluster.start_kubelet("node-b").await?;
        lost?;
        await_ready_is(&test.cluster, "True").await
    })
    .await;
}

async fn await_ready_is(cluster: &Cluster, wanted: &str) -> Result<()> {
    let nodes = Api::<Node>::all(cluster.client.clone());
    wait_for(
        &format!("node-b's Ready to be {wanted}"),
        Duration::from_secs(40),
        async || {
            let node = nodes.get("node-b").await?;
            let conditions = node
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let ready = conditions
                .into_iter()
                .find(|condition| condition.type_ == "Ready");
            let status = ready.map(|condition| condition.status);
            ensure!(status.as_deref() == Some(wanted), "it is {status:?}");
            Ok(())
        },
    )
    .await
}

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
