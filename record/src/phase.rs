//! The phases of a claim's migration. Each names a fact that is already true.
//!
//! ```text
//! Planned ─ Staged ─ Retained ─ Fenced ─ Frozen ─ Copied ─ Verified ─ Reserved ─ Vacated ─ Rebound ─ Restored ─ Thawed ─ Done
//!    ▲                                                         │          │         │         │          │
//!    └──── resume: a Job that takes over, or a pass to repeat ─┴──────────┘         │         │          │
//!                                                                                   │         │          │
//! turn back: claim still on its source (to Reserved) ──────────────────────────▶ Rebound      │          │
//!            claim gone or on the destination ──▶ Verified, roles exchanged ◀───────┴─────────┘          │
//!            fence already off                ──▶ Retained, roles exchanged ◀────────────────────────────┘
//! try again: Rebound on the source, still fenced ──▶ Planned
//! ```

use serde::{Deserialize, Serialize};

/// A fact about a claim's migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The claim is part of this run.
    Planned,
    /// The destination exists, is bound to the staging claim, and warm passes are done, where the
    /// claim allows them: a mover has both volumes mounted.
    Staged,
    /// From here to Done neither volume can be reclaimed; their old policies are recorded.
    Retained,
    /// Admission refuses new consumers, claims under the name, and scale-ups: it was proved.
    Fenced,
    /// No consumer is left, and no attachment of the source but the mover's.
    Frozen,
    /// The pass that was ordered after Frozen ended well.
    Copied,
    /// The copy equals the source.
    Verified,
    /// The staging claim is gone, or Terminating for as long as an anchor mounts it; the destination is
    /// reserved for the claim's name.
    Reserved,
    /// The old claim is gone.
    Vacated,
    /// The claim exists again, bound to the volume it heads for, both ways.
    Rebound,
    /// All claims of the group are Rebound, the fence is off.
    Restored,
    /// Workloads run as they did, and are Ready.
    Thawed,
    /// The volume that holds the claim has its lasting policy; the one left behind is kept, or given to
    /// its provisioner to delete.
    Done,
}

/// Which volume the claim shall be bound to in the end. It turns once, on the way back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Heading {
    #[default]
    Destination,
    Source,
}

/// What moves a migration from one phase to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The next phase's fact was made true.
    Advance,
    /// A Job took over, or a consumer was seen where none may be: look at everything again.
    Resume,
    /// The claim shall go back to its source. `claim_on_source` is what was observed.
    TurnBack { claim_on_source: bool },
    /// The claim is back on its source, still fenced: the copy starts again from there.
    TryAgain,
    /// The namespace is gone, or on its way: there is nothing to go back to. Both volumes stay.
    Abandon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a migration that is {phase:?} and heads for the {heading:?} cannot {event:?}")]
pub struct ImpossibleStep {
    pub phase: Phase,
    pub heading: Heading,
    pub event: Event,
}

impl Phase {
    /// In order.
    pub const ALL: [Self; 13] = [
        Self::Planned,
        Self::Staged,
        Self::Retained,
        Self::Fenced,
        Self::Frozen,
        Self::Copied,
        Self::Verified,
        Self::Reserved,
        Self::Vacated,
        Self::Rebound,
        Self::Restored,
        Self::Thawed,
        Self::Done,
    ];
}

/// The one transition function. Total: a new phase or event does not compile until it is
/// decided here.
pub fn transition(
    phase: Phase,
    heading: Heading,
    event: Event,
) -> Result<(Phase, Heading), ImpossibleStep> {
    use Phase::{
        Copied, Done, Fenced, Frozen, Planned, Rebound, Reserved, Restored, Retained, Staged,
        Thawed, Vacated, Verified,
    };
    let impossible = Err(ImpossibleStep {
        phase,
        heading,
        event,
    });
    match event {
        Event::Advance => match phase {
            Planned => Ok((Staged, heading)),
            Staged => Ok((Retained, heading)),
            Retained => Ok((Fenced, heading)),
            Fenced => Ok((Frozen, heading)),
            Frozen => Ok((Copied, heading)),
            Copied => Ok((Verified, heading)),
            Verified => Ok((Reserved, heading)),
            Reserved => Ok((Vacated, heading)),
            Vacated => Ok((Rebound, heading)),
            Rebound => Ok((Restored, heading)),
            Restored => Ok((Thawed, heading)),
            Thawed => Ok((Done, heading)),
            Done => impossible,
        },
        Event::Resume => match (phase, heading) {
            // The claim is still on its source: every fact is made true again, in order.
            (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved,
                Heading::Destination,
            ) => Ok((Planned, heading)),
            // On the way back nothing is copied: what is true stays true.
            (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved,
                Heading::Source,
            )
            | (Vacated | Rebound | Restored | Thawed, Heading::Destination | Heading::Source) => {
                Ok((phase, heading))
            }
            (Done, Heading::Destination | Heading::Source) => impossible,
        },
        Event::Abandon => match phase {
            Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved
            | Vacated | Rebound | Restored | Thawed => Ok((Done, heading)),
            Done => impossible,
        },
        Event::TryAgain => match (phase, heading) {
            (Rebound, Heading::Source) => Ok((Planned, Heading::Destination)),
            (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved
                | Vacated | Restored | Thawed | Done,
                Heading::Source,
            )
            | (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved
                | Vacated | Rebound | Restored | Thawed | Done,
                Heading::Destination,
            ) => impossible,
        },
        Event::TurnBack { claim_on_source } => match (phase, heading, claim_on_source) {
            (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved,
                Heading::Destination,
                true,
            ) => Ok((Rebound, Heading::Source)),
            (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved
                | Vacated | Rebound,
                Heading::Destination,
                false,
            ) => Ok((Verified, Heading::Source)),
            // The fence is off and must be proved again; no pod has run on the destination.
            (Restored, Heading::Destination, false) => Ok((Retained, Heading::Source)),
            // A claim on its source contradicts these; a pod may have written to the destination
            // after a thaw; and the way back has no way back.
            (Vacated | Rebound | Restored, Heading::Destination, true)
            | (Thawed | Done, Heading::Destination, true | false)
            | (
                Planned | Staged | Retained | Fenced | Frozen | Copied | Verified | Reserved
                | Vacated | Rebound | Restored | Thawed | Done,
                Heading::Source,
                true | false,
            ) => impossible,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_visits_every_phase_in_order_and_ends_at_done() {
        for heading in [Heading::Destination, Heading::Source] {
            for pair in Phase::ALL.windows(2) {
                assert_eq!(
                    transition(pair[0], heading, Event::Advance),
                    Ok((pair[1], heading))
                );
            }
            assert!(transition(Phase::Done, heading, Event::Advance).is_err());
        }
    }

    #[test]
    fn a_way_back_exists_from_every_phase_before_thawed() {
        for phase in Phase::ALL {
            let kept = transition(
                phase,
                Heading::Destination,
                Event::TurnBack {
                    claim_on_source: true,
                },
            );
            let lost = transition(
                phase,
                Heading::Destination,
                Event::TurnBack {
                    claim_on_source: false,
                },
            );
            match phase {
                p if p <= Phase::Reserved => {
                    assert_eq!(kept, Ok((Phase::Rebound, Heading::Source)));
                    assert_eq!(lost, Ok((Phase::Verified, Heading::Source)));
                }
                p if p < Phase::Thawed => {
                    assert!(kept.is_err(), "{p:?} contradicts a claim on its source");
                    assert!(matches!(lost, Ok((_, Heading::Source))));
                }
                _ => assert!(kept.is_err() && lost.is_err(), "a pod may have written"),
            }
        }
    }

    #[test]
    fn only_a_claim_that_is_back_on_its_source_is_tried_again() {
        for phase in Phase::ALL {
            for heading in [Heading::Destination, Heading::Source] {
                let again = transition(phase, heading, Event::TryAgain);
                if (phase, heading) == (Phase::Rebound, Heading::Source) {
                    assert_eq!(again, Ok((Phase::Planned, Heading::Destination)));
                } else {
                    assert!(again.is_err(), "{phase:?} {heading:?}");
                }
            }
        }
    }

    #[test]
    fn a_migration_can_be_abandoned_until_it_is_done() {
        for phase in Phase::ALL {
            let abandoned = transition(phase, Heading::Source, Event::Abandon);
            assert_eq!(abandoned.is_ok(), phase != Phase::Done, "{phase:?}");
        }
    }

    #[test]
    fn the_way_back_has_no_way_back() {
        for phase in Phase::ALL {
            for claim_on_source in [true, false] {
                assert!(
                    transition(phase, Heading::Source, Event::TurnBack { claim_on_source })
                        .is_err()
                );
            }
        }
    }

    #[test]
    fn a_takeover_repeats_the_copy_until_the_old_claim_is_gone() {
        for phase in Phase::ALL {
            let resumed = transition(phase, Heading::Destination, Event::Resume);
            match phase {
                p if p <= Phase::Reserved => {
                    assert_eq!(resumed, Ok((Phase::Planned, Heading::Destination)));
                }
                Phase::Done => assert!(resumed.is_err()),
                p => assert_eq!(resumed, Ok((p, Heading::Destination))),
            }
        }
    }

    #[test]
    fn an_impossible_pair_names_itself() {
        let error = transition(Phase::Done, Heading::Source, Event::Advance).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a migration that is Done and heads for the Source cannot Advance"
        );
    }
}
