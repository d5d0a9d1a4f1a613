//! Forty claims of twenty workloads in five namespaces, on CSI classes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::Api;
use kube::api::PostParams;
use pvmigrate_e2e::{
    Cluster, Release, WAIT, audit, bound, claim, deployment, example, mount, run_test, stateful_set,
};
use tokio::sync::watch;
use tokio::time::sleep;

const CLASSES: [&str; 2] = ["csi-a", "csi-b"];
const NAMESPACES: usize = 5;

/// The claims of one namespace, and where their pods mount them: two Deployments of two claims, a
/// set of two ordinals, a set of one with two templates.
const CLAIMS: [(&str, &str); 8] = [
    ("one", "/one"),
    ("two", "/two"),
    ("three", "/three"),
    ("four", "/four"),
    ("data-pair-0", "/data"),
    ("data-pair-1", "/data"),
    ("left-both-0", "/left"),
    ("right-both-0", "/right"),
];

/// Adds a numbered line to a log in each of its volumes, ten times a second.
static WRITE: LazyLock<String> = LazyLock::new(|| {
    let volumes = "/one /two /three /four /data /left /right";
    let first = format!("set -- $(ls -d {volumes} 2>/dev/null)");
    let each = "for volume; do echo \"$line\" >>$volume/log; done";
    example::numbering(&first, "$1/log", each, "0.1")
});

#[tokio::test]
#[ignore = "measures; part of make test-long"]
async fn forty_claims_of_twenty_workloads() {
    run_test("many", async |test| {
        let Some(bed) = test.bed() else { return Ok(()) };
        let mut namespaces = Vec::new();
        for number in 0..NAMESPACES {
            namespaces.push(test.new_namespace(&format!("many-{number}")).await?);
        }
        try_join_all(
            namespaces
                .iter()
                .map(|namespace| deploy(&test.cluster, namespace)),
        )
        .await?;

        let own = &test.namespace;
        let all: Vec<&str> = namespaces.iter().map(String::as_str).collect();
        let classes = CLASSES.map(String::from);
        let release = Release::between(&classes, &test.cluster, own, &all);
        let (stop, stopped) = watch::channel(false);
        let memory = tokio::spawn(peak_memory(own.clone(), stopped));
        let began = Instant::now();
        release.helm("install", &WAIT).await?.success()?;
        let took = began.elapsed().as_secs_f64();
        stop.send(true)?;
        let end = release.ended().await?.expect(0, &[])?;
        for (_, took) in end.log.lines().filter_map(|line| line.split_once("took")) {
            println!("many: {took}");
        }

        let mut away = BTreeMap::new();
        for namespace in &namespaces {
            for (claim, seconds) in check(&test.cluster, namespace).await? {
                away.insert(format!("{namespace}/{claim}"), seconds);
            }
        }
        let claims = away.len();
        let longest = away.values().copied().fold(0.0, f64::max);
        let requests = audit::requests(bed, own, "pvmigrate")?;
        let asked: usize = requests.values().sum();
        let memory = memory.await??;
        println!("many: {claims} claims in {took:.1} s, the longest away {longest:.1} s");
        println!(
            "many: {asked} API requests, {:.1} a claim: {requests:?}",
            per(asked, claims)
        );
        println!(
            "many: the Job's peak of resident memory: {} MiB",
            memory >> 20
        );
        ensure!(claims == 40, "{claims} claims");
        release.uninstall().await
    })
    .await;
}

#[allow(clippy::cast_precision_loss, reason = "counts of a test")]
fn per(asked: usize, claims: usize) -> f64 {
    asked as f64 / claims.max(1) as f64
}

async fn deploy(cluster: &Cluster, namespace: &str) -> Result<()> {
    let (class, image) = (CLASSES[0], &cluster.tools_image);
    let post = PostParams::default();
    let claims = Api::<PersistentVolumeClaim>::namespaced(cluster.client.clone(), namespace);
    let deployments = Api::<Deployment>::namespaced(cluster.client.clone(), namespace);
    for (name, mounts) in [("web", ["one", "two"]), ("files", ["three", "four"])] {
        for name in mounts {
            claims.create(&post, &claim(name, class)).await?;
        }
        let wanted = deployment(name, image, &WRITE, &mounts.map(mount));
        deployments.create(&post, &wanted).await?;
    }
    let sets = Api::<StatefulSet>::namespaced(cluster.client.clone(), namespace);
    let pair = stateful_set("pair", 2, class, image, &WRITE, &[mount("data")]);
    let both = ["left", "right"].map(mount);
    let both = stateful_set("both", 1, class, image, &WRITE, &both);
    for set in [pair, both] {
        sets.create(&post, &set).await?;
    }
    let names = CLAIMS.map(|(claim, _)| claim);
    example::pods(cluster, namespace, &names).await?;
    Ok(())
}

/// How long each application was away, in seconds; fails if a claim was not moved or a line lost.
async fn check(cluster: &Cluster, namespace: &str) -> Result<BTreeMap<String, f64>> {
    let pods = example::pods(cluster, namespace, &CLAIMS.map(|(claim, _)| claim)).await?;
    let mut away = BTreeMap::new();
    for (claim, path) in CLAIMS {
        let now = bound(cluster, namespace, claim).await?;
        ensure!(now.class() == CLASSES[1], "{claim} is of {}", now.class());
        let text = cluster
            .exec(namespace, &pods[claim], &format!("cat {path}/log"))
            .await?;
        let silence = example::longest_silence(&example::lines(&text)?)
            .with_context(|| format!("claim {namespace}/{claim}"))?;
        away.insert(claim.to_string(), silence);
    }
    Ok(away)
}

/// The peak of the Job's resident memory, in bytes: its pod's processes are processes here.
async fn peak_memory(release: String, stopped: watch::Receiver<bool>) -> Result<u64> {
    let mut peak = 0;
    while !*stopped.borrow() {
        for process in std::fs::read_dir("/proc")? {
            let process = process?.path();
            if is_job(&process, &release) {
                peak = peak.max(high_water(&process).unwrap_or_default());
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
    ensure!(peak > 0, "the Job's process was not found");
    Ok(peak)
}

fn is_job(process: &Path, release: &str) -> bool {
    let read = |file: &str| std::fs::read(process.join(file)).unwrap_or_default();
    let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
    let environment = String::from_utf8_lossy(&read("environ")).into_owned();
    command.starts_with("/pvmigrate\0")
        && environment
            .split('\0')
            .any(|pair| pair == format!("PVMIGRATE_RELEASE_NAMESPACE={release}"))
}

fn high_water(process: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib << 10)
}
