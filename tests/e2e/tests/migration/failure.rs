//! A claim that cannot be moved.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, stay,
};

/// An attribute of this size fits into XFS, and into no block of ext4.
const TOO_LARGE: &str =
    "setfattr -n user.large -v $(head -c 20000 /dev/zero | tr '\\0' x) /bad/folder/file";

#[tokio::test]
async fn a_claim_that_cannot_be_copied_stays_on_its_source_and_the_others_are_moved() {
    run_test("failure", async |test| {
        // The other way round than other tests: XFS holds more than ext4.
        let [dest, source] = test.cluster.classes.clone();
        for name in ["bad", "good"] {
            test.create(&claim(name, &source)).await?;
            let script = stay(&format!("mkdir -p /{name}/folder; [ -e /{name}/folder/file ] || echo {name} >/{name}/folder/file"));
            let image = &test.cluster.tools_image;
            test.create(&deployment(name, image, &script, &[mount(name)])).await?;
        }
        let pods = example::pods(&test.cluster, &test.namespace, &["bad", "good"]).await?;
        test.exec(&pods["bad"], TOO_LARGE).await.context("this test needs XFS and ext4")?;
        let before = bound(&test.cluster, &test.namespace, "bad").await?;
        let running = pods["bad"].clone();

        let namespace = test.new_namespace("release").await?;
        let classes = [source.clone(), dest.clone()];
        let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        let why = format!("the copy of claim {}/bad failed on 1 paths: folder/file: ", test.namespace);
        release.ended().await?.expect(4, &[&why, "failed; its applications run on their sources"])?;
        let pod = expect_on_source(test, before.claim.metadata.uid.as_ref()).await?;
        ensure!(pod == running, "its application was stopped for a copy that could not be made");
        ensure!(read(test, "good").await? == "good", "the other application has lost its data");
        let good = bound(&test.cluster, &test.namespace, "good").await?;
        ensure!(good.class() == dest, "the other claim is of {}", good.class());
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;

        let report = release.report().await?;
        let line = &report["claims"][format!("{}/bad", test.namespace)];
        ensure!(report["state"] == "failed" && line["outcome"] == "failed", "{report}");
        ensure!(line["failure"].as_str().is_some_and(|said| said.contains(&why)), "{line}");
        let unused = line["destinationVolume"].as_str().context("no destination in the report")?;
        let volumes = Api::<PersistentVolume>::all(test.cluster.client.clone());
        ensure!(volumes.get_opt(unused).await?.is_none(), "the unused destination {unused} is left");

        // The same run again: it does not stop the application a second time.
        let generation = test.api::<Deployment>().get("bad").await?.metadata.generation;
        release.upgrade(&["--set", "log=debug"]).await?;
        release.ended().await?.expect(4, &["set retryFailed to try it again"])?;
        let now = test.api::<Deployment>().get("bad").await?.metadata.generation;
        ensure!(generation == now, "its Deployment was changed");
        ensure!(expect_on_source(test, before.claim.metadata.uid.as_ref()).await? == pod, "its pod was replaced");

        test.exec(&pod, "setfattr -x user.large /bad/folder/file").await?;
        release.upgrade(&["--set", "retryFailed=true"]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        ensure!(read(test, "bad").await? == "bad", "its data is lost");
        let bad = bound(&test.cluster, &test.namespace, "bad").await?;
        ensure!(bad.class() == dest, "the claim is of {}", bad.class());
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

/// The claim is the object that it was, on the volume that it had, and its pod, which is returned,
/// runs with its data. The volume has its old policy.
async fn expect_on_source(test: &Test, uid: Option<&String>) -> Result<String> {
    let now = bound(&test.cluster, &test.namespace, "bad").await?;
    ensure!(now.claim.uid().as_ref() == uid, "the claim was made again");
    ensure!(
        now.class() == test.cluster.classes[1],
        "the claim is of {}",
        now.class()
    );
    ensure!(
        now.reclaim_policy() == "Delete",
        "its volume has policy {}",
        now.reclaim_policy()
    );
    ensure!(
        read(test, "bad").await? == "bad",
        "the application has lost its data"
    );
    let mut pods = example::pods(&test.cluster, &test.namespace, &["bad"]).await?;
    pods.remove("bad").context("no pod")
}

async fn read(test: &Test, name: &str) -> Result<String> {
    let pods = example::pods(&test.cluster, &test.namespace, &[name]).await?;
    let printed = test
        .exec(&pods[name], &format!("cat /{name}/folder/file"))
        .await?;
    Ok(printed.trim_end().into())
}
