//! Another release that is at work on the same claims.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use pvmigrate_e2e::{
    Outside, Release, bound, claim, deployment, example, mount, run_test, stay, wait_for,
};
use pvmigrate_record::names;
use pvmigrate_record::record::Record;

use super::UNCHANGED;

#[tokio::test]
async fn a_claim_that_another_release_is_moving_is_left_to_it() {
    run_test("releases", async |test| {
        let [from, to] = &test.cluster.classes;
        test.create(&claim("data", from)).await?;
        let image = &test.cluster.tools_image;
        test.create(&deployment("app", image, &stay(""), &[mount("data")]))
            .await?;
        example::pods(&test.cluster, &test.namespace, &["data"]).await?;

        // No node has as much: the mover of the other release stays Pending.
        let namespace = test.new_namespace("release").await?;
        let other = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        let wait = "mover.resources.requests.cpu=900,skipPreflight=true";
        other.start(&["--set", wait]).await?;
        let movers = format!("{}={}", names::ROLE, names::ROLE_MOVER);
        let movers = ListParams::default().labels(&movers);
        wait_for("the other's mover", Duration::from_secs(120), async || {
            let found = test.api::<Pod>().list(&movers).await?.items;
            ensure!(!found.is_empty(), "there is none");
            Ok(())
        })
        .await?;
        let record = async || -> anyhow::Result<Record> {
            let volume = bound(&test.cluster, &test.namespace, "data").await?.volume;
            let record = volume.annotations().get(names::RECORD).cloned();
            Ok(Record::parse(&record.unwrap_or_default())?)
        };
        let before = record().await?;

        let outside = Outside::new(test).await?;
        let end = outside.run([from, to], &[&test.namespace], &[]).await?;
        let sentence = format!(
            "releases: claim {}/data is under migration by release {namespace}/pvmigrate (run {}, Planned): wait for it",
            test.namespace, before.run
        );
        let sentence = sentence.trim_start_matches("releases: ");
        end.expect(3, &[sentence, "check=\"releases\"", UNCHANGED])?;
        ensure!(record().await? == before, "the other's record has changed");
        let found = test.api::<Pod>().list(&movers).await?.items;
        ensure!(found.len() == 1, "there are {} movers", found.len());
        outside.remove().await?;
        other.uninstall().await
    })
    .await;
}
