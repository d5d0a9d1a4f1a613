//! Classes that cannot give what is asked of them, and a Job that may not do what it has to.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use pvmigrate_e2e::csi::{create_class, delete_class};
use pvmigrate_e2e::{Outside, Test, claim, run_test, wait_for};
use serde_json::{Value, json};

use super::{UNCHANGED, no_trial_is_left, versions};

/// Trials of these tests are in vain, and not worth more.
const SOON: [(&str, &str); 1] = [("PVMIGRATE_STAGE_SECONDS", "5")];

#[tokio::test]
async fn a_driver_without_a_node_and_a_class_without_volumes_are_named() {
    run_test("no-driver", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-now")).await?;
        test.await_bound("data").await?;
        let driver = format!("{}.csi.test", test.namespace);
        let drivers = Api::<CSIDriver>::all(test.cluster.client.clone());
        let object = json!({"metadata": {"name": driver}, "spec": {"attachRequired": false}});
        let object = serde_json::from_value(object)?;
        drivers.create(&PostParams::default(), &object).await?;
        let class = class(test, &driver).await?;
        let sentence = format!("destSC: CSI driver {driver} of StorageClass {class} is registered on no node: its node plugin does not run");
        refused(test, &class, &[&sentence]).await?;
        delete_class(test, &class).await?;
        drivers.delete(&driver, &DeleteParams::default()).await?;

        let class = self::class(test, "kubernetes.io/no-provisioner").await?;
        let sentence = format!("destSC: StorageClass {class} has no provisioner, and 0 volumes of it are Available for 1 claims: make more");
        refused(test, &class, &[&sentence]).await?;
        delete_class(test, &class).await
    })
    .await;
}

#[tokio::test]
async fn a_destination_that_has_too_little_room_is_refused_with_what_it_has() {
    run_test("no-room", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-now")).await?;
        test.await_bound("data").await?;
        let pool = [("pool", test.namespace.as_str()), ("capacity", "32Mi")];
        let class = create_class(test, "WaitForFirstConsumer", &pool).await?;
        published(test, &class).await?;
        let sentence = format!("claim {}/data needs 64Mi, and where it may go StorageClass {class} has room for 32Mi (CSIStorageCapacity)", test.namespace);
        refused(test, &class, &[&sentence, "was tried for claims like"]).await?;
        delete_class(test, &class).await?;

        // Each fits, and a trial does; three do not, wherever they go.
        for name in ["more", "most"] {
            test.create(&claim(name, "csi-now")).await?;
            test.await_bound(name).await?;
        }
        let pool = [("pool", test.namespace.as_str()), ("capacity", "80Mi")];
        let class = create_class(test, "WaitForFirstConsumer", &pool).await?;
        let room = 80 * published(test, &class).await?;
        let sentence = format!("all claims together need 192Mi, and StorageClass {class} has room for {room}Mi (CSIStorageCapacity)");
        refused(test, &class, &[&sentence]).await?;
        delete_class(test, &class).await
    })
    .await;
}

#[tokio::test]
async fn rights_that_the_job_lacks_are_named_with_group_resource_and_verb() {
    run_test("no-rights", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        test.create(&claim("data", "csi-now")).await?;
        test.await_bound("data").await?;
        let outside = Outside::new(test).await?;
        take(test, &outside, "resourcequotas", "list").await?;
        take(test, &outside, "volumesnapshots", "list").await?;
        let run = async || outside.run(["csi-now", "csi-b"], &[&test.namespace], &[]).await;
        run().await?.expect(
            3,
            &[
                "the Job's ServiceAccount may not list resourcequotas (API group core) in all namespaces: grant it, as the chart's roles do",
                "the Job's ServiceAccount may not list volumesnapshots (API group snapshot.storage.k8s.io) in all namespaces: grant it, as the chart's roles do",
                "preflight refused for 2 reasons; nothing was changed",
            ],
        )?;
        take(test, &outside, "persistentvolumes", "list").await?;
        run().await?.expect(
            3,
            &[
                "the Job's ServiceAccount may not list persistentvolumes (API group core) in all namespaces: grant it, as the chart's roles do",
                "may not list resourcequotas",
                "preflight could not read the cluster; nothing was changed",
            ],
        )?;
        no_trial_is_left(test).await?;
        outside.remove().await
    })
    .await;
}

/// Waits until the capacity of a class is known everywhere; returns in how many places that is.
async fn published(test: &Test, class: &str) -> Result<usize> {
    let api = Api::<CSIStorageCapacity>::all(test.cluster.client.clone());
    let places = async || -> Result<(usize, usize)> {
        let all = api.list(&ListParams::default()).await?.items;
        let of = |class: &str| {
            let known = all.iter().filter(|c| c.capacity.is_some());
            known.filter(|c| c.storage_class_name == class).count()
        };
        Ok((of(class), of("csi-b")))
    };
    let what = "the capacity of the class";
    wait_for(what, Duration::from_secs(90), async || {
        let (ours, all) = places().await?;
        ensure!(
            ours == all && all > 0,
            "it is published in {ours} of {all} places"
        );
        Ok(())
    })
    .await?;
    Ok(places().await?.0)
}

/// A class of this provisioner, named after the test.
pub async fn class(test: &Test, provisioner: &str) -> Result<String> {
    let object = json!({"metadata": {"name": test.namespace}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"});
    let api = Api::<StorageClass>::all(test.cluster.client.clone());
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object).await?;
    Ok(test.namespace.clone())
}

async fn refused(test: &Test, class: &str, sentences: &[&str]) -> Result<()> {
    let before = versions(&test.cluster, &[&test.namespace]).await?;
    let outside = Outside::new(test).await?;
    let end = outside
        .run(["csi-now", class], &[&test.namespace], &SOON)
        .await?;
    end.expect(3, sentences)?.expect(3, &[UNCHANGED])?;
    let after = versions(&test.cluster, &[&test.namespace]).await?;
    ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
    no_trial_is_left(test).await?;
    outside.remove().await
}

/// Takes a right from the Job, and waits until it is gone.
async fn take(test: &Test, outside: &Outside, resource: &str, verb: &str) -> Result<()> {
    let roles = Api::<ClusterRole>::all(test.cluster.client.clone());
    let mut role = serde_json::to_value(roles.get(&outside.cluster_role()).await?)?;
    for rule in role["rules"].as_array_mut().into_iter().flatten() {
        let is_it = |of: &Value| {
            of.as_array()
                .is_some_and(|all| all.contains(&json!(resource)))
        };
        if is_it(&rule["resources"])
            && let Some(verbs) = rule["verbs"].as_array_mut()
        {
            verbs.retain(|known| known != verb);
            if verbs.is_empty() {
                verbs.push("use".into());
            }
        }
    }
    let role = serde_json::from_value(role)?;
    let name = outside.cluster_role();
    roles.replace(&name, &PostParams::default(), &role).await?;
    let account = format!("system:serviceaccount:{}:pvmigrate", outside.namespace);
    let asked = [
        "auth",
        "can-i",
        verb,
        resource,
        "--all-namespaces",
        "--as",
        &account,
    ];
    wait_for(
        "the right to be gone",
        Duration::from_secs(20),
        async || {
            let answer = test.cluster.kubectl(&asked).await?;
            ensure!(answer.stdout.trim() == "no", "{answer:?}");
            Ok(())
        },
    )
    .await
}
