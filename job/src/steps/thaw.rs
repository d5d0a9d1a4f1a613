//! Restored → Thawed: workloads run as they did, and are Ready.

use futures::future::try_join_all;
use jiff::Timestamp;
use pvmigrate_record::phase::{Heading, Phase};

use crate::migration::Group;
use crate::pods::mounted_claims;
use crate::run::Run;
use crate::stop::Stop;
use crate::{causes, workloads};

pub async fn run(run: &Run, group: &mut Group) -> Result<(), Stop> {
    let (all, epoch) = (group.workloads(), group.epoch());
    let thawed = async {
        try_join_all(
            all.iter()
                .map(|workload| workloads::start(&run.cluster, workload, epoch)),
        )
        .await?;
        let limit = run.config.pod_ready_limit();
        try_join_all(
            all.iter()
                .map(|workload| workloads::wait_ready(&run.cluster, workload, limit)),
        )
        .await
    }
    .await;
    match thawed {
        Ok(_) => {}
        // A workload that its owner has deleted meanwhile needs no thaw, but has to be named; from
        // here on nothing goes back by itself.
        Err(Stop::Refused(why)) => {
            let why = format!("{why}{}", why_not_ready(run, group).await);
            return Err(Stop::NotReady(why));
        }
        Err(other) => return Err(other),
    }
    let ready = Timestamp::now();
    for migration in group.at(Phase::Restored) {
        if migration.record.heading == Heading::Destination {
            // An earlier Job may have waited in vain for what is Ready now.
            migration.record.failure = None;
        }
        if migration.record.stopped.is_some() {
            migration.record.ready.get_or_insert(ready);
        }
    }
    try_join_all(
        group
            .at(Phase::Restored)
            .map(|migration| migration.advance(&run.cluster)),
    )
    .await?;
    Ok(())
}

/// What the group's pods say of themselves.
async fn why_not_ready(run: &Run, group: &Group) -> String {
    let api = run.cluster.namespaced(&group.namespace);
    let Ok(pods) = run.cluster.list(&api).await else {
        return String::new();
    };
    let ours = |claim: String| group.claims.iter().any(|m| m.record.claim.name == claim);
    let texts: Vec<String> = pods
        .iter()
        .filter(|pod| mounted_claims(pod).any(ours))
        .map(|pod| format!("; {}", causes::of_pod(pod)))
        .collect();
    texts.concat()
}
