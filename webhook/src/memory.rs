//! What the webhook knows: the records on the source volumes, as its watch has told them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::watcher::Event;
use pvmigrate_record::names;
use pvmigrate_record::record::{Record, Release};
use serde::Deserialize;

use crate::fences::{Fenced, Fences};

/// The records of one release. It never forgets a fence because it cannot read one:
///
/// - a record that was readable and no longer is stands as it was last read;
/// - one that never was makes the whole memory [unfit](Unfit) to answer.
#[derive(Debug)]
pub struct Memory {
    release: Arc<Release>,
    known: Known,
    /// What a list that is not at its end yet has told. It counts when it is complete: a
    /// generation says "all before it was seen", and a list comes in any order.
    listing: Option<Known>,
    synced: bool,
}

/// Each volume of the release is in one of the three.
#[derive(Debug, Default)]
struct Known {
    fences: Fences,
    open: BTreeSet<Box<str>>,
    /// Those that were never readable, and why.
    unreadable: BTreeMap<Box<str>, String>,
    generation: u64,
}

/// What is known of one volume of the release.
#[derive(Clone, Debug)]
enum Seen {
    Fenced(Arc<Fenced>),
    Open,
    Unreadable(String),
}

/// Why no verdict can be given: the answer is an error then, never "allowed".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("the webhook has not read the records of release {0} yet")]
    NotSynced(String),
    #[error("the webhook has seen the fence's generation {seen}, and is asked about {asked}")]
    Behind { seen: u64, asked: u64 },
    #[error("the record on PersistentVolume {volume} cannot be read: {why}")]
    Unreadable { volume: String, why: String },
}

impl Memory {
    pub fn new(release: Release) -> Self {
        Self {
            release: Arc::new(release),
            known: Known::default(),
            listing: None,
            synced: false,
        }
    }

    /// Takes in what the watch says. A list replaces everything, at its end.
    pub fn take(&mut self, event: Event<PersistentVolume>) {
        match event {
            Event::Init => {
                // What was seen stays seen, even if its volume is gone by now.
                self.listing = Some(Known {
                    generation: self.known.generation,
                    ..Known::default()
                });
            }
            Event::InitApply(volume) => {
                let read = self.read(&volume);
                self.listing.get_or_insert_default().note(&volume, read);
            }
            Event::InitDone => {
                let listed = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.known, listed);
                for volume in before.fences.volumes() {
                    if self.known.seen(volume).is_none() {
                        warn_of_loss(volume, before.fences.get(volume));
                    }
                }
                self.synced = true;
            }
            Event::Apply(volume) => {
                let read = self.read(&volume);
                self.known.note(&volume, read);
            }
            Event::Delete(volume) => {
                let name = volume.metadata.name.unwrap_or_default();
                warn_of_loss(&name, self.known.forget(&name).as_ref());
            }
        }
    }

    /// Whether verdicts can be given at all.
    pub fn check(&self) -> Result<(), Unfit> {
        if !self.synced {
            return Err(Unfit::NotSynced(self.release.name.clone()));
        }
        match self.known.unreadable.first_key_value() {
            Some((volume, why)) => Err(Unfit::Unreadable {
                volume: volume.to_string(),
                why: why.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Whether verdicts can be given about a fence of this generation.
    pub fn check_generation(&self, asked: u64) -> Result<(), Unfit> {
        self.check()?;
        let seen = self.known.generation;
        if seen < asked {
            return Err(Unfit::Behind { seen, asked });
        }
        Ok(())
    }

    /// The records whose fence is on.
    pub fn fences(&self) -> &Fences {
        &self.known.fences
    }

    /// What a volume's annotation says, given what was known of it, and its generation; nothing
    /// if it is none of ours.
    fn read(&self, volume: &PersistentVolume) -> (Option<Seen>, u64) {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let before = self.known.seen(name);
        let annotations = volume.metadata.annotations.as_ref();
        let json = annotations.and_then(|all| all.get(names::RECORD));
        let why = match json.map(|json| Record::parse(json)) {
            Some(Ok(record)) if record.release != *self.release => return (None, 0),
            Some(Ok(record)) => {
                let generation = record.fence.generation;
                let seen = if record.fence.on {
                    Seen::Fenced(Arc::new(Fenced::of(&self.release, record)))
                } else {
                    Seen::Open
                };
                return (Some(seen), generation);
            }
            Some(Err(unreadable)) => {
                if json.is_some_and(|json| self.is_of_another_release(json)) {
                    return (None, 0);
                }
                unreadable.to_string()
            }
            // Destinations carry the run's label and no record.
            None if before.is_none() && !is_source(volume) => return (None, 0),
            None => "it has no record".into(),
        };
        tracing::error!(
            volume = name,
            why,
            "a record cannot be read: the fence stays as it was"
        );
        (Some(before.unwrap_or(Seen::Unreadable(why))), 0)
    }

    /// Of a record that cannot be read, whether at least its release can.
    fn is_of_another_release(&self, json: &str) -> bool {
        #[derive(Deserialize)]
        struct Owned {
            release: Release,
        }
        serde_json::from_str::<Owned>(json).is_ok_and(|owned| owned.release != *self.release)
    }
}

impl Known {
    fn seen(&self, volume: &str) -> Option<Seen> {
        if let Some(fenced) = self.fences.get(volume) {
            return Some(Seen::Fenced(fenced.clone()));
        }
        if self.open.contains(volume) {
            return Some(Seen::Open);
        }
        self.unreadable.get(volume).cloned().map(Seen::Unreadable)
    }

    fn note(&mut self, volume: &PersistentVolume, (seen, generation): (Option<Seen>, u64)) {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        self.generation = self.generation.max(generation);
        self.forget(name);
        match seen {
            Some(Seen::Fenced(fenced)) => self.fences.insert(name, fenced),
            Some(Seen::Open) => {
                self.open.insert(name.into());
            }
            Some(Seen::Unreadable(why)) => {
                self.unreadable.insert(name.into(), why);
            }
            None => {}
        }
    }

    /// What was fenced by this volume, if anything was.
    fn forget(&mut self, volume: &str) -> Option<Arc<Fenced>> {
        self.open.remove(volume);
        self.unreadable.remove(volume);
        self.fences.remove(volume)
    }
}

/// A volume that vanished, or lost its label, takes its record along: nothing can be fenced by it
/// any longer.
fn warn_of_loss(volume: &str, fenced: Option<&Arc<Fenced>>) {
    if let Some(Fenced { claim, run, .. }) = fenced.map(AsRef::as_ref) {
        tracing::warn!(%volume, %claim, %run, "a fenced record is gone with its volume or its label");
    }
}

fn is_source(volume: &PersistentVolume) -> bool {
    let labels = volume.metadata.labels.as_ref();
    labels
        .and_then(|all| all.get(names::ROLE))
        .is_some_and(|role| role == names::ROLE_SOURCE)
}

#[cfg(test)]
mod tests;
