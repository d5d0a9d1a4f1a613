//! What moves as one: each claim is a group of its own until a user of several ties them together.

use std::collections::{BTreeMap, BTreeSet};

use pvmigrate_record::record::{Freezing, Method};

use super::method::{choose, may_roll};
use super::owners::{User, ordinal};
use crate::config::Config;
use crate::observe::{Observed, ObservedWorkload, is_built_in};

/// Claims and users that move as one.
#[derive(Clone, Debug, Default)]
pub struct Tie<'a> {
    pub claims: BTreeSet<String>,
    pub users: Vec<Frozen<'a>>,
    /// A StatefulSet that has no pod for these claims now, and which ordinal they are of.
    asleep: Option<(&'a ObservedWorkload, i32)>,
}

/// A user, and how it is frozen.
#[derive(Clone, Debug)]
pub struct Frozen<'a> {
    pub user: User<'a>,
    pub freezing: Freezing,
    why: String,
}

impl Frozen<'_> {
    /// For the log.
    pub fn sentence(&self) -> String {
        let workload = &self.freezing.workload;
        let how = match (self.freezing.method, &self.freezing.pod) {
            (Method::Scale, _) => "is scaled to 0".to_string(),
            (Method::Hold, None) => "is held".into(),
            (Method::Hold, Some(pod)) => format!("is held at pod {pod}"),
            (Method::Suspend, _) => "starts no more pods".into(),
            (Method::Recreate, _) => "is deleted and made again".into(),
        };
        format!("{workload} {how}: {}", self.why)
    }
}

impl Tie<'_> {
    /// A group is called after its first workload; after its first claim where nothing uses it.
    pub fn name(&self, namespace: &str) -> String {
        let first = self.users.iter().map(|user| &user.freezing).min();
        let (workload, ordinal) = match (first, &self.asleep) {
            (Some(Freezing { workload, pod, .. }), _) => {
                let ordinal = pod.as_ref().and_then(|pod| pod.rsplit_once('-'));
                (workload, ordinal.map(|(_, ordinal)| ordinal.to_string()))
            }
            (None, Some((set, ordinal))) => (&set.workload, Some(ordinal.to_string())),
            (None, None) => {
                let claim = self.claims.first().map_or("", String::as_str);
                return format!("{namespace}/claim/{claim}");
            }
        };
        let mut kind = workload.kind.to_lowercase();
        if !is_built_in(&workload.api_version, &workload.kind) && !workload.group().is_empty() {
            // Operators have words of their own, and the same ones.
            kind = format!("{kind}.{}", workload.group());
        }
        let name = format!("{namespace}/{kind}/{}", workload.name);
        ordinal.map_or(name.clone(), |ordinal| format!("{name}/{ordinal}"))
    }

    fn join(&mut self, other: Self) {
        self.claims.extend(other.claims);
        self.users.extend(other.users);
        self.asleep = self.asleep.or(other.asleep);
    }
}

/// Ties the claims of a namespace together by their users; and what stands against freezing some.
pub fn tie<'a>(
    names: &BTreeSet<String>,
    users: Vec<User<'a>>,
    observed: &'a Observed,
    config: &Config,
) -> (Vec<Tie<'a>>, Vec<String>) {
    let mut refusals = Vec::new();
    let mut ties: Vec<Tie> = names
        .iter()
        .map(|name| Tie {
            claims: BTreeSet::from([name.clone()]),
            ..Tie::default()
        })
        .collect();
    let shared = shared(&users);
    for user in users {
        // Also where it rolls: an annotation that cannot be read is said.
        let (method, why) = match choose(&user, observed, config) {
            Ok(choice) => choice,
            Err(refusal) => {
                refusals.push(refusal);
                continue;
            }
        };
        match by_ordinal(&user, &shared, config) {
            Some(parts) => parts.into_iter().for_each(|part| insert(&mut ties, part)),
            None => insert(
                &mut ties,
                Tie {
                    claims: user.claims.clone(),
                    asleep: None,
                    users: vec![Frozen {
                        freezing: Freezing {
                            workload: user.workload.clone(),
                            method,
                            pod: None,
                        },
                        user,
                        why,
                    }],
                },
            ),
        }
    }
    ties.sort_by(|one, other| one.claims.cmp(&other.claims));
    for tie in &mut ties {
        tie.users
            .sort_by(|one, other| one.freezing.cmp(&other.freezing));
    }
    (ties, refusals)
}

/// Joins what shares a claim with a new tie.
fn insert<'a>(ties: &mut Vec<Tie<'a>>, mut new: Tie<'a>) {
    for tie in std::mem::take(ties) {
        if tie.claims.is_disjoint(&new.claims) {
            ties.push(tie);
        } else {
            new.join(tie);
        }
    }
    ties.push(new);
}

/// The claims that several users have.
fn shared(users: &[User]) -> BTreeSet<String> {
    let (mut once, mut shared) = (BTreeSet::new(), BTreeSet::new());
    for claim in users.iter().flat_map(|user| &user.claims) {
        if !once.insert(claim.clone()) {
            shared.insert(claim.clone());
        }
    }
    shared
}

/// A StatefulSet whose pods mount only their own claims, as a tie for each of its ordinals. One
/// that has no pod needs no freeze: the fence keeps the next pod away.
fn by_ordinal<'a>(
    user: &User<'a>,
    shared: &BTreeSet<String>,
    config: &Config,
) -> Option<Vec<Tie<'a>>> {
    let set = user.seen.filter(|_| may_roll(user, config))?;
    let mut ordinals: BTreeMap<i32, BTreeSet<String>> = BTreeMap::new();
    for claim in &user.claims {
        let is_own = !shared.contains(claim) && !set.claims.contains(claim);
        let ordinal = ordinal(set, claim).filter(|_| is_own)?;
        ordinals.entry(ordinal).or_default().insert(claim.clone());
    }
    let pods = set.first_ordinal..set.first_ordinal.saturating_add(set.replicas);
    let parts = ordinals.into_iter().map(|(ordinal, claims)| {
        let frozen = pods.contains(&ordinal).then(|| Frozen {
            user: User {
                claims: claims.clone(),
                ..user.clone()
            },
            freezing: Freezing {
                workload: user.workload.clone(),
                method: Method::Hold,
                pod: Some(format!("{}-{ordinal}", user.workload.name)),
            },
            why: "its pods mount only their own claims".into(),
        });
        Tie {
            claims,
            users: frozen.into_iter().collect(),
            asleep: Some((set, ordinal)),
        }
    });
    Some(parts.collect())
}
