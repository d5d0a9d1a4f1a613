//! What a user asks of the API server.

use anyhow::{Result, bail, ensure};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use pvmigrate_e2e::{Test, claim, mount, pod};
use serde_json::{Value, json};

/// A pod that mounts the claim: a dry run goes through all of admission.
pub async fn mounting(test: &Test, user: &Client, name: &str) -> kube::Result<()> {
    let wanted = pod("guest", &test.cluster.tools_image, "true", &[mount(name)]);
    Api::<Pod>::namespaced(user.clone(), &test.namespace)
        .create(&dry(), &wanted)
        .await
        .map(drop)
}

pub async fn claiming(test: &Test, user: &Client, name: &str) -> kube::Result<()> {
    let wanted = claim(name, &test.cluster.classes[0]);
    let api = Api::<PersistentVolumeClaim>::namespaced(user.clone(), &test.namespace);
    api.create(&dry(), &wanted).await.map(drop)
}

fn dry() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

pub fn replicas(count: i32) -> Value {
    json!({"spec": {"replicas": count}})
}

pub fn label(value: &str) -> Value {
    json!({"metadata": {"labels": {"note": value}}})
}

pub async fn scale(
    test: &Test,
    user: &Client,
    kind: &str,
    name: &str,
    count: i32,
) -> kube::Result<()> {
    let (params, patch) = (PatchParams::default(), Patch::Merge(replicas(count)));
    if kind == "Deployment" {
        let api = Api::<Deployment>::namespaced(user.clone(), &test.namespace);
        api.patch_scale(name, &params, &patch).await.map(drop)
    } else {
        let api = Api::<StatefulSet>::namespaced(user.clone(), &test.namespace);
        api.patch_scale(name, &params, &patch).await.map(drop)
    }
}

pub async fn patch(
    test: &Test,
    user: &Client,
    kind: &str,
    name: &str,
    what: Value,
) -> kube::Result<()> {
    let (params, patch) = (PatchParams::default(), Patch::Merge(what));
    if kind == "Deployment" {
        let api = Api::<Deployment>::namespaced(user.clone(), &test.namespace);
        api.patch(name, &params, &patch).await.map(drop)
    } else {
        let api = Api::<StatefulSet>::namespaced(user.clone(), &test.namespace);
        api.patch(name, &params, &patch).await.map(drop)
    }
}

/// Refused with code 403 and this sentence, and not by somebody else.
pub fn expect_refusal(answer: kube::Result<()>, sentence: &str) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            ensure!(
                status.message.contains(sentence),
                "{:?}\nis not\n{sentence:?}",
                status.message
            );
            Ok(())
        }
        other => bail!("{other:?} instead of a refusal: {sentence}"),
    }
}
