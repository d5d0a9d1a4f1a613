//! Runs that are asked for more than once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, settled, stay,
};

use super::preflight::no_trial_is_left;

#[tokio::test]
async fn a_run_that_is_complete_changes_nothing_however_it_is_asked_for_again() {
    run_test("again", async |test| {
        deploy(test, "web").await?;
        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        let (job, after) = (release.job().await?, versions(test).await?);

        release.upgrade(&[]).await?;
        ensure!(
            release.job().await?.uid() == job.uid(),
            "an equal upgrade made another Job"
        );

        release
            .api::<Job>()
            .delete(&job.name_any(), &DeleteParams::background())
            .await?;
        apply_template(test, &release).await?;
        let again = release.job().await?;
        ensure!(
            again.name_any() == job.name_any() && again.uid() != job.uid(),
            "the template made no new Job"
        );
        release
            .ended()
            .await?
            .expect(0, &["this run is complete; nothing to do"])?;

        release.upgrade(&["--set", "log=debug"]).await?;
        ensure!(
            release.job().await?.name_any() != job.name_any(),
            "no other Job for other values"
        );
        release
            .ended()
            .await?
            .expect(0, &["this run is complete; nothing to do"])?;

        ensure!(
            versions(test).await? == after,
            "{after:?} became {:?}",
            versions(test).await?
        );
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn claims_that_come_later_are_named_and_moved_with_another_token() {
    run_test("later", async |test| {
        let dest = &test.cluster.classes[1];
        deploy(test, "web").await?;
        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release.start(&[]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        let web = bound(&test.cluster, &test.namespace, "web").await?;

        deploy(test, "late").await?;
        release.upgrade(&["--set", "log=debug"]).await?;
        let sentence = format!(
            "this run is complete and did not cover {}/late; set another runToken to move them",
            test.namespace
        );
        release.ended().await?.expect(0, &[&sentence])?;

        release.upgrade(&["--set-string", "runToken=2"]).await?;
        release.ended().await?.expect(0, &["migrated"])?;
        let late = bound(&test.cluster, &test.namespace, "late").await?;
        ensure!(
            late.class() == dest,
            "the late claim is of {}",
            late.class()
        );
        let now = bound(&test.cluster, &test.namespace, "web").await?;
        ensure!(
            now.claim.uid() == web.claim.uid(),
            "the first claim was moved again"
        );
        let report = release.report().await?;
        let claims: Vec<&String> = report["claims"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect();
        ensure!(
            claims == [&format!("{}/late", test.namespace)],
            "the report is about {claims:?}"
        );
        release.uninstall().await
    })
    .await;
}

/// A Deployment with a claim, both of this name.
async fn deploy(test: &Test, name: &str) -> Result<()> {
    test.create(&claim(name, &test.cluster.classes[0])).await?;
    let script = stay(&format!("[ -e /{name}/file ] || echo data >/{name}/file"));
    let image = &test.cluster.tools_image;
    test.create(&deployment(name, image, &script, &[mount(name)]))
        .await?;
    example::pods(&test.cluster, &test.namespace, &[name]).await?;
    Ok(())
}

/// `helm template … | kubectl apply -f -`
async fn apply_template(test: &Test, release: &Release) -> Result<()> {
    let manifests = release.helm("template", &[]).await?.success()?;
    let file = std::env::temp_dir().join(format!("{}.yaml", release.namespace));
    std::fs::write(&file, manifests)?;
    let name = file.display().to_string();
    let applied = test
        .cluster
        .kubectl(&[
            "apply",
            "--namespace",
            &release.namespace,
            "--filename",
            &name,
        ])
        .await;
    std::fs::remove_file(&file)?;
    applied?.success()?;
    Ok(())
}

/// The resourceVersions of all that a run could change: claims, their old and new volumes,
/// workloads.
async fn versions(test: &Test) -> Result<BTreeMap<String, Option<String>>> {
    settled(&test.cluster, &test.namespace).await?;
    no_trial_is_left(test).await?;
    let all = ListParams::default();
    let mut versions = BTreeMap::new();
    for claim in test.api::<PersistentVolumeClaim>().list(&all).await? {
        versions.insert(
            format!("claim {}", claim.name_any()),
            claim.resource_version(),
        );
    }
    for workload in test.api::<Deployment>().list(&all).await? {
        versions.insert(
            format!("deployment {}", workload.name_any()),
            workload.resource_version(),
        );
    }
    for volume in Api::<PersistentVolume>::all(test.cluster.client.clone())
        .list(&all)
        .await?
    {
        let held = volume
            .spec
            .as_ref()
            .and_then(|spec| spec.claim_ref.as_ref());
        if held.is_some_and(|held| held.namespace.as_ref() == Some(&test.namespace)) {
            versions.insert(
                format!("volume {}", volume.name_any()),
                volume.resource_version(),
            );
        }
    }
    ensure!(
        versions.len() == 4,
        "a claim, a Deployment and two volumes: {versions:?}"
    );
    Ok(versions)
}
