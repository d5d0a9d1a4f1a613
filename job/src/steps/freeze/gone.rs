//! Gone means gone: what shows that nobody uses a source volume any more.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::ResourceExt;
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
///
/// `attachments` are those that were listed when the last consumer had gone.
pub async fn wait_really_gone(
    run: &Run,
    migration: &Migration,
    pods: &Pods,
    attachments: &[VolumeAttachment],
) -> Result<(), Stop> {
    let mover = mover_node(pods, migration);
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
    let mut attachments = attachments.to_vec();
    loop {
        let mut missing = None;
        for (_, name, node) in &unproved {
            if let Some(why) = node_denies(run, migration, node, mover).await? {
                missing = Some(format!(
                    "pod {name} vanished before it was seen to end, and {why}"
                ));
            }
        }
        if missing.is_none() {
            missing = foreign_attachment(migration, &attachments, mover);
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
        attachments = attachments_now(run).await?;
    }
}

pub async fn attachments_now(run: &Run) -> Result<Vec<VolumeAttachment>, Stop> {
    run.cluster.list(&run.cluster.all()).await
}

/// Why a node does not show that a pod which vanished there has let go; none if it does. Whether
/// the volume is in use cannot be told where our own mover uses it.
async fn node_denies(
    run: &Run,
    migration: &Migration,
    name: &str,
    mover: Option<&str>,
) -> Result<Option<String>, Stop> {
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
    if mover == Some(name) {
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

fn mover_node<'a>(pods: &'a Pods, migration: &Migration) -> Option<&'a str> {
    let mover = pods.movers.get(&migration.staging_name());
    mover.filter(|mover| !mover.deleted)?.node.as_deref()
}

/// An attachment of the source elsewhere than where the mover runs.
fn foreign_attachment(
    migration: &Migration,
    attachments: &[VolumeAttachment],
    mover: Option<&str>,
) -> Option<String> {
    if migration.record.heading == Heading::Source {
        return None;
    }
    let source = &migration.record.source.name;
    let mut attached = attachments
        .iter()
        .filter(|a| a.spec.source.persistent_volume_name.as_ref() == Some(source));
    let foreign = attached.find(|a| Some(a.spec.node_name.as_str()) != mover)?;
    Some(format!(
        "volume {source} is still attached to node {} ({})",
        foreign.spec.node_name,
        foreign.name_any()
    ))
}
