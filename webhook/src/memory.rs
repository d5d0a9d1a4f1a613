//! What the webhook knows: the records on the source volumes, as its watch has told them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::watcher::Event;
use pvmigrate_record::names;
use pvmigrate_record::record::{Record, Release};
use serde::Deserialize;

/// The records of one release. It never forgets a fence because it cannot read one:
///
/// - a record that was readable and no longer is stands as it was last read;
/// - one that never was makes the whole memory [unfit](Unfit) to answer.
#[derive(Debug)]
pub struct Memory {
    release: Release,
    known: Known,
    /// What a list that is not at its end yet has told. It counts when it is complete: a
    /// generation says "all before it was seen", and a list comes in any order.
    listing: Option<Known>,
    synced: bool,
}

#[derive(Debug, Default)]
struct Known {
    volumes: BTreeMap<String, Seen>,
    generation: u64,
}

/// What is known of one volume of the release.
#[derive(Clone, Debug)]
enum Seen {
    Fenced(Box<Record>),
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
            release,
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
                let before = volume
                    .metadata
                    .name
                    .as_ref()
                    .and_then(|name| self.known.volumes.get(name));
                let read = read(before, &volume, &self.release);
                self.listing.get_or_insert_default().note(&volume, read);
            }
            Event::InitDone => {
                let before =
                    std::mem::replace(&mut self.known, self.listing.take().unwrap_or_default());
                for (volume, seen) in &before.volumes {
                    if !self.known.volumes.contains_key(volume) {
                        seen.warn_of_loss(volume);
                    }
                }
                self.synced = true;
            }
            Event::Apply(volume) => {
                let before = volume
                    .metadata
                    .name
                    .as_ref()
                    .and_then(|name| self.known.volumes.get(name));
                let read = read(before, &volume, &self.release);
                self.known.note(&volume, read);
            }
            Event::Delete(volume) => {
                let name = volume.metadata.name.unwrap_or_default();
                if let Some(seen) = self.known.volumes.remove(&name) {
                    seen.warn_of_loss(&name);
                }
            }
        }
    }

    /// Whether verdicts can be given at all.
    pub fn check(&self) -> Result<(), Unfit> {
        if !self.synced {
            return Err(Unfit::NotSynced(self.release.name.clone()));
        }
        let blind = self
            .known
            .volumes
            .iter()
            .find_map(|(volume, seen)| match seen {
                Seen::Unreadable(why) => Some((volume.clone(), why.clone())),
                Seen::Fenced(_) | Seen::Open => None,
            });
        blind.map_or(Ok(()), |(volume, why)| {
            Err(Unfit::Unreadable { volume, why })
        })
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
    pub fn fenced(&self) -> impl Iterator<Item = &Record> {
        self.known.volumes.values().filter_map(|seen| match seen {
            Seen::Fenced(record) => Some(record.as_ref()),
            Seen::Open | Seen::Unreadable(_) => None,
        })
    }
}

impl Known {
    fn note(&mut self, volume: &PersistentVolume, (seen, generation): (Option<Seen>, u64)) {
        let name = volume.metadata.name.clone().unwrap_or_default();
        self.generation = self.generation.max(generation);
        match seen {
            Some(seen) => self.volumes.insert(name, seen),
            None => self.volumes.remove(&name),
        };
    }
}

impl Seen {
    /// A volume that vanished, or lost its label, takes its record along: nothing can be fenced
    /// by it any longer.
    fn warn_of_loss(&self, volume: &str) {
        if let Seen::Fenced(record) = self {
            tracing::warn!(%volume, claim = %record.claim, run = record.run, "a fenced record is gone with its volume or its label");
        }
    }
}

/// What a volume's annotation says, given what was known of it; nothing if it is none of ours.
fn read(
    before: Option<&Seen>,
    volume: &PersistentVolume,
    release: &Release,
) -> (Option<Seen>, u64) {
    #[derive(Deserialize)]
    struct Owned {
        release: Release,
    }
    let json = volume
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(names::RECORD));
    let why = match json.map(|json| Record::parse(json)) {
        Some(Ok(record)) if record.release != *release => return (None, 0),
        Some(Ok(record)) => {
            let generation = record.fence.generation;
            let seen = if record.fence.on {
                Seen::Fenced(Box::new(record))
            } else {
                Seen::Open
            };
            return (Some(seen), generation);
        }
        Some(Err(unreadable)) => {
            let owned = serde_json::from_str::<Owned>(json.map_or("", String::as_str));
            if owned.is_ok_and(|owned| owned.release != *release) {
                return (None, 0);
            }
            unreadable.to_string()
        }
        // Destinations carry the run's label and no record.
        None if before.is_none() && !is_source(volume) => return (None, 0),
        None => "it has no record".into(),
    };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    tracing::error!(
        volume = name,
        why,
        "a record cannot be read: the fence stays as it was"
    );
    let kept = match before {
        Some(Seen::Fenced(record)) => Seen::Fenced(record.clone()),
        Some(Seen::Open) => Seen::Open,
        Some(Seen::Unreadable(_)) | None => Seen::Unreadable(why),
    };
    (Some(kept), 0)
}

fn is_source(volume: &PersistentVolume) -> bool {
    let labels = volume.metadata.labels.as_ref();
    labels
        .and_then(|all| all.get(names::ROLE))
        .is_some_and(|role| role == names::ROLE_SOURCE)
}

#[cfg(test)]
mod tests;
