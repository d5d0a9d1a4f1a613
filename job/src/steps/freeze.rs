//! Fenced → Frozen: no consumer is left, and no attachment of the source but the mover's.

use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use pvmigrate_record::phase::{Heading, Phase};
use pvmigrate_record::record::{Frozen, Method, Record};
use tokio::time::Instant;

use crate::migration::Group;
use crate::pods::PodWatch;
use crate::run::Run;
use crate::stop::Stop;
use crate::workloads;

mod gone;
mod remove;

/// For how long a set counts as it was seen.
const MOMENT: Duration = Duration::from_secs(2);

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let freezings = group.freezings();
    wait_settled(run, group, true).await?;
    let Some(first) = group.claims.first() else {
        return Ok(());
    };
    let consumers = remove::Consumers::of(run, group, &freezings).await?;
    let mark = Frozen {
        release: first.record.release.clone(),
        run: first.record.run.clone(),
        epoch: group.epoch(),
        method: Method::Scale,
        replicas: None,
        suspend: None,
        at: Timestamp::now(),
        when_scaled: None,
    };
    let marks = try_join_all(
        freezings
            .iter()
            .map(|freezing| workloads::stop(run, freezing, &mark)),
    )
    .await?;
    let removed = consumers.remove().await?;
    // What is held runs until its first pod is asked to go, which a budget may put off.
    let is_stop = |method: Method, at: Timestamp| method != Method::Hold || at < mark.at;
    let stopped = freezings
        .iter()
        .zip(marks)
        .filter(|(freezing, at)| is_stop(freezing.method, *at))
        .map(|(_, at)| at)
        .chain(removed)
        .min();

    let watch = group.watch()?;
    // What somebody did to the fence meanwhile is undone, and the fence proved once more; then a
    // fresh list shows what it may have let in.
    let fenced: Vec<&Record> = group.claims.iter().map(|claim| &claim.record).collect();
    run.fence.prove_again(&fenced).await?;
    nobody_left(run, &group.namespace, &watch).await?;
    let pods = watch.now();
    let attachments = gone::attachments_now(run).await?;
    for migration in group
        .claims
        .iter()
        .filter(|claim| claim.record.phase == Phase::Fenced)
    {
        gone::wait_really_gone(run, migration, &pods, &attachments).await?;
    }
    for migration in group.at(Phase::Fenced) {
        migration.record.stopped = stopped;
        // Saved while the final pass runs.
        migration.reach()?;
    }
    Ok(())
}

/// Waits until the sets of which one pod is to go may lose it. A way back waits for nothing, and what
/// was seen a moment ago counts.
pub async fn wait_settled(run: &Run, group: &mut Group, is_fenced: bool) -> Result<(), Stop> {
    let is_new = group.settled.is_some_and(|seen| seen.elapsed() < MOMENT);
    if is_new || group.headings() != [Heading::Destination] {
        return Ok(());
    }
    for freezing in group.freezings() {
        let limit = run.config.freeze_limit();
        let watch = group.watch.as_deref();
        workloads::rolling::wait_settled(&run.cluster, &freezing, watch, is_fenced, limit).await?;
    }
    group.settled = Some(Instant::now());
    Ok(())
}

/// The pods are the truth, admission only closes the race: a list that is newer than the last
/// proof must show what the watch shows, no consumer.
async fn nobody_left(run: &Run, namespace: &str, watch: &PodWatch) -> Result<(), Stop> {
    match watch.fresh_list(&run.cluster, namespace).await? {
        None => Ok(()),
        Some(pod) => Err(Stop::Repeat(format!(
            "pod {pod} came while the group was being stopped"
        ))),
    }
}
