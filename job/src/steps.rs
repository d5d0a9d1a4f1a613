//! The steps of a group, one file a phase: each makes the next phase's fact true, and may be
//! repeated at any time.

use pvmigrate_record::phase::Phase;

use crate::migration::Group;
use crate::run::Run;
use crate::stop::Stop;

pub mod back;
mod copy;
mod fence;
mod finish;
mod freeze;
mod rebind;
mod reserve;
mod restore;
mod retain;
mod stage;
mod thaw;
mod vacate;

/// Makes true what comes after the phase of the claims that are furthest behind.
pub async fn next(run: &Run, group: &mut Group) -> Result<(), Stop> {
    match group.behind() {
        Phase::Planned => stage::run(run, group).await,
        Phase::Staged => retain::run(run, group).await,
        Phase::Retained => fence::run(run, group).await,
        Phase::Fenced => freeze::run(run, group).await,
        Phase::Frozen => copy::run(run, group).await,
        Phase::Copied => copy::verify(run, group).await,
        Phase::Verified => reserve::run(run, group).await,
        Phase::Reserved => vacate::run(run, group).await,
        Phase::Vacated => rebind::run(run, group).await,
        Phase::Rebound => restore::run(run, group).await,
        Phase::Restored => thaw::run(run, group).await,
        Phase::Thawed | Phase::Done => finish::run(run, group).await,
    }
}
