use super::*;
use crate::samples::{fenced, release, volume};

/// A fenced record's annotation with some of its fields changed.
fn record(change: impl FnOnce(&mut Record)) -> String {
    let mut record = fenced("data", &[]);
    change(&mut record);
    record.to_json()
}

fn generation(number: u64) -> String {
    record(|record| record.fence.generation = number)
}

fn list(memory: &mut Memory, volumes: &[(&str, &str)]) {
    memory.take(Event::Init);
    for (name, record) in volumes {
        memory.take(Event::InitApply(volume(name, Some(record))));
    }
    memory.take(Event::InitDone);
}

fn listed(volumes: &[(&str, &str)]) -> Memory {
    let mut memory = Memory::new(release());
    list(&mut memory, volumes);
    memory
}

fn apply(memory: &mut Memory, record: Option<&str>) {
    memory.take(Event::Apply(volume("pv-1", record)));
}

fn count(memory: &Memory) -> usize {
    memory.fences().len()
}

#[test]
fn before_the_first_list_has_ended_there_is_no_verdict() {
    let mut memory = Memory::new(release());
    let not_synced = Err(Unfit::NotSynced("pvmigrate".into()));
    assert_eq!(memory.check(), not_synced);
    memory.take(Event::Init);
    memory.take(Event::InitApply(volume("pv-1", Some(&generation(3)))));
    assert_eq!(memory.check_generation(0), not_synced);
    memory.take(Event::InitDone);
    assert_eq!(memory.check_generation(3), Ok(()));
}

#[test]
fn a_fence_is_known_while_it_is_on() {
    let mut memory = listed(&[("pv-1", &generation(1))]);
    assert_eq!(count(&memory), 1);
    apply(&mut memory, Some(&record(|record| record.fence.on = false)));
    assert_eq!(count(&memory), 0);
    apply(&mut memory, Some(&generation(2)));
    assert_eq!(count(&memory), 1);
    memory.take(Event::Delete(volume("pv-1", None)));
    assert_eq!(count(&memory), 0);
}

#[test]
fn a_generation_that_was_not_seen_is_an_error() {
    let memory = listed(&[("pv-1", &generation(4))]);
    assert_eq!(memory.check_generation(4), Ok(()));
    assert_eq!(
        memory.check_generation(5),
        Err(Unfit::Behind { seen: 4, asked: 5 })
    );
}

#[test]
fn the_highest_generation_stays_seen_when_its_fence_is_off_or_its_volume_gone() {
    let mut memory = listed(&[("pv-1", &generation(7))]);
    apply(&mut memory, Some(&record(|record| record.fence.on = false)));
    assert_eq!(memory.check_generation(7), Ok(()));
    list(&mut memory, &[]);
    assert_eq!(memory.check_generation(7), Ok(()));
}

#[test]
fn a_list_counts_when_it_is_complete() {
    let mut memory = listed(&[("pv-1", &generation(1)), ("pv-2", &generation(2))]);
    memory.take(Event::Init);
    memory.take(Event::InitApply(volume("pv-3", Some(&generation(9)))));
    assert_eq!(count(&memory), 2);
    assert_eq!(
        memory.check_generation(9),
        Err(Unfit::Behind { seen: 2, asked: 9 })
    );
    memory.take(Event::InitDone);
    assert_eq!(count(&memory), 1);
    assert_eq!(memory.check_generation(9), Ok(()));
}

#[test]
fn records_of_another_release_are_not_ours() {
    let other = record(|record| {
        record.release.namespace = "elsewhere".into();
        record.fence.generation = 9;
    });
    let memory = listed(&[("pv-1", &other)]);
    assert_eq!(count(&memory), 0);
    assert!(memory.check_generation(1).is_err());
    let of_tomorrow = other.replace("\"version\":1", "\"version\":2");
    assert_eq!(listed(&[("pv-1", &of_tomorrow)]).check(), Ok(()));
}

#[test]
fn a_record_that_cannot_be_read_any_more_stands_as_it_was() {
    for unreadable in [Some("{"), Some("{\"version\":2}"), None] {
        let mut memory = listed(&[("pv-1", &generation(1))]);
        apply(&mut memory, unreadable);
        assert_eq!(count(&memory), 1, "{unreadable:?}");
        // Nor does the next list open it.
        memory.take(Event::Init);
        memory.take(Event::InitApply(volume("pv-1", unreadable)));
        memory.take(Event::InitDone);
        assert_eq!(
            (count(&memory), memory.check()),
            (1, Ok(())),
            "{unreadable:?}"
        );
    }
}

#[test]
fn a_record_that_was_never_readable_forbids_every_verdict() {
    let mut memory = listed(&[("pv-1", "{\"version\":2}")]);
    let error = memory.check().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record on PersistentVolume pv-1 cannot be read: the record has version 2, this \
         program reads version 1: use the release of pvmigrate that wrote it"
    );
    apply(&mut memory, Some(&generation(1)));
    assert_eq!(memory.check(), Ok(()));
}

#[test]
fn a_destination_has_no_record_and_a_source_must_have_one() {
    let mut memory = listed(&[]);
    apply(&mut memory, None);
    assert_eq!(memory.check(), Ok(()));
    let mut source = volume("pv-1", None);
    let role = (names::ROLE.to_string(), names::ROLE_SOURCE.to_string());
    source
        .metadata
        .labels
        .get_or_insert_default()
        .extend([role]);
    memory.take(Event::Apply(source));
    assert!(matches!(memory.check(), Err(Unfit::Unreadable { .. })));
}
