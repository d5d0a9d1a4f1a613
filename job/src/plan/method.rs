//! How each workload is frozen, and why so.
//!
//! | workload | `auto` |
//! |---|---|
//! | StatefulSet whose pods mount only their own claims | hold, one pod at a time |
//! | what another controller, an autoscaler or a GitOps tool steers | hold |
//! | Deployment, StatefulSet, ReplicaSet, ReplicationController | scale |
//! | DaemonSet, custom resource that controls pods itself | hold |
//! | CronJob | suspend; hold where it is steered |
//! | Job, also one that a CronJob has started | it is waited for, or suspended where `jobs` says so |
//! | bare pod | recreate, where `barePods` says so |

use pvmigrate_record::names;
use pvmigrate_record::record::Method;

use super::owners::User;
use crate::config::{Config, FreezeBy, Jobs};
use crate::observe::{Observed, is_built_in};

/// A method, and the reason for it as a clause.
pub type Choice = (Method, String);

/// What somebody asked for, and whether for this workload or for all.
#[derive(Clone, Copy, PartialEq)]
struct Asked {
    by: FreezeBy,
    here: bool,
}

/// How a workload is frozen as a whole; or, as a sentence, why it cannot be.
pub fn choose(user: &User, observed: &Observed, config: &Config) -> Result<Choice, String> {
    let asked = asked(user, config)?;
    let kind = user.workload.kind.as_str();
    let Some(seen) = user.seen else {
        return Ok((Method::Recreate, "nothing else would make it again".into()));
    };
    let steered = || steered(user, observed);
    let hold = |why: &str| Ok((Method::Hold, why.to_string()));
    let told = |method| Ok((method, told_by(asked)));
    if !is_built_in(&user.workload.api_version, kind) {
        return match asked {
            Asked {
                by: FreezeBy::Scale,
                here: true,
            } if seen.has_scale => told(Method::Scale),
            Asked {
                by: FreezeBy::Scale,
                here: true,
            } => Err(format!(
                "{} has the annotation {} with value scale, and its kind has no replicas to scale: remove it, or set it to hold",
                user.workload,
                names::FREEZE
            )),
            _ => hold("it controls its pods itself"),
        };
    }
    match (kind, asked.by) {
        ("DaemonSet", _) => hold("a DaemonSet has no replicas to scale"),
        ("Job" | "CronJob", FreezeBy::Hold) if asked.here => told(Method::Hold),
        ("Job", _) => Ok(match config.jobs {
            Jobs::Wait => (Method::Suspend, "it is waited for".into()),
            // Also where something steers it: somebody has asked for it, and the fence refuses to
            // have it undone.
            Jobs::Suspend => (Method::Suspend, "the value jobs says so".into()),
        }),
        (_, FreezeBy::Hold) => told(Method::Hold),
        ("CronJob", FreezeBy::Scale) => told(Method::Suspend),
        ("CronJob", FreezeBy::Auto) => Ok(steered().map_or_else(
            || {
                let why = match config.jobs {
                    Jobs::Wait => "its next Jobs can wait, and those that run are waited for",
                    Jobs::Suspend => "its next Jobs can wait, and those that run are suspended",
                };
                (Method::Suspend, why.into())
            },
            |by| (Method::Hold, by),
        )),
        (_, FreezeBy::Scale) if is_scaled(user, asked) => told(Method::Scale),
        (_, FreezeBy::Scale | FreezeBy::Auto) => Ok(steered().map_or_else(
            || (Method::Scale, "nothing else steers it".into()),
            |by| (Method::Hold, by),
        )),
    }
}

/// Whether a StatefulSet may be frozen one pod at a time, if its pods share nothing.
pub fn may_roll(user: &User, config: &Config) -> bool {
    let is_set = user.workload.kind == "StatefulSet" && user.workload.api_version == "apps/v1";
    is_set && asked(user, config).is_ok_and(|asked| !is_scaled(user, asked))
}

/// A value for all is not meant for what an operator would put right at once.
fn is_scaled(user: &User, asked: Asked) -> bool {
    let is_controlled = user.seen.is_some_and(|seen| seen.controller.is_some());
    asked.by == FreezeBy::Scale && (asked.here || !is_controlled)
}

fn asked(user: &User, config: &Config) -> Result<Asked, String> {
    let Some((carrier, text)) = user.freeze else {
        return Ok(Asked {
            by: config.freeze,
            here: false,
        });
    };
    let by = match text {
        "auto" => FreezeBy::Auto,
        "scale" => FreezeBy::Scale,
        "hold" => FreezeBy::Hold,
        other => {
            return Err(format!(
                "{carrier} has the annotation {} with value {other:?}: it can be auto, scale or hold",
                names::FREEZE
            ));
        }
    };
    Ok(Asked { by, here: true })
}

fn told_by(asked: Asked) -> String {
    if asked.here {
        format!("its annotation {} says so", names::FREEZE)
    } else {
        "the value freeze says so".into()
    }
}

/// What would put its replicas right again, as a clause; none if nothing does.
fn steered(user: &User, observed: &Observed) -> Option<String> {
    let seen = user.seen?;
    if let Some(owner) = &seen.controller {
        return Some(format!("{} {} controls it", owner.kind, owner.name));
    }
    let workload = &user.workload;
    let scaler = observed.scalers.iter().find(|scaler| {
        let (group, kind, name) = &scaler.target;
        scaler.namespace == workload.namespace
            && group == workload.group()
            && *kind == workload.kind
            && *name == workload.name
    });
    if let Some(scaler) = scaler {
        return Some(format!("{} scales it", scaler.name));
    }
    seen.tracked_by.map(|tool| format!("{tool} tracks it"))
}
