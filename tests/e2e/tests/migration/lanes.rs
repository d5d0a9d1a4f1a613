//! The pods of one StatefulSet, one after another: and none after one that did not end well.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Release, Test, bound, example, leftovers, mount, run_test, stateful_set, stay,
};
use pvmigrate_record::names;

const CLAIMS: [&str; 3] = ["data-db-0", "data-db-1", "data-db-2"];

/// An attribute of this size fits into XFS, and into no block of ext4.
const TOO_LARGE: &str =
    "setfattr -n user.large -v $(head -c 20000 /dev/zero | tr '\\0' x) /data/file";

#[tokio::test]
async fn the_rest_of_a_set_stays_when_one_of_its_pods_cannot_be_moved() {
    run_test("lane", async |test| {
        // The other way round than other tests: XFS holds more than ext4.
        let [dest, source] = test.cluster.classes.clone();
        let script = stay("[ -e /data/file ] || hostname >/data/file");
        let image = &test.cluster.tools_image;
        test.create(&stateful_set("db", 3, &source, image, &script, &[mount("data")])).await?;
        let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        test.exec(&pods["data-db-1"], TOO_LARGE).await.context("this test needs XFS and ext4")?;
        let before = uids(test).await?;

        let namespace = test.new_namespace("release").await?;
        let classes = [source.clone(), dest.clone()];
        let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        let shop = &test.namespace;
        let rest = format!("pod {shop}/db-1 of the same set did not end well, so this one stays on its old volumes; set retryFailed to try it again");
        release.ended().await?.expect(
            4,
            &[
                &format!("StatefulSet {shop}/db is held at pod db-2: its pods mount only their own claims"),
                &format!("the copy of claim {shop}/data-db-1 failed on 1 paths: file: "),
                &rest,
            ],
        )?;
        let now = uids(test).await?;
        ensure!(now["db-2"] != before["db-2"], "db-2 was not moved");
        // A warm pass has found it out, before anything was stopped for it.
        ensure!(now["db-1"] == before["db-1"], "db-1 was stopped in vain");
        ensure!(now["db-0"] == before["db-0"], "db-0 was stopped");
        classes_are(test, [&source, &source, &dest]).await?;
        let report = release.report().await?;
        let line = &report["claims"][format!("{shop}/data-db-0")];
        ensure!(line["outcome"] == "failed" && line["failure"] == rest.as_str(), "{line}");
        ensure!(line["dispose"].is_null(), "the volume of a running pod is to be disposed of: {line}");
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        let volume = bound(&test.cluster, shop, "data-db-0").await?;
        ensure!(volume.reclaim_policy() == "Delete", "its volume has policy {}", volume.reclaim_policy());

        // The same run again begins nothing.
        release.upgrade(&["--set", "log=debug"]).await?;
        release.ended().await?.expect(4, &["set retryFailed to try it again"])?;
        ensure!(uids(test).await? == now, "a pod was stopped");

        // Without warm passes the final one finds it out: the pod is stopped, and comes back.
        release.upgrade(&["--set", "retryFailed=true,warm=false"]).await?;
        release.ended().await?.expect(4, &[&format!("the copy of claim {shop}/data-db-1 failed on 1 paths: file: "), &rest])?;
        let after = uids(test).await?;
        ensure!(after["db-1"] != now["db-1"], "db-1 was never stopped");
        ensure!(after["db-0"] == now["db-0"], "db-0 was stopped");
        ensure!(after["db-2"] == now["db-2"], "db-2 was stopped again");
        classes_are(test, [&source, &source, &dest]).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;

        let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        test.exec(&pods["data-db-1"], "setfattr -x user.large /data/file").await?;
        release.upgrade(&["--set", "retryFailed=true"]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        classes_are(test, [&dest, &dest, &dest]).await?;
        let last = uids(test).await?;
        ensure!(last["db-2"] == now["db-2"], "db-2 was stopped again");
        let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        for (claim, pod) in pods {
            let text = test.exec(&pod, "cat /data/file").await?;
            ensure!(text.trim_end() == pod, "{claim} holds {text:?}");
        }
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn waves_go_one_after_another_and_groups_no_more_at_a_time_than_asked_for() {
    run_test("waves", async |test| {
        let class = &test.cluster.classes[0];
        let waves = [("early", "-1"), ("late", "7"), ("middle", "0")];
        for (name, wave) in waves {
            let mut claim = pvmigrate_e2e::claim(name, class);
            claim
                .annotations_mut()
                .insert(names::WAVE.into(), wave.into());
            test.create(&claim).await?;
            let image = &test.cluster.tools_image;
            let web = pvmigrate_e2e::deployment(name, image, &stay(""), &[mount(name)]);
            test.create(&web).await?;
        }
        example::pods(&test.cluster, &test.namespace, &waves.map(|(name, _)| name)).await?;
        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        let mut times = BTreeMap::new();
        for (name, _) in waves {
            times.insert(name, times_of(test, name).await?);
        }
        for (first, second) in [("early", "middle"), ("middle", "late")] {
            let (done, staged) = (&times[first]["Done"], &times[second]["Staged"]);
            ensure!(
                done < staged,
                "{first} was done at {done}, {second} staged at {staged}"
            );
        }
        release.uninstall().await
    })
    .await;
}

async fn uids(test: &Test) -> Result<BTreeMap<String, String>> {
    let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    let mut all = BTreeMap::new();
    for name in pods.into_values() {
        let pod = test.api::<Pod>().get(&name).await?;
        all.insert(name, pod.uid().context("no UID")?);
    }
    Ok(all)
}

async fn classes_are(test: &Test, expected: [&String; 3]) -> Result<()> {
    for (claim, expected) in CLAIMS.iter().zip(expected) {
        let now = bound(&test.cluster, &test.namespace, claim).await?;
        ensure!(now.class() == *expected, "{claim} is of {}", now.class());
    }
    Ok(())
}

/// When the migration of a claim reached its phases, by the record on its source.
async fn times_of(test: &Test, claim: &str) -> Result<BTreeMap<String, String>> {
    let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
    let all = volumes.list(&kube::api::ListParams::default()).await?;
    let records = all.iter().filter_map(|volume| {
        let json = volume.annotations().get(names::RECORD)?;
        serde_json::from_str::<serde_json::Value>(json).ok()
    });
    let record = records
        .into_iter()
        .find(|record| {
            record["claim"]["namespace"] == test.namespace.as_str()
                && record["claim"]["name"] == claim
        })
        .context("no record")?;
    let times: BTreeMap<String, String> = serde_json::from_value(record["times"].clone())?;
    // As texts in the order of time: the fraction of a second has as many digits as it needs.
    let sorted = |at: String| {
        let at = at.trim_end_matches('Z');
        if at.contains('.') {
            at.to_string()
        } else {
            format!("{at}.")
        }
    };
    let times = times.into_iter();
    Ok(times.map(|(phase, at)| (phase, sorted(at))).collect())
}
