//! Gone means gone: what shows that nobody uses a source volume any more.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
use kube::api::Api;
use pvmigrate_record::phase::Heading;
use tokio::time::Instant;

use crate::migration::Migration;
use crate::pods::Pods;
use crate::run::Run;
use crate::stop::Stop;
use crate::wait::SAY_EVERY;

/// How often nodes and attachments are looked at while they are in the way.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A consumer is gone only if its last seen state had every container terminated. One that
/// vanished earlier proves nothing: then its node must show it.
pub async fn wait_really_gone(run: &Run, migration: &Migration, pods: &Pods) -> Result<(), Stop> {
    let ended = |uid: &str| pods.seen.get(uid).is_some_and(|pod| pod.ended);
    let consumers = migration
        .record
        .consumers
        .iter()
        .map(|c| (c.uid.as_str(), c.name.as_str(), c.node.as_str()));
    let others = pods
        .seen
        .values()
        .filter(|pod| pod.claims.contains(&migration.record.claim.name));
    let others = others.map(|pod| {
        (
            pod.uid.as_str(),
            pod.name.as_str(),
            pod.node.as_deref().unwrap_or_default(),
        )
    });
    let unproved: BTreeSet<_> = consumers
        .chain(others)
        .filter(|(uid, _, node)| !node.is_empty() && !ended(uid))
        .collect();
    let started = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        let mut missing = None;
        for (_, name, node) in &unproved {
            if let Some(why) = node_denies(run, migration, node).await? {
                missing = Some(format!(
                    "pod {name} vanished before it was seen to end, and {why}"
                ));
            }
        }
        if missing.is_none() {
            missing = foreign_attachment(run, migration).await?;
        }
        let Some(missing) = missing else {
            return Ok(());
        };
        if started.elapsed() > run.config.freeze_limit() {
            return Err(Stop::Refused(format!(
                "waited {} s for the consumers of claim {} to be gone, in vain: {missing}",
                run.config.freeze_seconds, migration.record.claim
            )));
        }
        if said.is_none_or(|last| last.elapsed() > SAY_EVERY) {
            said = Some(Instant::now());
            tracing::info!(claim = %migration.record.claim, %missing, "still waiting for consumers to be gone");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Why a node does not show that a pod which vanished there has let go; none if it does. Whether
/// the volume is in use cannot be told where our own mover uses it.
async fn node_denies(run: &Run, migration: &Migration, name: &str) -> Result<Option<String>, Stop> {
    let Some(node) = run.cluster.get(&run.cluster.all::<Node>(), name).await? else {
        return Ok(Some(format!("its node {name} does not exist any more")));
    };
    let status = node.status.unwrap_or_default();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    if !ready {
        return Ok(Some(format!("its node {name} is not Ready")));
    }
    let csi = migration
        .volume
        .spec
        .as_ref()
        .and_then(|spec| spec.csi.as_ref());
    let Some(csi) = csi else { return Ok(None) };
    if mover_node(run, migration).await?.as_deref() == Some(name) {
        return Ok(None);
    }
    let unique = format!("kubernetes.io/csi/{}^{}", csi.driver, csi.volume_handle);
    let in_use = status
        .volumes_in_use
        .iter()
        .flatten()
        .any(|used| *used == unique);
    Ok(in_use.then(|| {
        format!(
            "its node {name} still uses volume {}",
            migration.record.source.name
        )
    }))
}

async fn mover_node(run: &Run, migration: &Migration) -> Result<Option<String>, Stop> {
    let mover = run
        .cluster
        .get(&migration.pods(&run.cluster), &migration.staging_name())
        .await?;
    Ok(mover
        .and_then(|pod| pod.spec)
        .and_then(|spec| spec.node_name))
}

/// An attachment of the source elsewhere than where the mover runs.
async fn foreign_attachment(run: &Run, migration: &Migration) -> Result<Option<String>, Stop> {
    let api: Api<VolumeAttachment> = run.cluster.all();
    let source = &migration.record.source.name;
    let attachments = run.cluster.list(&api).await?;
    let mut attached = attachments
        .into_iter()
        .filter(|a| a.spec.source.persistent_volume_name.as_ref() == Some(source))
        .peekable();
    if attached.peek().is_none() || migration.record.heading == Heading::Source {
        return Ok(None);
    }
    let node = mover_node(run, migration).await?;
    Ok(attached
        .find(|a| Some(&a.spec.node_name) != node.as_ref())
        .map(|a| {
            format!(
                "volume {source} is still attached to node {} ({})",
                a.spec.node_name,
                a.name_any()
            )
        }))
}
