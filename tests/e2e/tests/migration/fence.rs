//! What others are refused while a migration is under way, and what they are not.

mod requests;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Client;
use kube::api::ListParams;
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, stateful_set,
    wait_for,
};
use pvmigrate_record::record::{self, Workload};
use pvmigrate_record::{names, refusal};

use requests::{claiming, expect_refusal, label, mounting, patch, replicas, scale};

const CLAIMS: [&str; 2] = ["data-db-0", "web"];

/// An application that ends when it is told to, and not before: as long as the test needs.
const RELUCTANT: &str = "trap 'until [ -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM
while :; do sleep 0.2; done";

#[tokio::test]
async fn nobody_can_use_a_claim_or_start_a_workload_that_is_under_migration() {
    run_test("fence", async |test| {
        let (release, user) = frozen_halfway(test).await?;
        let run = release.report().await?["run"].as_str().context("no run")?.to_string();
        let of = record::Release { namespace: release.namespace.clone(), name: release.name.clone() };
        let (follow, dest) = (refusal::follow(&of, &run), &test.cluster.classes[1]);

        for name in CLAIMS {
            let about = format!(
                "pvmigrate is migrating claim {}/{name} to StorageClass {dest} (run {run}): ",
                test.namespace
            );
            let rule = "no pod may mount it until that is done";
            expect_refusal(mounting(test, &user, name).await, &format!("{about}{rule}; {follow}"))?;
            let rule = "no other claim may take its name until that is done";
            expect_refusal(claiming(test, &user, name).await, &format!("{about}{rule}; {follow}"))?;
        }
        for (kind, workload, name) in [("Deployment", "web", "web"), ("StatefulSet", "db", "data-db-0")] {
            let stopped = Workload {
                kind: kind.into(),
                namespace: test.namespace.clone(),
                name: workload.into(),
                uid: String::new(),
            };
            let sentence = format!(
                "pvmigrate stops {stopped} while it migrates claim {}/{name} to StorageClass {dest} (run {run}, Fenced): it will be scaled back up by itself when that is done; {follow}",
                test.namespace
            );
            expect_refusal(scale(test, &user, kind, workload, 1).await, &sentence)?;
            expect_refusal(patch(test, &user, kind, workload, replicas(1)).await, &sentence)?;
            scale(test, &user, kind, workload, 0).await.context("scaling down")?;
            patch(test, &user, kind, workload, label("edited")).await.context("a label")?;
        }
        let as_user = format!("--as=system:serviceaccount:{}:user", test.namespace);
        let refused = test.cluster
            .kubectl(&["scale", "deployment/web", "--replicas=1", "-n", &test.namespace, &as_user])
            .await?;
        ensure!(
            refused.code == Some(1) && refused.stderr.contains("pvmigrate stops Deployment "),
            "{refused:?}"
        );

        let_go(test).await?;
        release.ended().await?.expect(0, &[])?;
        moved(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        for name in CLAIMS {
            mounting(test, &user, name).await.context("a pod after the run")?;
        }
        scale(test, &user, "Deployment", "web", 2).await.context("scaling up after the run")?;
        scale(test, &user, "StatefulSet", "db", 2).await.context("scaling up after the run")?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn without_a_webhook_pod_the_policy_refuses_and_the_migration_goes_on_to_its_end() {
    run_test("fence-without-webhook", async |test| {
        let (release, user) = frozen_halfway(test).await?;
        test.cluster
            .kubectl(&[
                "scale",
                "deployment/pvmigrate-webhook",
                "--replicas=0",
                "-n",
                &release.namespace,
            ])
            .await?
            .success()?;
        wait_for(
            "the webhook's pods to be gone",
            Duration::from_secs(40),
            async || {
                let pods = release
                    .api::<Pod>()
                    .list(&ListParams::default().labels("app.kubernetes.io/component=webhook"))
                    .await?;
                ensure!(pods.items.is_empty(), "there are {}", pods.items.len());
                Ok(())
            },
        )
        .await?;
        for name in CLAIMS {
            let sentence = format!("pvmigrate is migrating claim {}/{name} to ", test.namespace);
            expect_refusal(mounting(test, &user, name).await, &sentence)?;
            expect_refusal(claiming(test, &user, name).await, &sentence)?;
        }
        let_go(test).await?;
        release.ended().await?.expect(0, &[])?;
        moved(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

/// Two applications under migration that are told to stop and do not yet; and a client with a
/// user's rights.
async fn frozen_halfway(test: &Test) -> Result<(Release, Client)> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    let mut set = stateful_set("db", 1, class, image, RELUCTANT, &[mount("data")]);
    let mut web = deployment("web", image, RELUCTANT, &[mount("web")]);
    let templates = [
        set.spec
            .as_mut()
            .and_then(|spec| spec.template.spec.as_mut()),
        web.spec
            .as_mut()
            .and_then(|spec| spec.template.spec.as_mut()),
    ];
    for spec in templates.into_iter().flatten() {
        let spec: &mut PodSpec = spec;
        spec.termination_grace_period_seconds = Some(120);
    }
    test.create(&claim("web", class)).await?;
    test.create(&web).await?;
    test.create(&set).await?;
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;

    let (namespace, account) = (&test.namespace, format!("{}:user", test.namespace));
    for arguments in [
        vec!["create", "serviceaccount", "user", "-n", namespace],
        vec![
            "create",
            "rolebinding",
            "user",
            "-n",
            namespace,
            "--clusterrole=edit",
            "--serviceaccount",
            &account,
        ],
    ] {
        test.cluster.kubectl(&arguments).await?.success()?;
    }
    let user = Client::try_from(test.cluster.config_as(namespace, "user").await?)?;

    let release = Release::new(
        &test.cluster,
        &test.new_namespace("release").await?,
        &[namespace],
    );
    release
        .start(&["--set", "timeouts.podReadySeconds=60"])
        .await?;
    wait_for(
        "both workloads to be stopped",
        Duration::from_secs(60),
        async || {
            let web = test.api::<Deployment>().get("web").await?;
            let set = test.api::<StatefulSet>().get("db").await?;
            let marks = [&web.metadata, &set.metadata].map(|meta| {
                meta.annotations
                    .as_ref()
                    .is_some_and(|all| all.contains_key(names::FROZEN))
            });
            ensure!(marks == [true, true], "frozen: {marks:?}");
            Ok(())
        },
    )
    .await?;
    Ok((release, user))
}

/// Lets the applications end.
async fn let_go(test: &Test) -> Result<()> {
    for pod in test.api::<Pod>().list(&ListParams::default()).await? {
        let labels = pod.metadata.labels.unwrap_or_default();
        if let (Some(name), true) = (&pod.metadata.name, labels.contains_key("app")) {
            test.exec(name, "touch /tmp/go").await?;
        }
    }
    Ok(())
}

async fn moved(test: &Test) -> Result<()> {
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    for name in CLAIMS {
        let now = bound(&test.cluster, &test.namespace, name).await?;
        ensure!(
            now.class() == test.cluster.classes[1],
            "claim {name} is of {}",
            now.class()
        );
    }
    Ok(())
}
