use super::*;

pub fn record() -> Record {
    Record {
        version: VERSION,
        release: Release {
            namespace: "ops".into(),
            name: "pvmigrate".into(),
        },
        run: "abc".into(),
        epoch: 1,
        job: "pvmigrate-x".into(),
        phase: Phase::Planned,
        heading: Heading::Destination,
        fence: Fence::default(),
        outcome: None,
        claim: ClaimRef {
            namespace: "default".into(),
            name: "data".into(),
            uid: "1".into(),
        },
        source_class: "a".into(),
        destination_class: "b".into(),
        source: Volume {
            name: "pv-1".into(),
            uid: "2".into(),
            reclaim_policy: "Delete".into(),
        },
        destination: None,
        manifest: ClaimManifest::default(),
        group: "default/data".into(),
        wave: 0,
        freeze: Freeze::default(),
        consumers: vec![],
        warm: None,
        pass: None,
        stopped: None,
        ready: None,
        failure: None,
        times: BTreeMap::new(),
    }
}

#[test]
fn a_record_survives_the_annotation() {
    let record = record();
    assert_eq!(Record::parse(&record.to_json()).unwrap(), record);
}

#[test]
fn the_group_of_a_workload_is_what_admission_calls_it() {
    let group = |api_version: &str| {
        let workload = Workload {
            api_version: api_version.into(),
            kind: String::new(),
            resource: String::new(),
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
        };
        workload.group().to_string()
    };
    assert_eq!(group("apps/v1"), "apps");
    assert_eq!(group("v1"), "");
}

#[test]
fn a_record_of_another_version_is_named_not_guessed() {
    let json = record().to_json().replace("\"version\":1", "\"version\":9");
    let error = Record::parse(&json).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the record has version 9, this program reads version 1: use the release of pvmigrate that wrote it"
    );
}

#[test]
fn resuming_keeps_the_moment_of_the_freeze_for_the_downtime() {
    let mut record = record();
    let at = |second| Timestamp::from_second(second).unwrap();
    for second in 0..5 {
        record.apply(Event::Advance, at(second)).unwrap();
    }
    assert_eq!(record.phase, Phase::Copied);
    record.apply(Event::Resume, at(9)).unwrap();
    assert_eq!(record.phase, Phase::Planned);
    assert_eq!(record.times.get(&Phase::Frozen), Some(&at(3)));
    assert_eq!(record.times.get(&Phase::Copied), None);
}
