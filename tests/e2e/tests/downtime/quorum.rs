//! A set of three that answers as long as any two of it do.

use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, Probe};
use kube::Api;
use kube::api::ListParams;
use pvmigrate_e2e::{Release, Test, WAIT, bound, example, mount, run_test, stateful_set};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::readiness::Readiness;

const CLAIMS: [&str; 3] = ["data-quorum-0", "data-quorum-1", "data-quorum-2"];
const PORT: u16 = 8080;
const VALUE: &str = "forty-two";

/// Serves what is in its volume, and says in its log there that it is alive.
static SERVE: LazyLock<String> = LazyLock::new(|| {
    let first = "mkdir -p /data/www
[ -e /data/www/value ] || echo forty-two >/data/www/value
busybox httpd -p 8080 -h /data/www";
    let each = "echo \"$line\" >>/data/log";
    example::numbering(first, "/data/log", each, "0.05")
});

#[tokio::test]
#[ignore = "measures; part of make test-long"]
async fn a_set_with_a_quorum_never_stops_answering() {
    run_test("quorum", async |test| {
        deploy(test).await?;
        let readiness = Readiness::follow(test.api(), "app=quorum", 3);
        let (stop, stopped) = watch::channel(false);
        let reader = tokio::spawn(read(test.api(), stopped));

        let own = test.new_namespace("quorum-release").await?;
        let release = Release::new(&test.cluster, &own, &[&test.namespace]);
        release.helm("install", &WAIT).await?.success()?;
        release.ended().await?.expect(0, &[])?;

        stop.send(true)?;
        let reads = reader.await??;
        let seen = readiness.seen();
        println!(
            "quorum: {} reads, {} failed; at least {} of 3 Ready; away: {:.2?} s",
            reads.all, reads.failed, seen.fewest, seen.longest
        );
        ensure!(reads.all > 100, "only {} reads", reads.all);
        ensure!(reads.failed == 0, "{} reads failed", reads.failed);
        ensure!(seen.fewest >= 2, "only {} were Ready", seen.fewest);
        let pods = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        for claim in CLAIMS {
            let now = bound(&test.cluster, &test.namespace, claim).await?;
            ensure!(
                now.class() == test.cluster.classes[1],
                "{claim} is of {}",
                now.class()
            );
            let log = example::lines(&test.exec(&pods[claim], "cat /data/log").await?)?;
            println!(
                "quorum: {claim} wrote nothing for {:.2} s",
                example::longest_silence(&log)?
            );
        }
        release.uninstall().await
    })
    .await;
}

async fn deploy(test: &Test) -> Result<()> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    let mut set: StatefulSet = stateful_set("quorum", 3, class, image, &SERVE, &[mount("data")]);
    let spec = set.spec.as_mut().context("no spec")?;
    spec.pod_management_policy = Some("Parallel".into());
    let pod = spec.template.spec.as_mut().context("no pod spec")?;
    let probe: Probe = serde_json::from_value(json!({
        "httpGet": {"path": "/value", "port": PORT}, "periodSeconds": 1
    }))?;
    pod.containers[0].readiness_probe = Some(probe);
    test.create(&set).await?;
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    Ok(())
}

#[derive(Debug, Default)]
struct Reads {
    all: usize,
    failed: usize,
}

/// Reads until told to stop. A read asks every pod, and is good if two give the value.
async fn read(api: Api<Pod>, stopped: watch::Receiver<bool>) -> Result<Reads> {
    let mut reads = Reads::default();
    let ours = ListParams::default().labels("app=quorum");
    while !*stopped.borrow() {
        // As a client with a headless Service does: the addresses of now.
        let pods = api.list(&ours).await?;
        let addresses = pods.items.iter().filter_map(|pod| {
            let status = pod.status.as_ref()?;
            status.pod_ip.clone()
        });
        let answers = join_all(addresses.map(|address| async move {
            let asked = timeout(Duration::from_secs(1), value(&address)).await;
            asked.is_ok_and(|answer| answer.is_ok_and(|text| text.ends_with(&format!("{VALUE}\n"))))
        }))
        .await;
        reads.all += 1;
        if answers.into_iter().filter(|good| *good).count() < 2 {
            reads.failed += 1;
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(reads)
}

async fn value(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect((address, PORT)).await?;
    stream.write_all(b"GET /value HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
