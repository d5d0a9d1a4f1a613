//! Runs that only look: the plan, the checks, and flags that are wrong.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{Release, Test, claim, example, mount, run_test};
use serde_json::Value;

use super::{outside, use_them};

#[tokio::test]
async fn a_flag_that_is_wrong_is_named_and_the_exit_code_is_2() {
    run_test("options-wrong", async |test| {
        let said = outside(test, 2, &["run", "--freeze-seconds=5m"]).await?;
        let sentence = "--freeze-seconds is \"5m\": write a whole number of seconds, 1 or more";
        ensure!(said.contains(sentence), "{said}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_run_that_only_checks_changes_nothing_whatever_it_finds() {
    run_test("options-preflight", async |test| {
        test.create(&claim("data", &test.cluster.classes[0]))
            .await?;
        use_them(test, &[mount("data")]).await?;
        let before = versions(test).await?;
        let said = outside(test, 0, &["run", "--preflight-only"]).await?;
        ensure!(
            said.contains("preflight has nothing against this run; nothing was changed"),
            "{said}"
        );
        let said = outside(test, 3, &["run", "--preflight-only", "--dest-sc=none"]).await?;
        ensure!(
            said.contains("destSC: StorageClass none does not exist"),
            "{said}"
        );
        let plan = outside(test, 0, &["plan", "--output=json"]).await?;
        let plan: Value = serde_json::from_str(&plan[plan.find('{').context("no JSON")?..])?;
        let group = &plan["groups"][0];
        let name = format!("{}/data", test.namespace);
        ensure!(
            group["claims"][0]["name"] == name.as_str(),
            "the plan is {plan}"
        );
        ensure!(
            group["freeze"][0]["method"] == "scale",
            "the plan is {plan}"
        );
        ensure!(group["claims"][0]["node"].is_string(), "the plan is {plan}");
        let after = versions(test).await?;
        ensure!(after == before, "before: {before:?}\nafter: {after:?}");

        // What cannot be done at all is refused without preflight too. This is a run, not only a
        // check: it takes its Lease, and changes nothing else.
        let said = outside(test, 3, &["run", "--skip-preflight", "--dest-sc=none"]).await?;
        ensure!(said.contains("PREFLIGHT IS SKIPPED"), "{said}");
        let mut after = versions(test).await?;
        let lease = after.remove("Lease pvmigrate-pvmigrate");
        ensure!(lease.is_some(), "a run took no Lease: {after:?}");
        ensure!(after == before, "before: {before:?}\nafter: {after:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_plan_is_a_table_of_groups_in_order_with_their_downtime_and_what_is_left_to_change() {
    run_test("options-plan", async |test| {
        let [from, to] = &test.cluster.classes;
        for name in ["data", "unused"] {
            test.create(&claim(name, from)).await?;
        }
        use_them(test, &[mount("data")]).await?;
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let pod = test.api::<Pod>().get(&pods["data"]).await?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        let node = node.context("a pod that runs on no node")?;
        let here = &test.namespace;
        let before = versions(test).await?;
        for (more, downtime) in [
            (&[][..], "3 s"),
            // 64 MiB are copied within the same second.
            (&["--warm=false"], "3 s, if 64Mi are full and copied at 100Mi a second"),
            (
                &["--warm=false", "--mover-bandwidth=1Mi"],
                "67 s, if 64Mi are full and copied at 1Mi a second",
            ),
        ] {
            let said = outside(test, 0, &[&["plan"], more].concat()).await?;
            let table = format!(
                "StorageClass {from} to {to}
1. {here}/deployment/app
   Deployment {here}/app is scaled to 0: nothing else steers it
   predicted downtime: {downtime}
   claim {here}/data, 64Mi, on node {node}, not measured yet
left: claim {here}/unused: it is not bound to a volume, so there is nothing to move; delete it and make it again on the other class
"
            );
            ensure!(said.contains(&table), "{table:?} is not in {said:?}");
            let patch = format!(
                "- target: {{version: v1, kind: PersistentVolumeClaim, namespace: {here}, name: data}}
  patch: |-
    - {{op: add, path: /spec/storageClassName, value: {to}}}
"
            );
            ensure!(said.contains(&patch), "{patch:?} is not in {said:?}");
        }
        ensure!(versions(test).await? == before, "something was changed");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_chart_can_only_check_too() {
    run_test("options-preflight-chart", async |test| {
        test.create(&claim("data", &test.cluster.classes[0]))
            .await?;
        use_them(test, &[mount("data")]).await?;
        let before = versions(test).await?;
        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&["--set", "preflightOnly=true"]).await?;
        release.ended().await?.expect(
            0,
            &["preflight has nothing against this run; nothing was changed"],
        )?;
        ensure!(versions(test).await? == before, "something was changed");
        ensure!(
            release.report().await.is_err(),
            "there is a report of a run that was none"
        );
        release.uninstall().await
    })
    .await;
}

/// The resourceVersions of what a run could change in the test's namespace, and of its volumes.
async fn versions(test: &Test) -> Result<BTreeMap<String, Option<String>>> {
    let mut all = BTreeMap::new();
    note(&mut all, test.api::<PersistentVolumeClaim>()).await?;
    note(&mut all, test.api::<Pod>()).await?;
    note(&mut all, test.api::<Deployment>()).await?;
    note(&mut all, test.api::<StatefulSet>()).await?;
    note(&mut all, test.api::<ConfigMap>()).await?;
    note(
        &mut all,
        test.api::<k8s_openapi::api::coordination::v1::Lease>(),
    )
    .await?;
    note(
        &mut all,
        test.api::<k8s_openapi::api::core::v1::ServiceAccount>(),
    )
    .await?;
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    for volume in volumes.list(&ListParams::default()).await? {
        let held = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        if held.is_some_and(|held| held.namespace.as_ref() == Some(&test.namespace)) {
            all.insert(volume.name_any(), volume.resource_version());
        }
    }
    Ok(all)
}

async fn note<K>(all: &mut BTreeMap<String, Option<String>>, api: Api<K>) -> Result<()>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + k8s_openapi::serde::de::DeserializeOwned,
{
    for object in api.list(&ListParams::default()).await? {
        let name = format!("{} {}", K::kind(&()), object.name_any());
        all.insert(name, object.resource_version());
    }
    Ok(())
}
