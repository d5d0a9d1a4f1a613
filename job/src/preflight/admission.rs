//! Whether the API server would take what the Job makes in each namespace: by dry runs, through
//! PodSecurity, quotas, LimitRanges, policies and other webhooks.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::ResourceExt;
use pvmigrate_record::phase::Heading;
use pvmigrate_record::record::Record;

use super::{Asked, placement};
use crate::claim::{access_modes, size, staging_claim, wanted};
use crate::mover::{Placement, mover_pod};
use crate::plan::full_name;
use crate::quantity::bytes;
use crate::run::new_record;
use crate::stop::Stop;

/// How many dry runs are asked for at the same time.
const AT_ONCE: usize = 8;

/// One dry run for each namespace and shape of mover.
pub fn movers_are_admitted(asked: Asked<'_>) -> BoxFuture<'_, Result<Vec<String>, Stop>> {
    Box::pin(async move {
        let mut shapes = BTreeMap::new();
        for site in placement::sites(asked.observed, &asked.run.config, asked.plan) {
            // Node and neighbours say where it runs, not what it is.
            let placement = Placement {
                node: None,
                together: BTreeSet::new(),
                ..site.placement
            };
            for claim in site.claims {
                let namespace = claim.namespace().unwrap_or_default();
                let is_block = wanted(claim, &asked.run.config).is_block();
                let shape = format!("{namespace} {is_block} {placement:?}");
                shapes
                    .entry(shape)
                    .or_insert_with(|| (claim, placement.clone()));
            }
        }
        let dry_runs: Vec<_> = shapes
            .into_values()
            .map(|(claim, placement)| dry_run_mover(asked, claim, placement))
            .collect();
        answers(dry_runs).await
    })
}

async fn dry_run_mover(
    asked: Asked<'_>,
    claim: &PersistentVolumeClaim,
    placement: Placement,
) -> Result<Option<String>, Stop> {
    let mut pod = mover_pod(&record(asked, claim), &asked.run.config, &placement);
    // Under a name of its own: the mover that an earlier Job has made may still be there.
    pod.metadata.name = Some(format!("{}-probe", pod.name_any()));
    let namespace = claim.namespace().unwrap_or_default();
    let api = asked.run.cluster.namespaced(&namespace);
    match asked.run.cluster.dry_run(&api, &pod).await {
        Ok(()) => Ok(None),
        Err(Stop::Refused(why)) => Ok(Some(format!(
            "namespace {namespace} does not admit a mover: {why}"
        ))),
        Err(other) => Err(other),
    }
}

/// One dry run for the smallest and one for the largest staging claim of each namespace and shape.
pub fn claims_are_admitted(asked: Asked<'_>) -> BoxFuture<'_, Result<Vec<String>, Stop>> {
    Box::pin(async move {
        let mut shapes: BTreeMap<_, Vec<&PersistentVolumeClaim>> = BTreeMap::new();
        for claim in super::claims(asked.plan) {
            let wanted = wanted(claim, &asked.run.config);
            let modes = access_modes(&wanted, Heading::Destination).to_vec();
            let shape = (claim.namespace(), modes, wanted.volume_mode);
            shapes.entry(shape).or_default().push(claim);
        }
        let mut dry_runs = Vec::new();
        for mut claims in shapes.into_values() {
            claims.sort_by_cached_key(|claim| bytes(size(&wanted(claim, &asked.run.config))));
            let largest = claims.pop();
            let both = claims.first().copied().into_iter().chain(largest);
            dry_runs.extend(both.map(|claim| dry_run_claim(asked, claim)));
        }
        answers(dry_runs).await
    })
}

async fn dry_run_claim(
    asked: Asked<'_>,
    claim: &PersistentVolumeClaim,
) -> Result<Option<String>, Stop> {
    let mut wanted = staging_claim(&record(asked, claim), None);
    wanted.metadata.name = Some(format!("{}-probe", wanted.name_any()));
    let api = asked
        .run
        .cluster
        .namespaced(&claim.namespace().unwrap_or_default());
    match asked.run.cluster.dry_run(&api, &wanted).await {
        Ok(()) => Ok(None),
        // What all claims together are short of is said by the check of quotas.
        Err(Stop::Refused(why)) if why.contains("exceeded quota") => Ok(None),
        Err(Stop::Refused(why)) => Ok(Some(format!(
            "a staging claim for claim {} is not admitted: {why}",
            full_name(claim)
        ))),
        Err(other) => Err(other),
    }
}

fn record(asked: Asked<'_>, claim: &PersistentVolumeClaim) -> Record {
    let group = asked
        .plan
        .groups
        .iter()
        .find(|group| {
            group
                .claims
                .iter()
                .any(|c| c.metadata.uid == claim.metadata.uid)
        })
        .expect("a claim of the plan is in a group");
    new_record(asked.run, group, claim, &PersistentVolume::default())
}

/// What dry runs have said, each sentence once.
async fn answers(
    dry_runs: Vec<impl Future<Output = Result<Option<String>, Stop>>>,
) -> Result<Vec<String>, Stop> {
    let answers = stream::iter(dry_runs).buffered(AT_ONCE);
    let answers: BTreeSet<Option<String>> = answers.try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}
