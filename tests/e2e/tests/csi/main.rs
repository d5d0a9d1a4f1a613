//! What the test bed's CSI driver does that local-path does not, and what goes wrong with it on
//! request. On another cluster these test nothing: driver and classes are the test bed's.

mod attach;
mod faults;
mod grow;
mod snapshots;
mod topology;
mod volumes;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use pvmigrate_e2e::csi::on_node;
use pvmigrate_e2e::{Test, mount, pod, stay};

/// A pod that mounts these claims, runs the script and stays.
fn app(test: &Test, name: &str, script: &str, claims: &[&str]) -> Pod {
    let mounts: Vec<_> = claims.iter().map(|claim| mount(claim)).collect();
    pod(name, &test.cluster.tools_image, &stay(script), &mounts)
}

/// One that mounts the claim `data` on this node.
fn app_on(test: &Test, name: &str, node: &str) -> Pod {
    on_node(app(test, name, "", &["data"]), node)
}

async fn capacity(test: &Test, claim: &str) -> Result<String> {
    let found = test.api::<PersistentVolumeClaim>().get(claim).await?;
    let size = found
        .status
        .and_then(|status| status.capacity)
        .and_then(|capacity| capacity.get("storage").cloned());
    Ok(size.context("a claim without a capacity")?.0)
}

/// Of what `stat -f -c '%b %S'` prints.
fn bytes(printed: &str) -> Result<u64> {
    let (blocks, size) = printed.trim().split_once(' ').context("two numbers")?;
    Ok(blocks.parse::<u64>()? * size.parse::<u64>()?)
}
