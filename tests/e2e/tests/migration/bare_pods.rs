//! Pods that nothing would make again.

use anyhow::ensure;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use pvmigrate_e2e::{bound, claim, migrate, mount, pod, run_test, stay};

#[tokio::test]
async fn a_bare_pod_is_made_again_from_its_own_manifest() {
    run_test("bare", async |test| {
        test.create(&claim("data", &test.cluster.classes[0]))
            .await?;
        let script = stay("[ -e /data/file ] || echo data >/data/file");
        let mut wanted = pod("bare", &test.cluster.tools_image, &script, &[mount("data")]);
        wanted
            .annotations_mut()
            .insert("example.com/a".into(), "b".into());
        if let Some(spec) = &mut wanted.spec {
            spec.automount_service_account_token = Some(true);
        }
        test.create(&wanted).await?;
        let before = test.await_ready("bare").await?;

        let release = migrate(test, &["--set", "barePods=recreate"]).await?;
        let after = test.await_ready("bare").await?;
        ensure!(before.uid() != after.uid(), "it was never deleted");
        ensure!(
            after.annotations().get("example.com/a").map(String::as_str) == Some("b"),
            "{:?}",
            after.annotations()
        );
        let text = test.exec("bare", "cat /data/file").await?;
        ensure!(text == "data\n", "{text:?}");
        let now = bound(&test.cluster, &test.namespace, "data").await?;
        ensure!(
            now.class() == test.cluster.classes[1],
            "it is of {}",
            now.class()
        );
        let secrets = test.api::<Secret>().list(&ListParams::default()).await?;
        ensure!(
            secrets.items.is_empty(),
            "a Secret is left: {:?}",
            secrets.items
        );
        let pods = test.api::<Pod>().list(&ListParams::default()).await?;
        ensure!(pods.items.len() == 1, "{} pods", pods.items.len());
        release.uninstall().await
    })
    .await;
}
