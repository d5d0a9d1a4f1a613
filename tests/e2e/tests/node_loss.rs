//! A node is lost while the Job works on it. Long, and for a cluster that nobody else uses: other
//! tests may need the node.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use pvmigrate_e2e::{
    Cluster, Release, Test, bound, claim, deployment, example, leftovers, mount, run_test, wait_for,
};
use pvmigrate_record::names;
use rustix::process::{Pid, Signal, kill_process};

/// Ends when it is told to, and not before: the Job has to wait for it while its node is lost.
const RELUCTANT: &str = "trap 'until [ -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM
echo data >/web/file
while :; do sleep 0.2; done";

#[tokio::test]
#[ignore = "takes a node away, which other tests may need"]
async fn a_job_whose_node_is_lost_is_replaced_and_goes_on_to_the_end() {
    run_test("node-loss", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        let [stays, goes] = Cluster::nodes();
        let release = frozen(test, stays, goes).await?;
        let job = release.job().await?.name_any();
        let first = release
            .pods(&job)
            .await?
            .pop()
            .context("the Job has no pod")?;
        ensure!(
            node_of(&first) == Some(goes),
            "the Job is on {:?}",
            node_of(&first)
        );

        test.cluster.stop_kubelet(goes).await?;
        let outcome = async {
            replaced(test, &release, &job, &first).await?;
            // Complete, although its first pod's node is still away: that pod was let go.
            release.ended().await
        }
        .await;
        // Whatever came of it: others need the node.
        test.cluster.start_kubelet(goes).await?;
        let end = outcome?.expect(0, &["an earlier Job has begun this; going on"])?;
        ensure!(end.pods == 1, "there are {} pods of it", end.pods);
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        release.uninstall().await
    })
    .await;
}

async fn replaced(test: &Test, release: &Release, job: &str, first: &Pod) -> Result<()> {
    // Nobody reports its end any more: that is what makes it a lost node.
    kill_containers(first)?;
    let began = Instant::now();
    let second = wait_for(
        "another pod of the Job to run",
        Duration::from_secs(90),
        async || {
            let pods = release.pods(job).await?;
            let running = pods.into_iter().find(|pod| {
                let status = pod.status.as_ref();
                pod.uid() != first.uid()
                    && status.is_some_and(|s| s.phase.as_deref() == Some("Running"))
            });
            running.context("there is none")
        },
    )
    .await?;
    println!(
        "replaced on {:?} after {:.1} s",
        node_of(&second),
        began.elapsed().as_secs_f64()
    );
    let_go(test).await?;
    let name = second.name_any();
    wait_for("that pod to end", Duration::from_secs(120), async || {
        let phase = release
            .api::<Pod>()
            .get(&name)
            .await?
            .status
            .and_then(|status| status.phase);
        ensure!(phase.as_deref() == Some("Succeeded"), "it is {phase:?}");
        Ok(())
    })
    .await?;
    println!(
        "done {:.1} s after the node was lost",
        began.elapsed().as_secs_f64()
    );
    let pods = example::pods(&test.cluster, &test.namespace, &["web"]).await?;
    let now = bound(&test.cluster, &test.namespace, "web").await?;
    ensure!(
        now.class() == test.cluster.classes[1],
        "the claim is of {}",
        now.class()
    );
    ensure!(
        test.exec(&pods["web"], "cat /web/file").await? == "data\n",
        "its data is lost"
    );
    Ok(())
}

/// An application on one node that is told to stop and does not yet, by a Job on the other.
async fn frozen(test: &Test, stays: &str, goes: &str) -> Result<Release> {
    let (class, image) = (&test.cluster.classes[0], &test.cluster.tools_image);
    let mut web = deployment("web", image, RELUCTANT, &[mount("web")]);
    if let Some(spec) = web
        .spec
        .as_mut()
        .and_then(|spec| spec.template.spec.as_mut())
    {
        spec.node_selector = Some(BTreeMap::from([(
            "kubernetes.io/hostname".into(),
            stays.into(),
        )]));
        spec.termination_grace_period_seconds = Some(300);
    }
    test.create(&claim("web", class)).await?;
    test.create(&web).await?;
    example::pods(&test.cluster, &test.namespace, &["web"]).await?;
    let namespace = test.new_namespace("release").await?;
    let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
    // Preferred, not required: its successor has to find another place.
    let affinity = format!(
        r#"job.affinity={{"nodeAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"preference":{{"matchExpressions":[{{"key":"kubernetes.io/hostname","operator":"In","values":["{goes}"]}}]}}}}]}}}}"#
    );
    release.start(&["--set-json", &affinity]).await?;
    wait_for(
        "the application to be stopped",
        Duration::from_secs(60),
        async || {
            let web = test.api::<Deployment>().get("web").await?;
            ensure!(web.annotations().contains_key(names::FROZEN), "it is not");
            Ok(())
        },
    )
    .await?;
    Ok(release)
}

async fn let_go(test: &Test) -> Result<()> {
    let apps = kube::api::ListParams::default().labels("app=web");
    let pods = test.api::<Pod>().list(&apps).await?;
    let pod = pods
        .items
        .first()
        .context("the application's pod is gone")?;
    test.exec(&pod.name_any(), "touch /tmp/go").await?;
    Ok(())
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

/// Ends the processes of a pod of the test bed, whose nodes are processes of this machine.
fn kill_containers(pod: &Pod) -> Result<()> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let ids: Vec<&str> = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status.container_id.as_deref()?.rsplit('/').next())
        .collect();
    // An empty one would be part of every name.
    ensure!(
        ids.iter().all(|id| id.len() == 64),
        "these are no container ids: {ids:?}"
    );
    let mut killed = 0;
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        // It may have ended since it was listed.
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if ids.iter().any(|id| groups.contains(id))
            && let Some(pid) = Pid::from_raw(pid)
        {
            kill_process(pid, Signal::KILL)?;
            killed += 1;
        }
    }
    ensure!(killed > 0, "no process of pod {} was found", pod.name_any());
    Ok(())
}
