//! What others are refused while a migration is under way, and what they are not.

mod causes;
mod gone;
mod halted;
mod passing;
mod repair;
mod replaced;
pub mod requests;
mod rotation;
mod rules;

use std::collections::BTreeMap;
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
use pvmigrate_record::{names, record, refusal};
use serde_json::json;

use requests::{Ask, at, claim_spec, create, object, patch, pod_spec};

const CLAIMS: [&str; 2] = ["data-db-0", "web"];

/// An application that ends when it is told to, and not before: as long as the test needs.
const RELUCTANT: &str = "trap 'until [ -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM
while :; do sleep 0.2; done";

#[tokio::test]
async fn nobody_can_use_a_claim_or_start_a_workload_that_is_under_migration() {
    run_test("fence", async |test| {
        let (release, user) = frozen_halfway(test).await?;
        let run = release.report().await?["run"]
            .as_str()
            .context("no run")?
            .to_string();
        let of = record::Release {
            namespace: release.namespace.clone(),
            name: release.name.clone(),
        };
        let (follow, dest) = (refusal::follow(&of, &run), &test.cluster.classes[1]);
        let fence = names::fence_object(&of);
        let by =
            format!("ValidatingAdmissionPolicy '{fence}' with binding '{fence}' denied request: ");
        for name in CLAIMS {
            let about = format!(
                "pvmigrate is migrating claim {}/{name} to StorageClass {dest} (run {run}): ",
                test.namespace
            );
            let rule = "no pod may mount it until that is done";
            let message = format!("pods \"guest\" is forbidden: {by}{about}{rule}; {follow}");
            mounting(test, name).refused(&user, &message).await?;
            let rule = "no other claim may take its name until that is done";
            let message = format!(
                "persistentvolumeclaims \"{name}\" is forbidden: {by}{about}{rule}; {follow}"
            );
            claiming(test, name).refused(&user, &message).await?;
        }
        let as_user = format!("--as=system:serviceaccount:{}:user", test.namespace);
        let refused = test
            .cluster
            .kubectl(&[
                "scale",
                "deployment/web",
                "--replicas=1",
                "-n",
                &test.namespace,
                &as_user,
            ])
            .await?;
        ensure!(
            refused.code == Some(1) && refused.stderr.contains("pvmigrate stops deployments "),
            "{refused:?}"
        );
        replaced::is_refused(test, &halted::records(test).await?).await?;

        let_go(test).await?;
        release.ended().await?.expect(0, &[])?;
        moved(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        for name in CLAIMS {
            mounting(test, name)
                .passes(&user)
                .await
                .context("a pod after the run")?;
        }
        for workload in ["deployments/web", "statefulsets/db"] {
            let two = json!({"spec": {"replicas": 2}});
            let path = at(test, "apps/v1", workload);
            patch(path.clone(), two.clone())
                .passes(&user)
                .await
                .context("after the run")?;
            patch(format!("{path}/scale"), two)
                .passes(&user)
                .await
                .context("after the run")?;
        }
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn without_a_webhook_pod_the_policy_refuses_and_the_migration_goes_on_to_its_end() {
    run_test("fence-without-webhook", async |test| {
        let (release, user) = frozen_halfway(test).await?;
        no_webhook(test, &release.namespace).await?;
        for name in CLAIMS {
            let sentence = format!("pvmigrate is migrating claim {}/{name} to ", test.namespace);
            requests::expect_refusal(mounting(test, name).of(&user).await, &sentence)?;
            requests::expect_refusal(claiming(test, name).of(&user).await, &sentence)?;
        }
        let_go(test).await?;
        release.ended().await?.expect(0, &[])?;
        moved(test).await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

fn mounting(test: &Test, claim: &str) -> Ask {
    let pod = object("v1", "Pod", "guest", pod_spec(&[claim]));
    create(at(test, "v1", "pods"), pod)
}

fn claiming(test: &Test, name: &str) -> Ask {
    let spec = claim_spec(&test.cluster.classes[0], json!({}));
    let claim = object("v1", "PersistentVolumeClaim", name, spec);
    create(at(test, "v1", "persistentvolumeclaims"), claim)
}

/// Ends all webhook pods of a release.
pub async fn no_webhook(test: &Test, namespace: &str) -> Result<()> {
    let webhook = "deployment/pvmigrate-webhook";
    test.cluster
        .kubectl(&["scale", webhook, "--replicas=0", "-n", namespace])
        .await?
        .success()?;
    let pods = kube::Api::<Pod>::namespaced(test.cluster.client.clone(), namespace);
    wait_for(
        "the webhook's pods to be gone",
        Duration::from_secs(90),
        async || {
            let of_webhook = ListParams::default().labels("app.kubernetes.io/component=webhook");
            let left = pods.list(&of_webhook).await?.items;
            ensure!(left.is_empty(), "there are {}", left.len());
            Ok(())
        },
    )
    .await
}

/// A Deployment and a StatefulSet with a claim each, that are told to stop and do not yet. The
/// set's owner asks for this way to stop it.
pub async fn applications(test: &Test, set: &str, freeze: &str) -> Result<()> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    let mut db = stateful_set(set, 1, class, image, RELUCTANT, &[mount("data")]);
    let asked = BTreeMap::from([(names::FREEZE.to_string(), freeze.to_string())]);
    db.metadata.annotations = Some(asked);
    let mut web = deployment("web", image, RELUCTANT, &[mount("web")]);
    let templates = [
        db.spec
            .as_mut()
            .and_then(|spec| spec.template.spec.as_mut()),
        web.spec
            .as_mut()
            .and_then(|spec| spec.template.spec.as_mut()),
    ];
    for spec in templates.into_iter().flatten() {
        let spec: &mut PodSpec = spec;
        spec.termination_grace_period_seconds = Some(300);
    }
    test.create(&claim("web", class)).await?;
    test.create(&web).await?;
    test.create(&db).await?;
    let claims = ["web".to_string(), format!("data-{set}-0")];
    let claims: Vec<&str> = claims.iter().map(String::as_str).collect();
    example::pods(&test.cluster, &test.namespace, &claims).await?;
    Ok(())
}

/// A client with a user's rights in the test's namespace.
pub async fn user(test: &Test) -> Result<Client> {
    let (namespace, account) = (&test.namespace, format!("{}:user", test.namespace));
    for arguments in [
        vec!["create", "serviceaccount", "user", "-n", namespace],
        vec![
            "create",
            "rolebinding",
            "user",
            "-n",
            namespace,
            "--clusterrole=admin",
            "--serviceaccount",
            &account,
        ],
    ] {
        test.cluster.kubectl(&arguments).await?.success()?;
    }
    Ok(Client::try_from(
        test.cluster.config_as(namespace, "user").await?,
    )?)
}

/// Waits until both applications are told to stop.
pub async fn all_stopped(test: &Test, set: &str) -> Result<()> {
    wait_for(
        "both workloads to be stopped",
        Duration::from_secs(120),
        async || {
            let web = test.api::<Deployment>().get("web").await?;
            let set = test.api::<StatefulSet>().get(set).await?;
            let marks = [&web.metadata, &set.metadata].map(|meta| {
                let annotations = meta.annotations.as_ref();
                annotations.is_some_and(|all| all.contains_key(names::FROZEN))
            });
            ensure!(marks == [true, true], "frozen: {marks:?}");
            Ok(())
        },
    )
    .await
}

/// Both applications in the middle of a migration, and a user.
pub async fn frozen_halfway(test: &Test) -> Result<(Release, Client)> {
    applications(test, "db", "auto").await?;
    let user = user(test).await?;
    let namespace = test.new_namespace("release").await?;
    let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
    // Both at a time, though they may be on one node.
    let values = "timeouts.podReadySeconds=60,parallelism.stoppedPerNode=2";
    release.start(&["--set", values]).await?;
    all_stopped(test, "db").await?;
    Ok((release, user))
}

/// Lets the applications end.
pub async fn let_go(test: &Test) -> Result<()> {
    for pod in test.api::<Pod>().list(&ListParams::default()).await? {
        let labels = pod.metadata.labels.unwrap_or_default();
        if let (Some(name), true) = (&pod.metadata.name, labels.contains_key("app")) {
            // Not at once: it would end this shell too.
            test.exec(name, "(sleep 0.5; touch /tmp/go) >/dev/null 2>&1 &")
                .await?;
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
