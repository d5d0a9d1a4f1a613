//! A fence that cannot be proved stops nothing, and the Job says why, by name.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use pvmigrate_e2e::{Test, bound, crash, create_policy, delete_policy, example, run_test};
use serde_json::json;

use super::halted::{said, start_job};
use super::no_webhook;

/// Staging, and the time that a fence has to come into force.
const LIMIT: Duration = Duration::from_secs(150);

/// What a Job says whose fence is the policy alone.
const ALONE: &str = "FENCED WITHOUT THE WEBHOOK: new pods and claims are refused, but nobody is kept from scaling or deleting what is stopped, or from deleting, resizing or snapshotting a claim";

/// What stands in the fence's way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Obstacle {
    NoPods,
    WrongCa,
    WrongPort,
    OtherWebhook,
    OtherPolicy,
}

#[tokio::test]
async fn a_fence_that_cannot_be_proved_stops_nothing_and_the_job_says_why() {
    run_test("fence-cause", async |test| {
        meet(test, Obstacle::NoPods).await
    })
    .await;
}

#[tokio::test]
#[ignore = "takes long; part of make test-long"]
async fn each_obstacle_of_a_fence_stops_nothing_and_the_job_says_which_it_is() {
    use Obstacle::{OtherPolicy, OtherWebhook, WrongCa, WrongPort};
    run_test("fence-causes", async |test| {
        let all = [WrongCa, WrongPort, OtherWebhook, OtherPolicy];
        try_join_all(all.map(|obstacle| meet(test, obstacle))).await?;
        Ok(())
    })
    .await;
}

/// Outside the cluster there need not be a webhook: its Job says loudly what the policy alone does
/// not refuse, and goes on.
#[tokio::test]
async fn outside_the_cluster_a_job_without_a_webhook_service_says_so_and_migrates() {
    run_test("fence-no-service", async |test| {
        let (cluster, namespace) = (&test.cluster, &test.namespace);
        crash::Kind::Deployment.create(cluster, namespace).await?;
        example::pods(cluster, namespace, &["data"]).await?;
        let release = crash::Release::install(cluster).await?;
        Api::<Service>::namespaced(cluster.client.clone(), &release.namespace)
            .delete("pvmigrate-webhook", &DeleteParams::default())
            .await?;
        let proxy = release.proxy().await?;
        let mut job = start_job(&release, &proxy, namespace)?;
        let status = job.wait(LIMIT).await?;
        let log = said(&release)?;
        ensure!(status.code() == Some(0), "{status}\n{log}");
        ensure!(log.contains(ALONE), "nothing says {ALONE:?}:\n{log}");
        example::pods(cluster, namespace, &["data"]).await?;
        let now = bound(cluster, namespace, "data").await?;
        ensure!(
            now.class() == cluster.classes[1],
            "it is of {}",
            now.class()
        );
        release.uninstall().await
    })
    .await;
}

async fn meet(test: &Test, obstacle: Obstacle) -> Result<()> {
    let cluster = &test.cluster;
    let client = cluster.client.clone();
    let namespace = test.new_namespace("fence-causes").await?;
    crash::Kind::Deployment.create(cluster, &namespace).await?;
    let pods = example::pods(cluster, &namespace, &["data"]).await?;
    let volume = bound(cluster, &namespace, "data").await?.volume.name_any();
    let release = crash::Release::install(cluster).await?;
    let says = put_in_the_way(test, &release, &namespace, obstacle).await?;

    let proxy = release.proxy().await?;
    let mut job = start_job(&release, &proxy, &namespace)?;
    let status = job.wait(LIMIT).await?;
    let log = said(&release)?;
    ensure!(status.code() == Some(4), "{obstacle:?}: {status}\n{log}");
    let begin = format!("the fence of claim {namespace}/data could not be proved in 30 s: {says}");
    ensure!(
        log.contains(&begin),
        "{obstacle:?}: nothing says {begin:?}:\n{log}"
    );
    ensure!(
        log.contains("; nothing was stopped"),
        "{obstacle:?}:\n{log}"
    );
    for line in log
        .lines()
        .filter(|line| line.contains("failed; its applications"))
    {
        println!("{obstacle:?}: {line}");
    }

    let app = Api::<Deployment>::namespaced(client.clone(), &namespace)
        .get("app")
        .await?;
    ensure!(
        app.metadata.generation == Some(1),
        "{obstacle:?}: the Deployment was changed"
    );
    ensure!(
        example::pods(cluster, &namespace, &["data"]).await? == pods,
        "another pod runs"
    );
    ensure!(
        bound(cluster, &namespace, "data").await?.volume.name_any() == volume,
        "another volume"
    );
    take_away(&client, &namespace, obstacle).await?;
    release.uninstall().await
}

/// Puts it there; what the Job has to say of it.
async fn put_in_the_way(
    test: &Test,
    release: &crash::Release,
    namespace: &str,
    obstacle: Obstacle,
) -> Result<String> {
    let client = test.cluster.client.clone();
    let ours = &release.namespace;
    let (merge, post) = (PatchParams::default(), PostParams::default());
    let services = Api::<Service>::namespaced(client.clone(), ours);
    let service = format!("{ours}/pvmigrate-webhook");
    let probes = json!({"matchLabels": {"pvmigrate.io/role": "probe"}});
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let pods = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    Ok(match obstacle {
        Obstacle::NoPods => {
            no_webhook(test, ours).await?;
            format!("no pod is behind Service {service}: ")
        }
        Obstacle::WrongPort => {
            let one = json!({"spec": {"ports": [{"name": "https", "port": 443, "targetPort": 1}]}});
            services
                .patch("pvmigrate-webhook", &merge, &Patch::Merge(one))
                .await?;
            "the API server cannot reach the webhook, though pvmigrate-webhook-".into()
        }
        Obstacle::WrongCa => {
            let other = crash::Release::install(&test.cluster).await?;
            let (_, wrong) = ca(&client, &other.namespace).await?;
            let (name, _) = ca(&client, ours).await?;
            let secrets = Api::<Secret>::namespaced(client, ours);
            let data = json!({"data": {"ca.crt": wrong}});
            secrets.patch(&name, &merge, &Patch::Merge(data)).await?;
            other.uninstall().await?;
            format!("the webhook's certificate is not one of the CA in Secret {ours}/{name}: ")
        }
        Obstacle::OtherWebhook => {
            let configuration = json!({"metadata": {"name": namespace}, "webhooks": [{
                "name": "strict.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"service": {"name": "none", "namespace": namespace}},
                "namespaceSelector": here, "objectSelector": probes, "rules": pods,
            }]});
            Api::<ValidatingWebhookConfiguration>::all(client)
                .create(&post, &serde_json::from_value(configuration)?)
                .await?;
            "webhook strict.example.org does not answer, so that no pod can be made there: ".into()
        }
        Obstacle::OtherPolicy => {
            let spec = json!({
                "matchConstraints": {"namespaceSelector": here, "objectSelector": probes, "resourceRules": pods},
                "validations": [{"expression": "false", "message": "this test refuses probes"}],
            });
            create_policy(&client, namespace, spec).await?;
            format!("policy {namespace} stands before it and refuses the pod that is tried: ")
        }
    })
}

async fn take_away(client: &Client, namespace: &str, obstacle: Obstacle) -> Result<()> {
    if obstacle == Obstacle::OtherWebhook {
        let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
        api.delete(namespace, &DeleteParams::default()).await?;
    } else if obstacle == Obstacle::OtherPolicy {
        delete_policy(client, namespace).await?;
    }
    Ok(())
}

/// The Secret with a release's CA, and the CA.
async fn ca(client: &Client, namespace: &str) -> Result<(String, ByteString)> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let all = api.list(&ListParams::default()).await?;
    let found = all.items.into_iter().find_map(|secret| {
        let name = secret.name_any();
        Some((name, secret.data?.remove("ca.crt")?))
    });
    found.context("no Secret with a CA")
}
