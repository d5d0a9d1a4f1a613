//! Which groups may start now. Pure: it knows how each group ended, and reads no clock.
//!
//! 1. Waves: a group starts when all groups of lower waves have ended, well or not.
//! 2. Within a wave, by the downtime that the plan predicts: the shorter first, so that most
//!    applications are done soon. Of those with the same one, that which most of its lane waits for
//!    goes first, so that the run is done soon; then the least to copy.
//! 3. At most so many groups at a time, and so many movers on a node. A group with more claims on
//!    a node than that starts when no other mover is there. Movers end before their applications
//!    are started again, and the next ones begin then.
//! 4. Lanes: of one StatefulSet one pod at a time, the highest ordinal of the wave first. The next
//!    one starts too, as far as nothing has to be stopped, and waits there for its turn. When one
//!    does not end well, the rest of its lane goes no further, or does not begin.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Lane, Weight};

/// What the order of a group depends on.
#[derive(Clone, Debug, Default)]
pub struct Item {
    pub wave: i64,
    pub weight: Weight,
    /// It has workloads to stop.
    pub stops: bool,
    pub lane: Option<Lane>,
    /// How many movers it needs, by node.
    pub movers: BTreeMap<String, usize>,
    /// An earlier Job has begun it, so it has to be ended, however the rest of its lane ends.
    pub begun: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub groups: usize,
    pub per_node: usize,
}

/// How a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Well,
    /// Taken back, or not Ready.
    Badly,
    /// The next pod goes on with it.
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Ended(How),
}

/// Whether a group may stop its applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Now,
    /// When this pod of its set is done.
    After(String),
    /// This pod of its set did not end well.
    Never(String),
    /// One before it is left to the next Job, and so is this.
    InAnotherJob,
}

impl Turn {
    /// Whether a group stands ready and stops nobody yet.
    fn is_later(&self) -> bool {
        matches!(self, Self::After(_))
    }
}

pub struct Schedule {
    items: Vec<(Item, State)>,
    limits: Limits,
}

impl Schedule {
    pub fn new(items: Vec<Item>, limits: Limits) -> Self {
        let waiting = items.into_iter().map(|item| (item, State::Waiting));
        Self {
            items: waiting.collect(),
            limits,
        }
    }

    /// The nodes on which a group stops applications: none where it stops nobody.
    pub fn stops_on(&self, index: usize) -> BTreeSet<String> {
        let item = &self.items[index].0;
        let nodes = item.movers.keys().filter(|_| item.stops);
        nodes.cloned().collect()
    }

    /// A group that may start now, and counts as running from here on.
    pub fn start(&mut self) -> Option<usize> {
        let stopping = self.all(State::Running);
        let stopping = stopping.filter(|(_, item)| !self.turn(item).is_later());
        let is_full = stopping.count() >= self.limits.groups;
        let wave = self.wave()?;
        let (_, next) = self
            .all(State::Waiting)
            .filter(|(_, item)| item.wave == wave && self.has_room(item) && self.is_next(item))
            .map(|(index, item)| {
                let Weight { downtime, bytes } = item.weight;
                let behind = Reverse(self.behind(item));
                let is_ahead = self.turn(item).is_later();
                ((is_ahead, downtime, behind, bytes), index)
            })
            .filter(|((is_ahead, ..), _)| *is_ahead || !is_full)
            .min()?;
        self.items[next].1 = State::Running;
        Some(next)
    }

    /// What each group may do once nothing is left but to stop its applications.
    pub fn turns(&self) -> Vec<Turn> {
        self.items.iter().map(|(item, _)| self.turn(item)).collect()
    }

    fn turn(&self, item: &Item) -> Turn {
        let mut turn = Turn::Now;
        for (other, state) in self.before(item) {
            let pod = || other.lane.iter().map(|lane| lane.pod.clone()).collect();
            match state {
                State::Ended(How::Badly) => return Turn::Never(pod()),
                State::Ended(How::Interrupted) => turn = Turn::InAnotherJob,
                State::Running | State::Waiting if turn == Turn::Now => {
                    turn = Turn::After(pod());
                }
                State::Ended(How::Well) | State::Running | State::Waiting => {}
            }
        }
        turn
    }

    /// What goes before a group in its lane.
    fn before<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = (&'a Item, State)> {
        self.items
            .iter()
            .filter(move |(other, _)| same_lane(other, item) && place(other) < place(item))
            .map(|(other, state)| (other, *state))
    }

    /// How many of its lane a group goes before.
    fn behind(&self, item: &Item) -> usize {
        let all = self.items.iter().map(|(other, _)| other);
        all.filter(|other| same_lane(other, item) && place(other) > place(item))
            .count()
    }

    /// A group that runs has no movers any more: others may have them.
    pub fn movers_gone(&mut self, index: usize) {
        self.items[index].0.movers.clear();
    }

    pub fn end(&mut self, index: usize, how: How) {
        self.items[index].1 = State::Ended(how);
    }

    /// A group that does not begin, because one of its lane did not end well; and the pod of that.
    /// It counts as ended from here on.
    pub fn leave(&mut self) -> Option<(usize, String)> {
        let (index, by) = self
            .all(State::Waiting)
            .filter(|(_, item)| !item.begun)
            .find_map(|(index, item)| {
                let bad = self
                    .all(State::Ended(How::Badly))
                    .find(|(_, other)| same_lane(item, other))?;
                Some((index, bad.1.lane.as_ref()?.pod.clone()))
            })?;
        // Not as one that ended badly: what stopped the lane is the first one.
        self.items[index].1 = State::Ended(How::Well);
        Some((index, by))
    }

    fn all(&self, state: State) -> impl Iterator<Item = (usize, &Item)> {
        let items = self.items.iter().enumerate();
        items
            .filter(move |(_, (_, now))| *now == state)
            .map(|(index, (item, _))| (index, item))
    }

    /// The lowest wave that has not ended. One that was interrupted ends in another Job.
    fn wave(&self) -> Option<i64> {
        let over = |state: &State| matches!(state, State::Ended(How::Well | How::Badly));
        let open = self.items.iter().filter(|(_, state)| !over(state));
        open.map(|(item, _)| item.wave).min()
    }

    fn has_room(&self, item: &Item) -> bool {
        item.movers.iter().all(|(node, wanted)| {
            let there: usize = self
                .all(State::Running)
                .filter_map(|(_, running)| running.movers.get(node))
                .sum();
            there == 0 || there + wanted <= self.limits.per_node
        })
    }

    /// Whether a group may start as far as its lane goes: all before it have ended, or the last of
    /// them is having its turn.
    fn is_next(&self, item: &Item) -> bool {
        self.before(item).all(|(other, state)| match state {
            State::Running => self.turn(other) == Turn::Now,
            State::Waiting => false,
            State::Ended(How::Well) => true,
            State::Ended(How::Badly | How::Interrupted) => item.begun,
        })
    }
}

/// Where a group is in its lane.
fn place(item: &Item) -> (i64, Option<Reverse<i64>>) {
    let lane = item.lane.as_ref();
    (item.wave, lane.map(|lane| Reverse(lane.ordinal)))
}

fn same_lane(one: &Item, other: &Item) -> bool {
    match (&one.lane, &other.lane) {
        (Some(one), Some(other)) => one.set == other.set,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
