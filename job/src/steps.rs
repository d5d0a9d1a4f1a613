//! The steps of a group, one file a phase: each makes the next phase's fact true, and may be
//! repeated at any time.

use pvmigrate_record::phase::Phase;

use crate::migration::Group;
use crate::run::Run;
use crate::stop::Stop;

pub mod back;
pub mod copy;
mod fence;
mod finish;
mod freeze;
mod rebind;
mod reserve;
mod restore;
mod retain;
pub mod stage;
mod thaw;
mod vacate;

/// Makes true what comes after the phase of the claims that are furthest behind.
pub async fn next(run: &Run, group: &mut Group) -> Result<(), Stop> {
    match group.behind() {
        Phase::Planned => Box::pin(stage::run(run, group)).await,
        Phase::Staged => Box::pin(retain::run(run, group)).await,
        Phase::Retained => Box::pin(fence::run(run, group)).await,
        Phase::Fenced => Box::pin(freeze::run(run, group)).await,
        Phase::Frozen => Box::pin(copy::run(run, group)).await,
        Phase::Copied => copy::verify(run, group),
        Phase::Verified => Box::pin(reserve::run(run, group)).await,
        Phase::Reserved => Box::pin(vacate::run(run, group)).await,
        Phase::Vacated => Box::pin(rebind::run(run, group)).await,
        Phase::Rebound => Box::pin(restore::run(run, group)).await,
        Phase::Restored => Box::pin(thaw::run(run, group)).await,
        Phase::Thawed | Phase::Done => Box::pin(finish::run(run, group)).await,
    }
}
