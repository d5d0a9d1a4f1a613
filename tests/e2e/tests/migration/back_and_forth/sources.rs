//! The volumes that the applications have left.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use kube::ResourceExt;
use pvmigrate_e2e::example::CLAIMS;
use pvmigrate_e2e::{Bound, Release, Test, dispose, folder, released};
use serde_json::Value;

use super::super::preflight::no_trial_is_left;

/// The sources are Released, with policy Retain; the report names each with a command, and that
/// command deletes the volume and what is behind it.
pub async fn are_left_to_be_disposed_of(
    test: &Test,
    release: &Release,
    before: &BTreeMap<&str, Bound>,
) -> Result<()> {
    let report = release.report().await?;
    ensure!(
        report["state"] == "complete",
        "the run is {}",
        report["state"]
    );
    no_trial_is_left(test).await?;
    let left = released(&test.cluster, &test.namespace).await?;
    ensure!(
        left.len() == CLAIMS.len(),
        "{} volumes are Released",
        left.len()
    );
    let mut disposing = Vec::new();
    for (claim, was) in before {
        let line = &report["claims"][format!("{}/{claim}", test.namespace)];
        let name = was.volume.name_any();
        ensure!(
            line["phase"] == "Done" && line["outcome"] == Value::Null,
            "{claim}: {line}"
        );
        ensure!(line["sourceVolume"] == name.as_str(), "{claim}: {line}");
        ensure!(line["files"].as_u64() > Some(40), "{claim}: {line}");
        println!(
            "{claim}: downtime {} s, copied in {} s",
            line["downtimeSeconds"], line["copySeconds"]
        );
        let volume = left.iter().find(|volume| volume.name_any() == name);
        let volume = volume.with_context(|| format!("volume {name} of {claim} is not Released"))?;
        let policy = volume
            .spec
            .as_ref()
            .and_then(|s| s.persistent_volume_reclaim_policy.clone());
        ensure!(
            policy.as_deref() == Some("Retain"),
            "volume {name} has policy {policy:?}"
        );
        let command = line["dispose"]
            .as_str()
            .context("no command to dispose of it")?
            .to_string();
        disposing.push((name, command, folder(&test.cluster, volume)));
    }
    let dispose_of = async |(name, command, folder): (String, String, Option<PathBuf>)| {
        let exists = || folder.as_ref().map(|folder| folder.exists());
        ensure!(exists() != Some(false), "{folder:?} is gone already");
        dispose(&test.cluster, &name, &command).await?;
        ensure!(exists() != Some(true), "{folder:?} still exists");
        Ok(())
    };
    try_join_all(disposing.into_iter().map(dispose_of)).await?;
    Ok(())
}
