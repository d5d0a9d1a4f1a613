//! What is asked for, by flags and annotations, and what comes of it. Most of these runs are made
//! from outside the cluster, as a person with a kubeconfig would.

mod checking;
mod default_class;
mod limits;
mod selection;
mod wishes;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use pvmigrate_e2e::{
    Local, Test, bound, claim, deployment, example, mount, program, run_test, settled, stay,
};

const LIMIT: Duration = Duration::from_secs(240);
const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

#[tokio::test]
async fn a_run_from_outside_with_flags_alone_is_fenced_by_the_policy_and_says_what_that_lacks() {
    run_test("options-outside", async |test| {
        let [from, to] = &test.cluster.classes;
        test.create(&claim("data", from)).await?;
        use_them(test, &[mount("data")]).await?;
        let said = outside(test, 0, &["run", "--namespace", &test.namespace]).await?;
        for sentence in ["FENCED WITHOUT THE WEBHOOK", "migrated", "1. "] {
            ensure!(
                said.contains(sentence),
                "nothing says {sentence:?}:\n{said}"
            );
        }
        let found = bound(&test.cluster, &test.namespace, "data").await?;
        ensure!(found.class() == to, "claim data is of {}", found.class());
        let pods = example::pods(&test.cluster, &test.namespace, &["data"]).await?;
        let holds = test.exec(&pods["data"], "cat /data/file").await?;
        ensure!(holds == "kept\n", "the file holds {holds:?}");
        // Told again, there is nothing to do.
        let said = outside(test, 0, &["run", "--namespace", &test.namespace]).await?;
        ensure!(
            said.contains("this run is complete; nothing to do"),
            "{said}"
        );
        Ok(())
    })
    .await;
}

/// Runs the program outside the cluster, for the claims of the test's namespace, until it ends
/// with this code; returns what it said. Flags that are given go before the usual ones.
async fn outside(test: &Test, code: i32, arguments: &[&str]) -> Result<String> {
    let [from, to] = &test.cluster.classes;
    let kubeconfig = test.cluster.kubeconfig.display().to_string();
    // What is given as flags as well goes before.
    let environment = [
        ("KUBECONFIG", kubeconfig.as_str()),
        ("PVMIGRATE_SOURCE_SC", from),
        ("PVMIGRATE_DEST_SC", to),
        ("PVMIGRATE_NAMESPACES", &test.namespace),
        ("PVMIGRATE_RELEASE_NAMESPACE", &test.namespace),
        ("PVMIGRATE_IMAGE", &test.cluster.image),
    ];
    let log = std::env::temp_dir().join(format!("{}.log", test.namespace));
    let mut run = Local::start(&program("pvmigrate")?, arguments, &environment, &log)?;
    let status = run.wait(LIMIT).await?;
    let said = std::fs::read_to_string(&log)?;
    std::fs::remove_file(&log)?;
    ensure!(
        status.code() == Some(code),
        "{status} instead of {code}:\n{said}"
    );
    Ok(said)
}

/// An application that mounts these claims, and has written a file into each.
async fn use_them(test: &Test, mounts: &[pvmigrate_e2e::Mount]) -> Result<()> {
    let script = mounts
        .iter()
        .map(|mount| format!("[ -e {0}/file ] || echo kept >{0}/file", mount.path))
        .collect::<Vec<_>>()
        .join("\n");
    let image = &test.cluster.tools_image;
    test.create(&deployment("app", image, &stay(&script), mounts))
        .await?;
    let names: Vec<&str> = mounts.iter().map(|mount| mount.claim.as_str()).collect();
    example::pods(&test.cluster, &test.namespace, &names).await?;
    settled(&test.cluster, &test.namespace).await
}

/// A class of the test's own, like another one. Whoever makes it deletes it.
async fn class_like(
    test: &Test,
    other: &str,
    suffix: &str,
    default: Option<&str>,
) -> Result<String> {
    let api = Api::<StorageClass>::all(test.cluster.client.clone());
    let mut class = api.get(other).await?;
    class.metadata = kube::core::ObjectMeta {
        name: Some(format!("{}-{suffix}", test.namespace)),
        annotations: default.map(|is| BTreeMap::from([(DEFAULT.into(), is.into())])),
        ..kube::core::ObjectMeta::default()
    };
    Ok(api.create(&PostParams::default(), &class).await?.name_any())
}

async fn delete_class(test: &Test, name: &str) -> Result<()> {
    let api = Api::<StorageClass>::all(test.cluster.client.clone());
    api.delete(name, &DeleteParams::default()).await?;
    Ok(())
}
