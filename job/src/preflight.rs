//! What can be known before anything is touched: ordered lists of named checks of one shape, whose
//! sentences are all reported together.
//!
//! ```text
//! checks      pure: what was observed, what was asked for, the plan
//! inquiries   ask the API server, without a change: rights, dry runs
//! trials      what the class gives: last, for if nothing else stands against the run they stay
//! ```

use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::config::Config;
use crate::migration::Group;
use crate::observe::Observed;
use crate::plan::Plan;
use crate::run::Run;
use crate::stop::Stop;

mod admission;
mod backends;
mod basics;
mod claims;
pub mod consumers;
mod in_progress;
pub mod nodes;
mod notes;
mod others;
pub mod placement;
pub mod provisioner;
pub mod rights;
mod room;
mod settings;
mod trial;

pub use notes::notes;
pub use trial::{clear as clear_trials, left as trials_left};

use Weight::{Binding, Passable};

type Check = fn(&Observed, &Config, &Plan) -> Vec<String>;
type Inquiry = for<'a> fn(Asked<'a>) -> BoxFuture<'a, Result<Vec<String>, Stop>>;

/// Adding a check is one function and one line.
const CHECKS: [(&str, Weight, Check); 16] = [
    ("api-version", Passable, basics::api_is_new_enough),
    ("classes", Binding, basics::classes_exist),
    ("namespaces", Passable, basics::namespaces_exist),
    ("namespaces", Binding, basics::namespaces_are_ordinary),
    ("settings", Passable, settings::named_claims_are_there),
    ("settings", Binding, settings::wishes_can_be_met),
    ("workloads", Binding, basics::workloads_can_be_stopped),
    ("bound", Binding, claims::are_bound_both_ways),
    ("claims", Passable, claims::can_be_made_again),
    ("in-progress", Passable, in_progress::nothing_is_in_progress),
    ("backend", Binding, backends::nobody_else_has_the_data),
    ("releases", Binding, others::nobody_else_is_at_work),
    ("provisioner", Passable, provisioner::is_alive),
    ("placement", Passable, placement::is_possible),
    ("quota", Passable, room::quotas_allow),
    ("capacity", Passable, room::storage_suffices),
];

/// The same, for what only the API server can answer; all of it can be passed over.
const INQUIRIES: [(&str, Inquiry); 3] = [
    ("rights", rights::are_granted),
    ("admission", admission::movers_are_admitted),
    ("admission", admission::claims_are_admitted),
];

/// Whether a setting may pass over a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    Passable,
    /// It touches what is not ours, or cannot be done at all.
    Binding,
}

/// What an inquiry is about.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub run: &'a Run,
    pub observed: &'a Observed,
    pub plan: &'a Plan,
}

/// What stands against the plan: a sentence, and the check that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub check: &'static str,
    pub why: String,
    /// No setting passes over it.
    pub is_binding: bool,
}

/// All that stands against the plan; empty if nothing does. Then some of the claims that begin `first`
/// have their movers already.
pub async fn refusals(asked: Asked<'_>, first: Vec<&mut Group>) -> Result<Vec<Refusal>, Stop> {
    let Asked {
        run,
        observed,
        plan,
    } = asked;
    let mut all = checked(observed, &run.config, plan);
    let of_check = |check, whys: Vec<String>| {
        whys.into_iter().map(move |why| Refusal {
            check,
            why,
            is_binding: false,
        })
    };
    let answers = INQUIRIES.map(|(check, inquiry)| async move {
        let whys = inquiry(asked).await?;
        Ok::<_, Stop>(of_check(check, whys))
    });
    all.extend(try_join_all(answers).await?.into_iter().flatten());
    let first = if all.is_empty() { first } else { Vec::new() };
    let tried = Box::pin(trial::destination_works(asked, first)).await?;
    all.extend(of_check("trial", tried));
    Ok(all)
}

/// What the pure checks say.
fn checked(observed: &Observed, config: &Config, plan: &Plan) -> Vec<Refusal> {
    let refusals = CHECKS.iter().flat_map(|(check, weight, run)| {
        let whys = run(observed, config, plan).into_iter();
        whys.map(move |why| Refusal {
            check,
            why,
            is_binding: *weight == Binding,
        })
    });
    refusals.collect()
}

/// The claims that are to be moved.
fn claims(plan: &Plan) -> impl Iterator<Item = &PersistentVolumeClaim> {
    plan.groups.iter().flat_map(|group| &group.claims)
}

#[cfg(test)]
pub mod tests;
