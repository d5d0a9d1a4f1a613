//! Workloads that are held: their specs are not touched, their pods come back by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use pvmigrate_e2e::example::{WRITE, lines, longest_silence};
use pvmigrate_e2e::{
    Mount, Release, Test, bound, claim, deployment, example, leftovers, run_test, stateful_set,
    wait_for,
};
use pvmigrate_record::names;
use serde_json::{Value, json};

const CLAIMS: [&str; 4] = ["web", "agent", "data-db-0", "data-db-1"];

#[tokio::test]
async fn held_workloads_keep_their_specs_and_run_again() {
    run_test("hold", async |test| {
        let [from, to] = test.cluster.classes.clone();
        holds(test, &from, &to).await
    })
    .await;
}

#[tokio::test]
async fn held_workloads_move_between_attached_volumes() {
    run_test("hold-csi", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        holds(test, "csi-a", "csi-b").await
    })
    .await;
}

async fn holds(test: &Test, from: &str, to: &str) -> Result<()> {
    deploy(test, from).await?;
    let (before, pods) = (workloads(test).await?, pod_uids(test).await?);

    let release = start(test, from, to, &[]).await?;
    let end = release.ended().await?.expect(0, &["migrated"])?;
    for line in end.log.lines().filter(|line| line.contains("it was held")) {
        eprintln!("{line}");
    }
    let said = end.log.matches("it was held, and").count();
    // The set's pods one after the other.
    ensure!(said == 4, "{said} workloads were held:\n{}", end.log);
    for claim in CLAIMS {
        let now = bound(&test.cluster, &test.namespace, claim).await?;
        ensure!(now.class() == to, "{claim} is of {}", now.class());
    }
    let found = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    for (claim, pod) in found {
        let log = lines(&test.exec(&pod, "cat /data/log").await?)?;
        eprintln!(
            "{claim}: nothing written for {:.2} s",
            longest_silence(&log)?
        );
    }
    let now = workloads(test).await?;
    ensure!(now == before, "{now:#}\ninstead of\n{before:#}");
    let now = pod_uids(test).await?;
    ensure!(pods.is_disjoint(&now), "a pod ran on: {pods:?}, {now:?}");
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await
}

#[tokio::test]
async fn a_controller_that_fights_gets_no_pod_in_and_is_not_fought() {
    run_test("hold-operator", async |test| {
        let [from, to] = test.cluster.classes.clone();
        deploy(test, &from).await?;
        let before = workloads(test).await?;
        let api = test.api::<Deployment>();
        let wanted = json!({"spec": {"replicas": 1}});
        let release = start(test, &from, &to, &[]).await?;
        let mut resets = 0_u32;
        // Ends with the first refusal only.
        let operator = async {
            loop {
                let set = api
                    .patch("web", &PatchParams::default(), &Patch::Merge(&wanted))
                    .await;
                match set {
                    Err(kube::Error::Api(refusal)) => return refusal,
                    set => resets += u32::from(set.is_ok()),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let end = tokio::select! {
            end = release.ended() => end?,
            refusal = operator => bail!("it was fought: {}", refusal.message),
        };
        end.expect(0, &["migrated"])?;
        ensure!(resets > 0, "it never reset anything");
        let now = workloads(test).await?;
        ensure!(now == before, "{now:#}\ninstead of\n{before:#}");
        let found = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        let log = lines(&test.exec(&found["web"], "cat /data/log").await?)?;
        longest_silence(&log)?;
        release.uninstall().await
    })
    .await;
}

#[tokio::test]
async fn a_rollout_in_the_middle_of_a_hold_leads_to_the_new_template() {
    run_test("hold-rollout", async |test| {
        let [from, to] = test.cluster.classes.clone();
        deploy(test, &from).await?;
        let release = start(test, &from, &to, &[]).await?;
        let api = test.api::<Deployment>();
        wait_for(
            "the Deployment to be held",
            Duration::from_secs(120),
            async || {
                let held = api.get("web").await?;
                ensure!(held.annotations().contains_key(names::FROZEN), "it is not");
                Ok(())
            },
        )
        .await?;
        let again =
            json!({"spec": {"template": {"metadata": {"annotations": {"restarted": "yes"}}}}});
        for name in ["web", "db", "agent"] {
            let params = PatchParams::default();
            let patch = Patch::Merge(&again);
            match name {
                "web" => drop(api.patch(name, &params, &patch).await?),
                "db" => drop(
                    test.api::<StatefulSet>()
                        .patch(name, &params, &patch)
                        .await?,
                ),
                _ => drop(test.api::<DaemonSet>().patch(name, &params, &patch).await?),
            }
        }
        release.ended().await?.expect(0, &["migrated"])?;
        wait_for(
            "all pods to be of the new template",
            Duration::from_secs(60),
            async || {
                let found = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
                for (claim, pod) in found {
                    let pod = test.api::<Pod>().get(&pod).await?;
                    ensure!(
                        pod.annotations().contains_key("restarted"),
                        "that of {claim} is not"
                    );
                }
                Ok(())
            },
        )
        .await?;
        leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
        let found = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
        for (claim, pod) in found {
            let mut log = lines(&test.exec(&pod, "cat /data/log").await?)?;
            if claim == "web" {
                // A rolling update lets the old and the new pod write at once: numbers come twice,
                // and still none may be missing.
                log.sort_by_key(|line| line.number);
                log.dedup_by_key(|line| line.number);
            }
            longest_silence(&log).with_context(|| format!("the log of {claim}"))?;
        }
        release.uninstall().await
    })
    .await;
}

/// A Deployment, a StatefulSet of two and a DaemonSet, all of them to be held, each pod with a
/// claim of its own.
async fn deploy(test: &Test, class: &str) -> Result<()> {
    let image = &test.cluster.tools_image;
    for name in ["web", "agent"] {
        test.create(&claim(name, class)).await?;
    }
    let mut web = deployment("web", image, &WRITE, &at_data("web"));
    web.annotations_mut()
        .insert(names::FREEZE.into(), "hold".into());
    test.create(&web).await?;
    let mut db = stateful_set("db", 2, class, image, &WRITE, &at_data("data"));
    db.annotations_mut()
        .insert(names::FREEZE.into(), "hold".into());
    test.create(&db).await?;
    test.create(&daemon_set(test, "agent").await?).await?;
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    Ok(())
}

fn at_data(claim: &str) -> [Mount; 1] {
    [Mount {
        claim: claim.into(),
        path: "/data".into(),
    }]
}

/// On one node: its claim can be mounted on no other.
async fn daemon_set(test: &Test, name: &str) -> Result<DaemonSet> {
    let mut like = deployment(name, &test.cluster.tools_image, &WRITE, &at_data(name));
    like.annotations_mut()
        .insert(names::FREEZE.into(), "hold".into());
    let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(test.cluster.client.clone());
    let node = nodes.list(&ListParams::default()).await?;
    let node = node.items.first().context("no node")?.name_any();
    let mut spec = like.spec.context("no spec")?;
    let pod = spec.template.spec.as_mut().context("no pod")?;
    pod.node_selector = Some([("kubernetes.io/hostname".to_string(), node)].into());
    Ok(DaemonSet {
        metadata: like.metadata,
        spec: Some(DaemonSetSpec {
            selector: spec.selector,
            template: spec.template,
            ..DaemonSetSpec::default()
        }),
        status: None,
    })
}

async fn start(test: &Test, from: &str, to: &str, more: &[&str]) -> Result<Release> {
    let namespace = test.new_namespace("release").await?;
    let classes = [from.to_string(), to.to_string()];
    let release = Release::between(&classes, &test.cluster, &namespace, &[&test.namespace]);
    release.start(more).await?;
    Ok(release)
}

/// What a migration must leave as it was: specs, labels, annotations, and that nothing was ever
/// written to a spec. A Deployment's own generation counts its annotations too; that of its
/// ReplicaSets does not, and every change of its replicas or template is one of theirs.
async fn workloads(test: &Test) -> Result<Value> {
    let sets = test.api::<ReplicaSet>();
    let sets = sets.list(&ListParams::default()).await?;
    let generations: Value = sets
        .iter()
        .map(|set| json!([set.name_any(), set.metadata.generation]))
        .collect();
    let mut web = serde_json::to_value(test.api::<Deployment>().get("web").await?)?;
    web["metadata"]["generation"] = generations;
    let all = [
        web,
        serde_json::to_value(test.api::<StatefulSet>().get("db").await?)?,
        serde_json::to_value(test.api::<DaemonSet>().get("agent").await?)?,
    ];
    let all = all.iter().map(|object| {
        json!({
            "name": object["metadata"]["name"],
            "uid": object["metadata"]["uid"],
            "generation": object["metadata"]["generation"],
            "labels": object["metadata"]["labels"],
            "annotations": object["metadata"]["annotations"],
            "spec": object["spec"],
            "spec is by": spec_writers(object),
        })
    });
    Ok(all.collect())
}

/// Who wrote fields of the spec that still stand as they wrote them.
pub fn spec_writers(object: &Value) -> BTreeSet<&str> {
    let managed = object["metadata"]["managedFields"].as_array();
    let writes = managed.into_iter().flatten();
    writes
        .filter(|write| write["fieldsV1"]["f:spec"].is_object())
        .filter_map(|write| write["manager"].as_str())
        .collect()
}

async fn pod_uids(test: &Test) -> Result<BTreeSet<String>> {
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    Ok(pods.items.iter().filter_map(ResourceExt::uid).collect())
}
