//! How much longer a request takes on a real API server while a fence is up. Figures, by hand:
//! `cargo test -p pvmigrate-e2e --test fence_cost -- --ignored --nocapture`

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use pvmigrate_e2e::{
    Mount, Release, Test, claim, deployment, example, mount, pod, run_test, wait_for,
};
use pvmigrate_record::names;
use serde_json::json;

/// How often each request is made, and how often before that without measuring it.
const TIMES: usize = 1000;
const WARM_UP: usize = 100;

/// An application that ends when it is told to, and not before: as long as the test needs.
const RELUCTANT: &str = "trap 'until [ -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM
while :; do sleep 0.2; done";

/// Dry runs, which go through all of admission and store nothing.
#[derive(Clone, Copy)]
enum Asked {
    PodWithoutClaim,
    PodWithClaim,
    ScaleUp,
}

const ALL: [(Asked, &str); 3] = [
    (
        Asked::PodWithoutClaim,
        "a pod that mounts no fenced claim: the webhook is not asked",
    ),
    (
        Asked::PodWithClaim,
        "a pod that mounts it: the policy refuses",
    ),
    (
        Asked::ScaleUp,
        "scaling the stopped workload up: the webhook refuses",
    ),
];

#[tokio::test]
#[ignore = "measures for minutes; its figures are for a quiet machine"]
async fn what_the_fence_adds_to_a_request() {
    run_test("fence-cost", async |test| {
        let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
        let mut web = deployment("web", image, RELUCTANT, &[mount("web")]);
        let template = web
            .spec
            .as_mut()
            .and_then(|spec| spec.template.spec.as_mut());
        template
            .context("no template")?
            .termination_grace_period_seconds = Some(600);
        test.create(&claim("web", class)).await?;
        test.create(&web).await?;
        example::pods(&test.cluster, &test.namespace, &["web"]).await?;

        // The same where no claim is fenced: nobody but the API server is asked there.
        let free = test.new_namespace("free").await?;
        web.spec.as_mut().context("no spec")?.replicas = Some(0);
        Api::<Deployment>::namespaced(test.cluster.client.clone(), &free)
            .create(&PostParams::default(), &web)
            .await?;

        let namespace = test.new_namespace("release").await?;
        let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
        release
            .start(&["--set", "timeouts.podReadySeconds=60"])
            .await?;
        frozen(test).await?;
        println!("| request | p50 without | with | added | p99 without | with | added |");
        println!("| --- | --- | --- | --- | --- | --- | --- |");
        for (asked, what) in ALL {
            let (without, with) = measure(test, &free, asked).await.context(what)?;
            let [p50, p99] = [500, 990].map(|permille| compare(&without, &with, permille));
            println!("| {what} | {p50} | {p99} |");
        }

        let_go(test).await?;
        release.ended().await?.expect(0, &[])?;
        // The pods that run now would not end either when their namespace does.
        let_go(test).await?;
        release.uninstall().await
    })
    .await;
}

/// Lets the application end.
async fn let_go(test: &Test) -> Result<()> {
    let pods = ListParams::default().labels("app");
    for pod in test.api::<Pod>().list(&pods).await? {
        let name = pod.metadata.name.context("a pod without a name")?;
        test.exec(&name, "touch /tmp/go").await?;
    }
    Ok(())
}

/// Waits until the application is told to stop, which it does not do: the fence is up.
async fn frozen(test: &Test) -> Result<()> {
    wait_for(
        "the workload to be stopped",
        Duration::from_secs(90),
        async || {
            let web = test.api::<Deployment>().get("web").await?;
            let annotations = web.metadata.annotations.unwrap_or_default();
            ensure!(annotations.contains_key(names::FROZEN), "it runs");
            Ok(())
        },
    )
    .await
}

/// The times of a request without a fence and with one, sorted. Both take turns, so that what
/// else the machine does falls on both. With a fence, what it is about is refused.
async fn measure(test: &Test, free: &str, asked: Asked) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut without, mut with) = (vec![], vec![]);
    for number in 0..WARM_UP + TIMES {
        for (namespace, times) in [(free, &mut without), (&test.namespace, &mut with)] {
            let start = Instant::now();
            let answer = ask(test, namespace, asked).await;
            if number >= WARM_UP {
                times.push(start.elapsed());
            }
            let passes = namespace == free || matches!(asked, Asked::PodWithoutClaim);
            match answer {
                Ok(()) if passes => {}
                Err(kube::Error::Api(status))
                    if !passes && status.code == 403 && status.message.contains("pvmigrate ") => {}
                answer => bail!("in {namespace}: {answer:?}"),
            }
        }
    }
    without.sort();
    with.sort();
    Ok((without, with))
}

async fn ask(test: &Test, namespace: &str, asked: Asked) -> kube::Result<()> {
    let (client, dry_run) = (test.cluster.client.clone(), true);
    let mounts: &[Mount] = match asked {
        Asked::PodWithClaim => &[mount("web")],
        Asked::PodWithoutClaim => &[],
        Asked::ScaleUp => {
            let params = PatchParams {
                dry_run,
                ..PatchParams::default()
            };
            let more = Patch::Merge(json!({"spec": {"replicas": 2}}));
            let api = Api::<Deployment>::namespaced(client, namespace);
            return api.patch_scale("web", &params, &more).await.map(drop);
        }
    };
    let params = PostParams {
        dry_run,
        ..PostParams::default()
    };
    let wanted = pod("guest", &test.cluster.tools_image, "true", mounts);
    let api = Api::<Pod>::namespaced(client, namespace);
    api.create(&params, &wanted).await.map(drop)
}

/// Two times at this place of a thousand, and how they differ.
fn compare(without: &[Duration], with: &[Duration], permille: usize) -> String {
    let [without, with] = [without, with].map(|times| {
        let time = times[(times.len() - 1) * permille / 1000];
        time.as_secs_f64() * 1000.0
    });
    format!("{without:.2} ms | {with:.2} ms | {:+.2} ms", with - without)
}
