//! Whether a run may begin: what preflight says, and what settings make of it.

use kube::ResourceExt;

use super::Run;
use super::order::first;
use super::records::say;
use crate::exit::Exit;
use crate::migration::{Group, Migration};
use crate::observe::Observed;
use crate::plan::{Plan, Shown, plan};
use crate::preflight::{self, Asked, Refusal};
use crate::stop::Stop;

/// Says what is left, and all that stands against the plan. Without preflight only what cannot be
/// passed over keeps the run from beginning.
///
/// As far as it can, the class is tried by the movers of the first of `groups`: these are there then.
pub async fn may_begin(
    run: &Run,
    observed: &Observed,
    plan: &Plan,
    groups: &mut [Group],
) -> Result<bool, Stop> {
    let shown = Shown::of(plan, observed, &run.config);
    for line in shown.table().lines() {
        tracing::info!("{line}");
    }
    for (claim, why) in &plan.left {
        tracing::warn!(%claim, %why, "claim is left");
    }
    let mut report = run.report.lock().await;
    if !plan.groups.is_empty() || report.plan.is_none() {
        report.plan = serde_json::to_value(&shown).ok();
    }
    drop(report);
    for (claim, notes) in preflight::notes(observed, &run.config, plan) {
        for note in notes {
            tracing::info!(%claim, "{note}");
        }
    }
    let asked = Asked {
        run,
        observed,
        plan,
    };
    let first = first(run, groups, observed);
    let mut refusals = preflight::refusals(asked, first).await?;
    if run.config.skip_preflight {
        let (binding, passed_over): (Vec<_>, Vec<_>) =
            refusals.into_iter().partition(|refusal| refusal.is_binding);
        for Refusal { check, why, .. } in &passed_over {
            tracing::warn!(check, "PASSED OVER, because preflight is skipped: {why}");
        }
        tracing::warn!(
            "PREFLIGHT IS SKIPPED: what it would have refused can fail later, with applications stopped"
        );
        refusals = binding;
    }
    for Refusal { check, why, .. } in &refusals {
        tracing::error!(check, "preflight: {why}");
    }
    if !refusals.is_empty() {
        tracing::error!(
            "preflight refused for {} reasons; nothing was changed",
            refusals.len()
        );
    }
    Ok(refusals.is_empty())
}

/// Plan and preflight, and no more: without the Lease, and without a change.
pub async fn rehearse(
    run: &Run,
    mut observed: Observed,
    unfinished: &[Migration],
) -> Result<Exit, Stop> {
    for migration in unfinished {
        let claim = &migration.record.claim;
        tracing::warn!(%claim, phase = ?migration.record.phase, "an earlier Job has begun this; a run would end it first");
        observed.claims.retain(|seen| {
            seen.namespace().as_deref() != Some(&claim.namespace) || seen.name_any() != claim.name
        });
    }
    let plan = plan(&observed, &run.config);
    if !may_begin(run, &observed, &plan, &mut []).await? {
        return Ok(Exit::Refused);
    }
    plan.groups.iter().for_each(say);
    let claims: usize = plan.groups.iter().map(|group| group.claims.len()).sum();
    tracing::info!(
        groups = plan.groups.len(),
        claims,
        "preflight has nothing against this run; nothing was changed"
    );
    Ok(Exit::Done)
}
