//! Kinds of workloads that the other tests do not have, two workloads with one claim, and one with
//! two: by scale and by hold, on volumes of a node and on attached ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod, ReplicationController};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use pvmigrate_e2e::example::{lines, longest_silence, numbering};
use pvmigrate_e2e::{
    Release, Test, bound, claim, example, leftovers, mount, pod, run_test, wait_for,
};
use pvmigrate_record::names;
use serde_json::{Value, json};

use super::operator::Operator;

const CLAIMS: [&str; 7] = ["bare", "old", "widget", "gadget", "shared", "one", "two"];

/// What the applications write, and through which claim it is seen.
const LOGS: [(&str, &str); 8] = [
    ("bare", "/bare/log"),
    ("old", "/old/log"),
    ("widget", "/widget/log"),
    ("gadget", "/gadget/log"),
    ("shared", "/shared/left"),
    ("shared", "/shared/right"),
    ("one", "/one/log"),
    ("two", "/two/log"),
];

/// The claims of a group, and its workloads: a kind and a name.
type Group = (
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);
const GROUPS: [Group; 6] = [
    (&["bare"], &[("ReplicaSet", "bare")]),
    (&["old"], &[("ReplicationController", "old")]),
    (&["widget"], &[("Widget", "widget")]),
    (&["gadget"], &[("Gadget", "gadget")]),
    (
        &["shared"],
        &[("Deployment", "left"), ("Deployment", "right")],
    ),
    (&["one", "two"], &[("Deployment", "several")]),
];

#[derive(Clone, Copy, PartialEq)]
enum By {
    Scale,
    Hold,
}

#[tokio::test]
async fn workloads_of_other_kinds_are_scaled_and_run_as_before() {
    run_test("kinds-scale", async |test| {
        let classes = test.cluster.classes.clone();
        moves(test, &classes, By::Scale).await
    })
    .await;
}

#[tokio::test]
async fn workloads_of_other_kinds_are_scaled_between_attached_volumes() {
    run_test("kinds-scale-csi", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        moves(test, &["csi-a", "csi-b"].map(String::from), By::Scale).await
    })
    .await;
}

#[tokio::test]
async fn workloads_of_other_kinds_are_held_and_run_as_before() {
    run_test("kinds-hold", async |test| {
        let classes = test.cluster.classes.clone();
        moves(test, &classes, By::Hold).await
    })
    .await;
}

#[tokio::test]
async fn workloads_of_other_kinds_are_held_between_attached_volumes() {
    run_test("kinds-hold-csi", async |test| {
        if !test.has_bed() {
            return Ok(());
        }
        moves(test, &["csi-a", "csi-b"].map(String::from), By::Hold).await
    })
    .await;
}

/// One custom resource has a `/scale`, and the Job may write it. Of the other it knows what its
/// pods say.
async fn moves(test: &Test, classes: &[String; 2], by: By) -> Result<()> {
    let widget = Operator::define(test, "Widget", true).await?;
    let gadget = Operator::define(test, "Gadget", false).await?;
    let done = tokio::select! {
        done = run(test, [&widget, &gadget], classes, by) => done,
        () = widget.operate(test) => Ok(()),
        () = gadget.operate(test) => Ok(()),
    };
    widget.forget(test).await?;
    gadget.forget(test).await?;
    done
}

async fn run(test: &Test, operators: [&Operator; 2], classes: &[String; 2], by: By) -> Result<()> {
    operators[0].allow(test).await?;
    deploy(test, operators, &classes[0], by).await?;
    let pods = pod_uids(test).await?;
    let before = ready(test, operators, by).await?;

    let namespace = test.new_namespace("release").await?;
    let release = Release::between(classes, &test.cluster, &namespace, &[&test.namespace]);
    match by {
        By::Scale => release.start(&[]).await?,
        By::Hold => release.start(&["--set", "freeze=hold"]).await?,
    }
    release.ended().await?.expect(0, &["migrated"])?;

    let planned = planned(&release.report().await?)?;
    let wanted = wanted(&test.namespace, by);
    ensure!(
        planned == wanted,
        "{planned:#?}\nis planned instead of\n{wanted:#?}"
    );
    for name in CLAIMS {
        let now = bound(&test.cluster, &test.namespace, name).await?;
        ensure!(now.class() == classes[1], "{name} is of {}", now.class());
    }
    let what = "the workloads to be as before";
    wait_for(what, Duration::from_secs(60), async || {
        let now = ready(test, operators, by).await?;
        ensure!(now == before, "{now:#}\ninstead of\n{before:#}");
        Ok(())
    })
    .await?;
    let found = example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    for (claim, file) in LOGS {
        let written = test.exec(&found[claim], &format!("cat {file}")).await?;
        let log = lines(&written)?;
        let silence = longest_silence(&log).with_context(|| file.to_string())?;
        ensure!(log[0].number == 1, "{file} begins with {:?}", log[0]);
        println!("{file}: nothing written for {silence:.2} s");
    }
    let now = pod_uids(test).await?;
    ensure!(pods.is_disjoint(&now), "a pod ran on: {pods:?}, {now:?}");
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    release.uninstall().await
}

/// By their claims, how the workloads of each group are to be stopped, and why.
fn wanted(namespace: &str, by: By) -> BTreeMap<Vec<String>, Vec<String>> {
    let sentence = |(kind, name): &(&str, &str)| {
        let how = match (by, *kind) {
            (_, "Gadget") | (By::Hold, "Widget") => "held: it controls its pods itself",
            (By::Scale, "Widget") => "scaled to 0: its annotation pvmigrate.io/freeze says so",
            (By::Scale, _) => "scaled to 0: nothing else steers it",
            (By::Hold, _) => "held: the value freeze says so",
        };
        format!("{kind} {namespace}/{name} is {how}")
    };
    let groups = GROUPS.iter().map(|(claims, workloads)| {
        let claims = claims.iter().map(|claim| format!("{namespace}/{claim}"));
        (claims.collect(), workloads.iter().map(sentence).collect())
    });
    groups.collect()
}

/// The same, as the report says it.
fn planned(report: &Value) -> Result<BTreeMap<Vec<String>, Vec<String>>> {
    let text = |value: &Value| value.as_str().map(String::from).context("no text");
    let list = |value: &Value| value.as_array().cloned().context("no list");
    let mut groups = BTreeMap::new();
    for group in list(&report["plan"]["groups"])? {
        let claims = list(&group["claims"])?;
        let claims: Result<Vec<_>> = claims.iter().map(|claim| text(&claim["name"])).collect();
        let why: Result<Vec<_>> = list(&group["why"])?.iter().map(text).collect();
        groups.insert(claims?, why?);
    }
    Ok(groups)
}

/// All of them, on both nodes.
async fn deploy(test: &Test, operators: [&Operator; 2], class: &str, by: By) -> Result<()> {
    for name in CLAIMS {
        test.create(&claim(name, class)).await?;
    }
    let nodes = Api::<Node>::all(test.cluster.client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let nodes: Vec<String> = nodes.iter().map(ResourceExt::name_any).collect();
    let [first, .., last] = nodes.as_slice() else {
        return create(test, operators, [&nodes[0], &nodes[0]], by).await;
    };
    create(test, operators, [first, last], by).await
}

async fn create(
    test: &Test,
    [widget, gadget]: [&Operator; 2],
    [here, there]: [&str; 2],
    by: By,
) -> Result<()> {
    let bare = template(test, "bare", here, &["/bare/log"]);
    test.create(&from::<ReplicaSet>(json!({
        "metadata": {"name": "bare"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "bare"}}, "template": bare},
    }))?)
    .await?;
    let old = template(test, "old", there, &["/old/log"]);
    test.create(&from::<ReplicationController>(json!({
        "metadata": {"name": "old"},
        "spec": {"replicas": 1, "selector": {"app": "old"}, "template": old},
    }))?)
    .await?;
    for (name, node, files) in [
        ("left", here, vec!["/shared/left"]),
        ("right", here, vec!["/shared/right"]),
        ("several", there, vec!["/one/log", "/two/log"]),
    ] {
        let pods = template(test, name, node, &files);
        test.create(&from::<Deployment>(json!({
            "metadata": {"name": name},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": pods},
        }))?)
        .await?;
    }
    let scaled = [(names::FREEZE, "scale")];
    let asked: &[(&str, &str)] = if by == By::Scale { &scaled } else { &[] };
    let of_widget = writer(test, "widget", here, &["/widget/log"]);
    widget.create(test, &of_widget, asked).await?;
    let of_gadget = writer(test, "gadget", there, &["/gadget/log"]);
    gadget.create(test, &of_gadget, &[]).await
}

fn from<K: DeserializeOwned>(object: Value) -> Result<K> {
    Ok(serde_json::from_value(object)?)
}

fn template(test: &Test, name: &str, node: &str, files: &[&str]) -> Value {
    let pod = writer(test, name, node, files);
    json!({"metadata": {"labels": {"app": name}}, "spec": pod.spec})
}

/// A pod that writes the same lines into each of these files, whose folders are claims.
fn writer(test: &Test, name: &str, node: &str, files: &[&str]) -> Pod {
    let writes = files.iter().map(|file| format!("echo \"$line\" >>{file}"));
    let each = writes.collect::<Vec<_>>().join("; ");
    let script = numbering("", files[0], &each, "0.1");
    let claims = files.iter().filter_map(|file| file.split('/').nth(1));
    let mounts: Vec<_> = claims.map(mount).collect();
    let mut pod = pod(name, &test.cluster.tools_image, &script, &mounts);
    if let Some(spec) = &mut pod.spec {
        spec.node_selector = Some([("kubernetes.io/hostname".into(), node.into())].into());
    }
    pod
}

/// What a migration must leave as it was; waits until all are Ready. Where they are held, nothing is
/// ever written to a spec: then their generations count too, but those of Deployments, which count
/// changes of annotations.
async fn ready(test: &Test, operators: [&Operator; 2], by: By) -> Result<Value> {
    example::pods(&test.cluster, &test.namespace, &CLAIMS).await?;
    let what = "all workloads to be Ready";
    wait_for(what, Duration::from_secs(60), async || {
        let mut all = all(&test.api::<ReplicaSet>()).await?;
        all.extend(self::all(&test.api::<ReplicationController>()).await?);
        all.extend(self::all(&test.api::<Deployment>()).await?);
        for workload in &all {
            let ready = &workload["status"]["readyReplicas"];
            let (kind, name) = (&workload["kind"], &workload["metadata"]["name"]);
            ensure!(*ready == json!(1), "{kind} {name} has {ready} Ready");
        }
        for operator in operators {
            all.extend(self::all(&operator.api(test)).await?);
        }
        Ok(all.iter().map(|workload| as_it_was(workload, by)).collect())
    })
    .await
}

fn as_it_was(workload: &Value, by: By) -> Value {
    let metadata = &workload["metadata"];
    // A Deployment's ReplicaSet is scaled with it, and tells of no change of annotations.
    let counts = by == By::Hold && workload["spec"]["strategy"].is_null();
    json!({
        "name": metadata["name"],
        "uid": metadata["uid"],
        "labels": metadata["labels"],
        "annotations": metadata["annotations"],
        "generation": if counts { metadata["generation"].clone() } else { Value::Null },
        "spec": workload["spec"],
    })
}

async fn all<K>(api: &Api<K>) -> Result<Vec<Value>>
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned + ResourceExt,
{
    let all = api.list(&ListParams::default()).await?;
    let all = all.items.iter().map(serde_json::to_value);
    Ok(all.collect::<Result<_, _>>()?)
}

async fn pod_uids(test: &Test) -> Result<BTreeSet<String>> {
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    Ok(pods.items.iter().filter_map(ResourceExt::uid).collect())
}
