//! The claim templates of a StatefulSet, once its claims have moved.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pvmigrate_e2e::{Release, Test, bound, example, mount, run_test, stateful_set, stay};
use serde_json::json;

const CLAIMS: [&str; 2] = ["data-db-0", "data-db-1"];

#[tokio::test]
async fn templates_are_reported_and_updated_around_pods_that_run_on() {
    run_test("templates", async |test| {
        let [from, to] = test.cluster.classes.clone();
        let image = &test.cluster.tools_image;
        let mut set = stateful_set("db", 2, &from, image, &stay(""), &[mount("data")]);
        set.spec = set.spec.map(careful);
        test.create(&set).await?;
        example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        let before = test.api::<StatefulSet>().get("db").await?;

        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        let said =
            format!("its volumeClaimTemplates name class {from}, and its claims are of {to}");
        release.ended().await?.expect(0, &["migrated", &said])?;
        let report = release.report().await?;
        let line = report["templates"][format!("{}/db", test.namespace)].as_str();
        ensure!(
            line.is_some_and(|line| line.starts_with(&said)),
            "{report:#}"
        );
        ensure!(class(test).await? == from, "the set was changed");

        let pods = uids(test).await?;
        release
            .upgrade(&["--set", "statefulSetTemplates=update,runToken=2"])
            .await?;
        release.ended().await?.expect(0, &["its pods run on"])?;
        ensure!(uids(test).await? == pods, "pods were restarted");
        let after = test.api::<StatefulSet>().get("db").await?;
        ensure!(before.uid() != after.uid(), "it is the same set");
        ensure!(
            class(test).await? == to,
            "its templates name {}",
            class(test).await?
        );
        ensure!(
            after.annotations() == before.annotations(),
            "{:?}",
            after.annotations()
        );
        let spec = |set: StatefulSet| set.spec.context("no spec");
        let (was, is) = (spec(before)?, spec(after)?);
        ensure!(
            is.update_strategy == was.update_strategy,
            "{:?}",
            is.update_strategy
        );
        let policy = &is.persistent_volume_claim_retention_policy;
        ensure!(
            *policy == was.persistent_volume_claim_retention_policy,
            "{policy:?}"
        );
        ensure!(
            release
                .api::<Secret>()
                .get_opt("pvmigrate-pvmigrate-sets")
                .await?
                .is_none()
        );

        let more = json!({"spec": {"replicas": 3}});
        let api = test.api::<StatefulSet>();
        api.patch("db", &PatchParams::default(), &Patch::Merge(&more))
            .await?;
        example::pods(&test.cluster, &test.namespace, &["data-db-2"]).await?;
        let third = bound(&test.cluster, &test.namespace, "data-db-2").await?;
        ensure!(third.class() == to, "a new claim is of {}", third.class());
        ensure!(
            uids(test).await?.is_superset(&pods),
            "pods were restarted later"
        );
        release.uninstall().await
    })
    .await;
}

/// With a strategy and a policy that are not the defaults.
fn careful(spec: StatefulSetSpec) -> StatefulSetSpec {
    let json = json!({
        "whenDeleted": "Delete", "whenScaled": "Delete",
    });
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    StatefulSetSpec {
        persistent_volume_claim_retention_policy: serde_json::from_value(json).ok(),
        update_strategy: serde_json::from_value(strategy).ok(),
        ..spec
    }
}

async fn class(test: &Test) -> Result<String> {
    let set = test.api::<StatefulSet>().get("db").await?;
    let templates = set.spec.and_then(|spec| spec.volume_claim_templates);
    let first = templates.and_then(|all| all.into_iter().next());
    let class = first.and_then(|template| template.spec?.storage_class_name);
    class.context("a template without a class")
}

async fn uids(test: &Test) -> Result<BTreeSet<(String, i32)>> {
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    let restarts = |pod: &Pod| {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        containers
            .into_iter()
            .flatten()
            .map(|c| c.restart_count)
            .sum()
    };
    let all = pods.items.iter();
    Ok(all
        .filter_map(|pod| Some((pod.uid()?, restarts(pod))))
        .collect())
}
