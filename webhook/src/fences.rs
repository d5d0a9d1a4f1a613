//! The records whose fence is on, in the few words that verdicts need, found by what they are
//! about. Ten thousand of them take some 8 MiB, and looking one up takes a microsecond.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use pvmigrate_record::names;
use pvmigrate_record::phase::Phase;
use pvmigrate_record::record::{ClaimRef, Freezing, Record, Release, Workload};
use pvmigrate_record::refusal::Migration;

/// A record whose fence is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    pub release: Arc<Release>,
    pub run: Box<str>,
    pub phase: Phase,
    pub claim: ClaimRef,
    pub staging: Box<str>,
    pub destination_class: Box<str>,
    pub source: Box<str>,
    pub destination: Option<Box<str>>,
    pub freeze: Box<[Freezing]>,
}

/// What a request can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key<'a> {
    Claim {
        namespace: &'a str,
        name: &'a str,
    },
    /// A claim's name without its ordinal: what the claims of a StatefulSet begin with.
    Stem {
        namespace: &'a str,
        stem: &'a str,
    },
    Staging {
        namespace: &'a str,
        name: &'a str,
    },
    Workload {
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    /// A migration's source or destination.
    Volume(&'a str),
    /// A namespace with a fenced claim, or the one where the migration runs.
    Namespace(&'a str),
    DestinationClass(&'a str),
}

impl<'a> Key<'a> {
    pub fn of(workload: &'a Workload) -> Self {
        Self::Workload {
            group: workload.group(),
            resource: &workload.resource,
            namespace: &workload.namespace,
            name: &workload.name,
        }
    }
}

/// All records whose fence is on, by their source volumes.
#[derive(Debug, Default)]
pub struct Fences {
    records: BTreeMap<Arc<str>, Arc<Fenced>>,
    /// The hash of each key, and the volume of the record that has it. A hash proves nothing:
    /// what is found is compared.
    index: BTreeSet<(u64, Arc<str>)>,
    hasher: RandomState,
}

impl Fences {
    /// The records that are about this, in the order of their source volumes.
    pub fn about<'a>(&'a self, key: Key<'a>) -> impl Iterator<Item = &'a Fenced> {
        let hash = self.hasher.hash_one(key);
        self.index
            .range((hash, Arc::from(""))..)
            .take_while(move |(of, _)| *of == hash)
            .filter_map(|(_, volume)| self.records.get(volume))
            .map(AsRef::as_ref)
            .filter(move |fenced| fenced.keys().any(|of| of == key))
    }

    /// The first record that is about this.
    pub fn first<'a>(&'a self, key: Key<'a>) -> Option<&'a Fenced> {
        self.about(key).next()
    }

    pub fn get(&self, volume: &str) -> Option<&Arc<Fenced>> {
        self.records.get(volume)
    }

    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(AsRef::as_ref)
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn insert(&mut self, volume: &str, fenced: Arc<Fenced>) {
        self.remove(volume);
        let volume: Arc<str> = volume.into();
        for key in fenced.keys() {
            let hash = self.hasher.hash_one(key);
            self.index.insert((hash, volume.clone()));
        }
        self.records.insert(volume, fenced);
    }

    pub fn remove(&mut self, volume: &str) -> Option<Arc<Fenced>> {
        let (volume, fenced) = self.records.remove_entry(volume)?;
        for key in fenced.keys() {
            let hash = self.hasher.hash_one(key);
            self.index.remove(&(hash, volume.clone()));
        }
        Some(fenced)
    }
}

impl Fenced {
    /// What verdicts need of a record of this release.
    pub fn of(release: &Arc<Release>, record: Record) -> Self {
        Self {
            release: release.clone(),
            staging: names::staging_object(&record.run, &record.claim.uid).into(),
            run: record.run.into(),
            phase: record.phase,
            claim: record.claim,
            destination_class: record.destination_class.into(),
            source: record.source.name.into(),
            destination: record.destination.map(|volume| volume.name.into()),
            freeze: record.freeze.workloads.into(),
        }
    }

    /// Everything that a request can be about to be about this migration.
    fn keys(&self) -> impl Iterator<Item = Key<'_>> {
        let ClaimRef {
            namespace, name, ..
        } = &self.claim;
        let claim = Key::Claim { namespace, name };
        let stem = stem(name).map(|stem| Key::Stem { namespace, stem });
        let staging = Key::Staging {
            namespace,
            name: &self.staging,
        };
        let freeze = self.freeze.iter();
        let workloads = freeze.map(|freezing| Key::of(&freezing.workload));
        [
            claim,
            staging,
            Key::Volume(&self.source),
            Key::Namespace(namespace),
            Key::Namespace(&self.release.namespace),
            Key::DestinationClass(&self.destination_class),
        ]
        .into_iter()
        .chain(stem)
        .chain(self.destination.as_deref().map(Key::Volume))
        .chain(workloads)
    }
}

impl<'a> From<&'a Fenced> for Migration<'a> {
    fn from(fenced: &'a Fenced) -> Self {
        Self {
            release: &fenced.release,
            run: &fenced.run,
            phase: fenced.phase,
            claim: &fenced.claim,
            destination_class: &fenced.destination_class,
        }
    }
}

/// `data-db` of `data-db-0`.
fn stem(claim: &str) -> Option<&str> {
    let (stem, ordinal) = claim.rsplit_once('-')?;
    let is_ordinal = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    is_ordinal.then_some(stem)
}

#[cfg(test)]
mod tests;
