//! Claims and workloads that are not as most are.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::{
    Deployment, StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy,
};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    bound, claim, deployment, example, folder, migrate, mount, once, released, run_test,
    stateful_set, stay,
};

use super::preflight::no_trial_is_left;

#[tokio::test]
async fn a_source_that_is_not_to_be_kept_is_deleted_with_its_data() {
    run_test("delete-source", async |test| {
        test.create(&claim("web", &test.cluster.classes[0])).await?;
        let script = stay("[ -e /web/file ] || echo data >/web/file");
        let image = &test.cluster.tools_image;
        test.create(&deployment("web", image, &script, &[mount("web")]))
            .await?;
        example::pods(&test.cluster, &test.namespace, &["web"]).await?;
        let before = bound(&test.cluster, &test.namespace, "web").await?.volume;
        let was_at = folder(&test.cluster, &before);
        ensure!(
            was_at.as_ref().is_none_or(|at| at.join("file").exists()),
            "no data in {was_at:?}"
        );

        let release = migrate(test, &["--set", "sourceVolumes=delete"]).await?;
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        let left = volumes.get_opt(&before.name_any()).await?;
        ensure!(left.is_none(), "the source still exists: {left:?}");
        ensure!(
            was_at.as_ref().is_none_or(|at| !at.exists()),
            "{was_at:?} still exists"
        );
        let line = &release.report().await?["claims"][format!("{}/web", test.namespace)];
        ensure!(
            line["dispose"].is_null(),
            "the report says how to dispose of what is gone: {line}"
        );
        let pods = example::pods(&test.cluster, &test.namespace, &["web"]).await?;
        ensure!(
            test.exec(&pods["web"], "cat /web/file").await? == "data\n",
            "its data is lost"
        );
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_set_that_deletes_its_claims_when_it_is_scaled_down_keeps_them() {
    run_test("retention", async |test| {
        let script = stay("[ -e /data/file ] || hostname >/data/file");
        let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
        let mut set = stateful_set("db", 2, class, image, &script, &[mount("data")]);
        if let Some(spec) = &mut set.spec {
            spec.persistent_volume_claim_retention_policy =
                Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                    when_deleted: Some("Retain".into()),
                    when_scaled: Some("Delete".into()),
                });
        }
        test.create(&set).await?;
        example::pods(&test.cluster, &test.namespace, &["data-db-0", "data-db-1"]).await?;

        let release = migrate(test, &[]).await?;
        let pods =
            example::pods(&test.cluster, &test.namespace, &["data-db-0", "data-db-1"]).await?;
        for name in ["db-0", "db-1"] {
            let now = bound(&test.cluster, &test.namespace, &format!("data-{name}")).await?;
            ensure!(
                now.class() == test.cluster.classes[1],
                "claim of {name} is of {}",
                now.class()
            );
            let text = test
                .exec(&pods[&format!("data-{name}")], "cat /data/file")
                .await?;
            ensure!(text.trim_end() == name, "{name} holds {text:?}");
        }
        let spec = test
            .api::<StatefulSet>()
            .get("db")
            .await?
            .spec
            .context("no spec")?;
        let policy = spec
            .persistent_volume_claim_retention_policy
            .context("no policy")?;
        ensure!(
            policy.when_scaled.as_deref() == Some("Delete")
                && policy.when_deleted.as_deref() == Some("Retain")
                && spec.replicas == Some(2),
            "{policy:?}, {:?} replicas",
            spec.replicas
        );
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_nobody_uses_is_moved_and_a_workload_at_zero_stays_there() {
    run_test("unused", async |test| {
        for name in ["spare", "asleep"] {
            test.create(&claim(name, &test.cluster.classes[0])).await?;
            once(test, &[name], &format!("echo {name} >/{name}/file")).await?;
        }
        let image = &test.cluster.tools_image;
        let mut asleep = deployment("asleep", image, &stay(""), &[mount("asleep")]);
        if let Some(spec) = &mut asleep.spec {
            spec.replicas = Some(0);
        }
        test.create(&asleep).await?;

        let release = migrate(test, &[]).await?;
        let replicas = test
            .api::<Deployment>()
            .get("asleep")
            .await?
            .spec
            .and_then(|s| s.replicas);
        ensure!(
            replicas == Some(0),
            "the workload at 0 has {replicas:?} replicas"
        );
        for name in ["spare", "asleep"] {
            let now = bound(&test.cluster, &test.namespace, name).await?;
            ensure!(
                now.class() == test.cluster.classes[1],
                "{name} is of {}",
                now.class()
            );
            once(
                test,
                &[name],
                &format!("[ \"$(cat /{name}/file)\" = {name} ]"),
            )
            .await?;
        }
        no_trial_is_left(test).await?;
        let left = released(&test.cluster, &test.namespace).await?;
        ensure!(left.len() == 2, "{} sources are kept", left.len());
        release.uninstall().await
    })
    .await;
}
