//! One crash point: a Job that is ended at a write, the Job after it, and the end of both.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use pvmigrate_record::names;

use super::application::Kind;
use super::end::{after_an_abort, check, settled};
use super::release::{NAME, Release};
use super::scene::{JOB_LIMIT, Scene};
use crate::{Local, When, Write, wait_for};

/// How a migration ends when nothing interrupts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything is on its destination.
    Migrated,
    /// No mover ever runs: nothing was stopped, and everything is on its source.
    FailedEarly,
    /// The new claim is refused when the old one is gone: everything is back on its source.
    FailedLate,
    /// It was aborted: everything is back on its source.
    Aborted,
}

/// What happens to the Job at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// It is killed. The Job that goes on is killed too, at a write of its own, if one is named.
    Kill(When, Option<(usize, When)>),
    /// It is told to end, with the write in hand.
    Terminate,
    /// It is suspended with the write on its way, which goes on when another Job has taken over
    /// and ended.
    Outlive,
    /// It is killed, and the run is aborted, not gone on with. The abort is killed too, at a write
    /// of its own, if one is named, and repeated.
    Abort(When, Option<(usize, When)>),
}

#[derive(Clone, Debug)]
pub struct Point {
    pub kind: Kind,
    pub ending: Ending,
    /// The write, as it was in the run that the list is from.
    pub write: Write,
    pub strike: Strike,
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            ending,
            write,
            strike,
        } = self;
        write!(f, "{kind:?}, {ending:?}, {strike:?} at {write}")
    }
}

impl Ending {
    pub fn code(self) -> i32 {
        match self {
            Self::Migrated | Self::Aborted => 0,
            Self::FailedEarly | Self::FailedLate => 4,
        }
    }
}

/// A run without a crash, checked like any other: the writes that it makes.
pub async fn reference(release: &Release, kind: Kind, ending: Ending) -> Result<Vec<Write>> {
    let scene = Scene::set(release, kind, ending).await?;
    let mut job = scene.job("job")?;
    last(&mut job, ending).await?;
    let writes = scene.proxy.writes();
    check(&scene, ending).await?;
    scene.clear().await?;
    Ok(writes)
}

/// Plays a point; whether its write came at all. The log of its Jobs is in the error.
pub async fn play(release: &Release, point: &Point) -> Result<bool> {
    let scene = Scene::set(release, point.kind, point.ending).await?;
    let played = async {
        let struck = match point.strike {
            Strike::Kill(when, again) => killed(&scene, point, when, again).await?,
            Strike::Terminate => terminated(&scene, point).await?,
            Strike::Outlive => outlived(&scene, point).await?,
            Strike::Abort(when, again) => aborted(&scene, point, when, again).await?,
        };
        check(&scene, point.ending).await?;
        anyhow::Ok(struck)
    }
    .await;
    let struck = played.with_context(|| {
        let log = std::fs::read_to_string(&scene.log).unwrap_or_default();
        format!("namespace {}; its Jobs said:\n{log}", scene.namespace)
    })?;
    scene.clear().await?;
    Ok(struck)
}

async fn killed(
    scene: &Scene<'_>,
    point: &Point,
    when: When,
    again: Option<(usize, When)>,
) -> Result<bool> {
    let struck = kill_at(scene, point, point.write.number, when).await?;
    if let (true, Some((number, when))) = (struck, again) {
        kill_at(scene, point, number, when).await?;
    }
    scene.proxy.open();
    last(&mut scene.job("job")?, point.ending).await?;
    Ok(struck)
}

/// Starts a Job and kills it at a write; whether the write came.
async fn kill_at(scene: &Scene<'_>, point: &Point, number: usize, when: When) -> Result<bool> {
    // The same name each time, so that the Lease is its own, and nothing waits for it.
    let mut job = scene.job("job")?;
    scene.proxy.arm(number, when, job.killer());
    let status = job.wait(JOB_LIMIT).await?;
    let struck = scene.proxy.has_struck();
    let wanted = if struck {
        None
    } else {
        Some(point.ending.code())
    };
    ensure!(
        status.code() == wanted,
        "the Job to be killed ended with {status}"
    );
    Ok(struck)
}

async fn terminated(scene: &Scene<'_>, point: &Point) -> Result<bool> {
    let mut hold = scene.proxy.hold(point.write.number);
    let mut job = scene.job("terminated")?;
    tokio::select! {
        Some(_) = hold.came() => {}
        status = job.wait(JOB_LIMIT) => {
            ensure!(status?.code() == Some(point.ending.code()), "the Job ended with another code");
            return Ok(false);
        }
    }
    job.terminate()?;
    // It has to see the signal before the answer, or the last write of a run would be its end.
    tokio::time::sleep(Duration::from_millis(500)).await;
    hold.forward();
    let status = job.wait(Duration::from_secs(15)).await?;
    ensure!(
        status.code() == Some(1),
        "told to end, it ended with {status}"
    );
    let after = scene.proxy.writes().len();
    let in_hand = scene
        .proxy
        .writes()
        .iter()
        .filter(|w| w.status.is_none())
        .count();
    ensure!(in_hand == 0, "{in_hand} of {after} writes were cut off");
    let leases = Api::<Lease>::namespaced(
        scene.release.cluster.client.clone(),
        &scene.release.namespace,
    );
    let lease = leases.get(&names::lease(NAME)).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    ensure!(
        holder.as_deref().unwrap_or_default().is_empty(),
        "the Lease is still held by {holder:?}"
    );
    scene.proxy.open();
    last(&mut scene.job("next")?, point.ending).await?;
    Ok(true)
}

async fn outlived(scene: &Scene<'_>, point: &Point) -> Result<bool> {
    let number = point.write.number;
    let mut hold = scene.proxy.hold(number);
    let mut stale = scene.job("stale")?;
    tokio::select! {
        Some(_) = hold.came() => {}
        status = stale.wait(JOB_LIMIT) => {
            ensure!(status?.code() == Some(point.ending.code()), "the Job ended with another code");
            return Ok(false);
        }
    }
    stale.suspend()?;
    let proxy = scene.release.proxy().await?;
    // Another name: the Lease has to be seen unrenewed first.
    last(&mut scene.job_behind(&proxy, "newer")?, point.ending).await?;
    check(scene, point.ending)
        .await
        .context("before the stale Job woke up")?;
    hold.forward();
    wait_for(
        "the late write's answer",
        Duration::from_secs(20),
        async || {
            let write = scene.proxy.writes()[number - 1].clone();
            ensure!(write.status.is_some(), "there is none");
            Ok(())
        },
    )
    .await?;
    stale.wake()?;
    let status = stale.wait(Duration::from_secs(60)).await?;
    ensure!(
        status.code() == Some(1),
        "the stale Job ended with {status}"
    );
    Ok(true)
}

/// Nothing is left of the run, whatever it had done; and the next one goes through as the first.
async fn aborted(
    scene: &Scene<'_>,
    point: &Point,
    when: When,
    again: Option<(usize, When)>,
) -> Result<bool> {
    let struck = kill_at(scene, point, point.write.number, when).await?;
    let ends = after_an_abort(scene).await?;
    if let (true, Some((number, when))) = (struck, again) {
        let mut abort = scene.abort("job")?;
        scene.proxy.arm(number, when, abort.killer());
        let status = abort.wait(JOB_LIMIT).await?;
        let wanted = if scene.proxy.has_struck() {
            None
        } else {
            Some(0)
        };
        ensure!(status.code() == wanted, "the abort ended with {status}");
    }
    scene.proxy.open();
    last(&mut scene.abort("job")?, Ending::Aborted).await?;
    settled(scene, &ends)
        .await
        .with_context(|| format!("after the abort, which was to end with {ends:?}"))?;
    last(&mut scene.job("next")?, point.ending).await?;
    Ok(struck)
}

/// The Job that nobody interrupts.
async fn last(job: &mut Local, ending: Ending) -> Result<()> {
    let status = job.wait(JOB_LIMIT).await?;
    ensure!(
        status.code() == Some(ending.code()),
        "the last Job ended with {status}; it said:\n{}",
        job.tail()
    );
    Ok(())
}
