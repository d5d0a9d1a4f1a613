//! Classes that cannot give what is asked of them, and a Job that may not do what it has to.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use pvmigrate_e2e::csi::{create_class_named, delete_class};
use pvmigrate_e2e::{Outside, Test, claim, run_test, wait_for};
use serde_json::{Value, json};

use super::{UNCHANGED, no_trial_is_left, versions};

/// For trials that are in vain, and not worth more.
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
        refused(test, &class, &SOON, &[&sentence]).await?;
        delete_class(test, &class).await?;
        drivers.delete(&driver, &DeleteParams::default()).await?;

        let class = self::class(test, "kubernetes.io/no-provisioner").await?;
        let sentence = format!("destSC: StorageClass {class} has no provisioner, and 0 volumes of it are Available for 1 claims: make more");
        refused(test, &class, &SOON, &[&sentence]).await?;
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
        let (class, _) = with_pool(test, "small", "32Mi").await?;
        let sentence = format!("claim {}/data needs 64Mi, and where it may go StorageClass {class} has room for 32Mi (CSIStorageCapacity)", test.namespace);
        let tried = "was tried for claims like";
        refused(test, &class, &SOON, &[&sentence, tried]).await?;
        delete_class(test, &class).await?;

        // Each fits, and a trial does; three do not, wherever they go.
        for name in ["more", "most"] {
            test.create(&claim(name, "csi-now")).await?;
            test.await_bound(name).await?;
        }
        let (class, places) = with_pool(test, "large", "80Mi").await?;
        let room = 80 * places;
        let sentence = format!("all claims together need 192Mi, and StorageClass {class} has room for {room}Mi (CSIStorageCapacity)");
        // The trial has all the time that it needs to be made and to be removed.
        refused(test, &class, &[], &[&sentence]).await?;
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

/// A class whose pool has this capacity, once that is published everywhere; and in how many places
/// that is. What is published of a class that is gone stays for a while: each has its own name.
async fn with_pool(test: &Test, suffix: &str, capacity: &str) -> Result<(String, usize)> {
    let name = format!("{}-{suffix}", test.namespace);
    let pool = [("pool", name.as_str()), ("capacity", capacity)];
    let class = create_class_named(test, &name, "WaitForFirstConsumer", &pool).await?;
    let places = published(test, &class, capacity).await?;
    Ok((class, places))
}

/// Waits until the class has this capacity wherever capacities are known; returns in how many
/// places that is.
async fn published(test: &Test, class: &str, capacity: &str) -> Result<usize> {
    let api = Api::<CSIStorageCapacity>::all(test.cluster.client.clone());
    let what = "the capacity of the class";
    wait_for(what, Duration::from_secs(90), async || {
        let all = api.list(&ListParams::default()).await?.items;
        let of = |class: &str| -> Vec<String> {
            let named = all.iter().filter(|c| c.storage_class_name == class);
            named.filter_map(|c| Some(c.capacity.clone()?.0)).collect()
        };
        let (ours, places) = (of(class), of("csi-b").len());
        ensure!(
            places > 0 && ours == vec![capacity; places],
            "it is published in {places} places, there as {ours:?}"
        );
        Ok(places)
    })
    .await
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

async fn refused(
    test: &Test,
    class: &str,
    settings: &[(&str, &str)],
    sentences: &[&str],
) -> Result<()> {
    let before = versions(&test.cluster, &[&test.namespace]).await?;
    let outside = Outside::new(test).await?;
    let end = outside
        .run(["csi-now", class], &[&test.namespace], settings)
        .await?;
    end.expect(3, sentences)?.expect(3, &[UNCHANGED])?;
    // The volume of a trial that went well is its provisioner's to delete: the Job does not wait.
    no_trial_is_left(test).await?;
    let after = versions(&test.cluster, &[&test.namespace]).await?;
    ensure!(before == after, "it was {before:#?}\nand is {after:#?}");
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
