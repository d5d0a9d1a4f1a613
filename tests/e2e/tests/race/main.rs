//! A race on the real cluster: eight clients ask for what the fence refuses, as fast as they can,
//! while twenty claims move there and back. Not one consumer may be admitted between Fenced and
//! the write that opens the fence, by the order of the API server's own writes.

mod clients;
mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use kube::Client;
use kube::api::{Patch, PatchParams};
use pvmigrate_e2e::{
    Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, stateful_set,
    wait_for,
};
use serde_json::json;

use clients::{Attempts, Shared};
use history::History;

pub const DEPLOYMENTS: [&str; 3] = ["files", "queue", "web"];
pub const CLAIMS: [&str; 5] = ["data-db-0", "data-db-1", "files", "queue", "web"];
const MIGRATIONS: usize = 20;
const ATTEMPTS: usize = 20_000;
/// No run begins after this.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// Random data, made once, and a line now and then.
const APPLICATION: &str = "cd \"$(ls -d /data /files /queue /web 2>/dev/null)\"
[ -e own ] || head -c 500000 /dev/urandom >own
trap 'exit 0' TERM
while :; do date +%N >>log; sleep 0.2 & wait; done";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes long: twenty migrations under fire"]
async fn not_one_consumer_gets_in_while_eight_clients_try_all_they_can() {
    run_test("race", async |test| {
        deploy(test).await?;
        let before = contents(test).await?;
        let history = History::follow(&test.cluster.client, &test.namespace).await?;
        let user = user(test).await?;
        let began = Instant::now();
        let (mut migrated, mut attempts) = (0, Attempts::default());
        while migrated < MIGRATIONS || attempts.all() < ATTEMPTS {
            ensure!(
                began.elapsed() < LIMIT,
                "{migrated} migrations and {attempts:?} in {LIMIT:?}"
            );
            attempts.add(&run(test, &user, &history, migrated).await?);
            migrated += CLAIMS.len();
            let after = contents(test).await?;
            ensure!(before == after, "data has changed: {before:?}, {after:?}");
            println!(
                "{migrated} claims migrated, {attempts:?}, {:?}",
                began.elapsed()
            );
        }
        let seen = history.end().await?;
        println!("{seen}");
        ensure!(
            seen.windows >= MIGRATIONS,
            "only {} claims were fenced",
            seen.windows
        );
        ensure!(seen.intruders.is_empty(), "{:#?} got in", seen.intruders);
        ensure!(attempts.wrong.is_empty(), "{:#?}", attempts.wrong);
        Ok(())
    })
    .await;
}

/// One run, in one direction and then in the other, with all clients at work.
async fn run(test: &Test, user: &Client, history: &History, migrated: usize) -> Result<Attempts> {
    let mut classes = test.cluster.classes.clone();
    if migrated / CLAIMS.len() % 2 == 1 {
        classes.reverse();
    }
    let namespace = test.new_namespace("race-release").await?;
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    let shared = Arc::new(Shared::new(test, user, &classes, history.fenced()));
    release.start(&[]).await?;
    // A bare pod that mounts a claim is a reason to refuse the whole run, as long as it is planned.
    history.planned().await?;
    let clients = clients::start(&shared);
    let ended = async { release.ended().await?.expect(0, &[]) }.await;
    shared.stop();
    let attempts = clients.end(&shared).await?;
    ended?;
    as_they_were(test, &classes[1]).await?;
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await?;
    Ok(attempts)
}

async fn deploy(test: &Test) -> Result<()> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    for name in DEPLOYMENTS {
        test.create(&claim(name, class)).await?;
        test.create(&deployment(name, image, APPLICATION, &[mount(name)]))
            .await?;
    }
    let set = stateful_set("db", 2, class, image, APPLICATION, &[mount("data")]);
    test.create(&set).await?;
    Ok(())
}

async fn contents(test: &Test) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (claim, pod) in example::pods(&test.cluster, &test.namespace, &CLAIMS).await? {
        let sum = "cd \"$(ls -d /data /files /queue /web 2>/dev/null)\"
            until [ -s own ] && [ $(cat log | wc -l) -gt 5 ]; do sleep 0.1; done; sha256sum own; head -n 5 log";
        all.insert(claim, test.exec(&pod, sum).await?);
    }
    Ok(all)
}

/// The clients may have scaled up what was not fenced yet: that is theirs to undo.
async fn as_they_were(test: &Test, class: &str) -> Result<()> {
    for name in DEPLOYMENTS {
        let one = Patch::Merge(json!({"spec": {"replicas": 1}}));
        let api = test.api::<Deployment>();
        api.patch(name, &PatchParams::default(), &one).await?;
    }
    wait_for(
        "all workloads to be Ready",
        Duration::from_secs(90),
        async || {
            for name in DEPLOYMENTS {
                let status = test.api::<Deployment>().get(name).await?.status;
                let ready = status.and_then(|status| status.ready_replicas);
                ensure!(ready == Some(1), "{name}: {ready:?}");
            }
            let set = test.api::<StatefulSet>().get("db").await?.status;
            let ready = set.and_then(|status| status.ready_replicas);
            ensure!(ready == Some(2), "db: {ready:?}");
            Ok(())
        },
    )
    .await?;
    for name in CLAIMS {
        let both = bound(&test.cluster, &test.namespace, name).await?;
        ensure!(both.class() == class, "{name} is of {}", both.class());
    }
    Ok(())
}

/// An ordinary user of the namespace.
async fn user(test: &Test) -> Result<Client> {
    let (namespace, account) = (&test.namespace, format!("{}:user", test.namespace));
    let binding = [
        "create",
        "rolebinding",
        "user",
        "-n",
        namespace,
        "--clusterrole=edit",
    ];
    let mut binding = binding.to_vec();
    binding.extend(["--serviceaccount", &account]);
    for arguments in [
        vec!["create", "serviceaccount", "user", "-n", namespace],
        binding,
    ] {
        test.cluster.kubectl(&arguments).await?.success()?;
    }
    Ok(Client::try_from(
        test.cluster.config_as(namespace, "user").await?,
    )?)
}
