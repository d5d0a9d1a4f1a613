//! What many tests do in one line: a script in a pod of its own, and a run that ends well.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;

use crate::{Release, Test, leftovers, mount, pod, wait_for};

/// A run over the claims of the test's namespace that ends well and leaves nothing.
pub async fn migrate(test: &Test, more: &[&str]) -> Result<Release> {
    let namespace = test.new_namespace("release").await?;
    let release = Release::new(&test.cluster, &namespace, &[&test.namespace]);
    release.start(more).await?;
    release.ended().await?.expect(0, &["migrated"])?;
    leftovers::none_of_the_run(&release, &test.cluster, &test.namespace).await?;
    Ok(release)
}

/// Runs a script in a pod that mounts claims, and deletes the pod, which has the name of the first.
pub async fn once(test: &Test, claims: &[&str], script: &str) -> Result<()> {
    let name = claims[0];
    let mounts: Vec<_> = claims.iter().map(|claim| mount(claim)).collect();
    let mut wanted = pod(name, &test.cluster.tools_image, script, &mounts);
    if let Some(spec) = &mut wanted.spec {
        spec.restart_policy = Some("Never".into());
    }
    test.create(&wanted).await?;
    let api = test.api::<Pod>();
    wait_for(
        &format!("pod {name} to end"),
        Duration::from_secs(120),
        async || {
            let phase = api.get(name).await?.status.and_then(|status| status.phase);
            ensure!(
                phase.as_deref() == Some("Succeeded"),
                "`{script}`: {phase:?}"
            );
            Ok(())
        },
    )
    .await?;
    api.delete(name, &DeleteParams::default()).await?;
    wait_for(
        &format!("pod {name} to go"),
        Duration::from_secs(60),
        async || {
            ensure!(api.get_opt(name).await?.is_none(), "it is there");
            Ok(())
        },
    )
    .await
}
