//! A run's end before its time, under the Lease: every group goes back to its source where no pod
//! has run on the destination yet, and on to its end where one may have.

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use pvmigrate_record::phase::{Heading, Phase};

use super::Run;
use super::records::unfinished;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::drive::{Will, stuck, take_over};
use crate::exit::Exit;
use crate::migration::Group;
use crate::observe::observe;
use crate::preflight;
use crate::report::State;
use crate::steps;
use crate::stop::Stop;
use crate::templates;

/// Ends every unfinished group of the release, takes the fence down, and names what does not run.
pub async fn abort(
    cluster: Cluster,
    config: Config,
    cluster_owner: Option<OwnerReference>,
    owner: Option<OwnerReference>,
) -> Result<Exit, Stop> {
    let observed = observe(&cluster, &config).await?;
    let mut run = Run::new(cluster, config, cluster_owner, owner, &observed).await?;
    Box::pin(templates::finish_earlier(&run)).await?;
    let groups = Group::gather(unfinished(&run, &observed).await?);
    run.fence.do_without_webhook_if_gone().await?;
    run.fence.settle().await?;
    let ending = stream::iter(groups)
        .map(|mut group| async {
            let ended = Box::pin(end(&run, &mut group)).await;
            (group.name, ended)
        })
        .buffer_unordered(run.config.parallelism_groups.get())
        .collect();
    let ended: Vec<(String, Result<Ended, Stop>)> = run.fence.guarding(ending).await;
    run.fence.tidy().await?;
    preflight::clear_trials(&run).await?;
    let (mut not_ready, mut stopped) = (false, None);
    for (group, ended) in ended {
        match ended {
            Ok(Ended::OnSource) => tracing::info!(%group, "back on its sources"),
            Ok(Ended::Moved) => tracing::info!(
                %group, "its applications had been started on the new volumes: it was migrated to the end"
            ),
            Ok(Ended::NotReady(why)) => {
                not_ready = true;
                tracing::error!(%group, %why, "ended, and its applications are not Ready");
            }
            Err(stop) => {
                tracing::error!(%group, why = %stop, "not ended yet");
                stopped.get_or_insert(stop);
            }
        }
    }
    if let Some(stop) = stopped {
        return Err(stop);
    }
    run.fence.close().await?;
    let mut report = run.report.lock().await;
    if report.state == State::Running && !report.claims.is_empty() {
        report.state = State::Aborted;
        report.ended = Some(Timestamp::now());
        let owner = run.owner.as_ref();
        report.write(&run.cluster, &run.config, owner).await?;
    }
    Ok(if not_ready { Exit::Failed } else { Exit::Done })
}

/// How a group ended.
enum Ended {
    OnSource,
    Moved,
    NotReady(String),
}

async fn end(run: &Run, group: &mut Group) -> Result<Ended, Stop> {
    // Nothing is stopped before the fence is up. What never was need not be started, and is not
    // waited for: it may have been ill before.
    let may_be_stopped = group
        .claims
        .iter()
        .any(|claim| claim.record.fence.on || claim.record.phase >= Phase::Fenced);
    take_over(run, group, Will::Abort).await?;
    let mut not_ready = None;
    while group.behind() < Phase::Done {
        let done = if group.behind() == Phase::Restored && !may_be_stopped {
            advance(run, group).await
        } else {
            Box::pin(steps::next(run, group)).await
        };
        match done {
            Ok(()) => {}
            Err(Stop::NotReady(why)) => {
                // They are started, which is all that can be done for them here.
                group.note_failure(&why, Timestamp::now());
                not_ready = Some(why);
                advance(run, group).await?;
            }
            Err(stop) => {
                // What is refused here leaves the fence as it is, and the rest of the group too.
                run.note([&*group]).await?;
                return Err(stuck(stop));
            }
        }
    }
    run.note([&*group]).await?;
    run.fence.tidy().await?;
    let on_source = group.headings() == [Heading::Source];
    Ok(match not_ready {
        Some(why) => Ended::NotReady(why),
        None if on_source => Ended::OnSource,
        None => Ended::Moved,
    })
}

/// Restored → Thawed without a look at the workloads.
async fn advance(run: &Run, group: &mut Group) -> Result<(), Stop> {
    for migration in group.at(Phase::Restored) {
        migration.advance(&run.cluster).await?;
    }
    Ok(())
}
