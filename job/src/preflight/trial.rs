//! The proof that the destination's class makes volumes as they are needed: a claim, and a pod that
//! mounts it, for each distinct combination of access modes, volume mode and place. Where a group that
//! begins first has such a claim, these are its staging claim and its mover.
//!
//! ```text
//! clear what a Job left that was killed  →  some at a time:  claim (and pod) made
//!     →  the pod ran to its end  →  pod, claim and volume are removed, whatever came of it
//! ```

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

use super::{Asked, provisioner};
use crate::migration::Group;
use crate::observe::Observed;
use crate::stop::Stop;

mod attempt;
mod choice;
mod movers;
mod objects;
mod removal;

use choice::{ByMover, Trial, Trials, trials, words};
use movers::Movers;
pub use removal::{clear, left};

/// `first` are the groups that begin first, where nothing else stands against the run: what can be
/// tried by their movers is, and these stay if nothing is refused.
pub async fn destination_works(
    asked: Asked<'_>,
    first: Vec<&mut Group>,
) -> Result<Vec<String>, Stop> {
    let (run, observed) = (asked.run, asked.observed);
    // Without the Lease, others of this release may be at work, and their trials are theirs.
    if !run.config.preflight_only {
        removal::clear(run).await?;
    }
    if run.config.skip_preflight {
        return Ok(Vec::new());
    }
    let Some(class) = observed.classes.get(&run.config.dest_sc) else {
        return Ok(Vec::new());
    };
    if let Some(why) = untried(observed, class) {
        tracing::info!(%why, "no trial is made");
        return Ok(Vec::new());
    }
    let mut movers = Movers::of(run, first).await?;
    let Trials {
        by_pods,
        pods_at_once,
        by_movers,
        left_out,
    } = trials(observed, &run.config, asked.plan, &movers.suited());
    movers.choose(&by_movers);
    if left_out > 0 {
        tracing::info!(
            left_out,
            "not every place is tried, but every kind of claim in every zone"
        );
    }
    let attempts: Vec<BoxFuture<_>> = by_pods
        .iter()
        .enumerate()
        .map(|(number, trial)| attempt::attempt(run, class, number, trial).boxed())
        .collect();
    let attempts = stream::iter(attempts).buffered(pods_at_once);
    let others = async {
        let refused: Vec<Option<String>> = attempts.try_collect().await?;
        Ok(refused.into_iter().flatten().collect())
    };
    movers.tried_beside(others).await
}

/// Why nothing is tried: a trial would take a volume that somebody has made by hand.
fn untried(observed: &Observed, class: &StorageClass) -> Option<String> {
    let name = class.name_any();
    if provisioner::is_by_hand(class) {
        return Some(format!("StorageClass {name} has no provisioner"));
    }
    let available = provisioner::available(observed, &name).next()?;
    Some(format!(
        "volume {} of StorageClass {name} is Available, and a trial could take it",
        available.name_any()
    ))
}

#[cfg(test)]
mod tests;
