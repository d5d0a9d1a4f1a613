//! The test bed itself: what all other tests take for granted.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use pvmigrate_e2e::{Cluster, claim, mount, pod, run_test, stateful_set, stay, wait_for};

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
        if !test.has_bed() {
            return Ok(());
        }
        test.cluster.stop_kubelet("node-b").await?;
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
async fn a_service_account_is_refused_under_its_own_name() {
    run_test("impersonation", async |test| {
        let config = test.cluster.config_as(&test.namespace, "default").await?;
        let maps = Api::<ConfigMap>::namespaced(Client::try_from(config)?, &test.namespace);
        let refused = maps.list(&ListParams::default()).await;
        let name = format!("system:serviceaccount:{}:default", test.namespace);
        ensure!(
            matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(&name)),
            "it got {refused:?}"
        );
        Ok(())
    })
    .await;
}
