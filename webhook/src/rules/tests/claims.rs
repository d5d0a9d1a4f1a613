use super::*;

#[test]
fn no_claim_takes_a_fenced_name() {
    let rule = migrating("no other claim may take its name");
    assert_eq!(about("claim", &fenced("data", &[])), rule);
    assert_eq!(about("claim", &fenced("data-bd69b", &[])), None);
    let generated = about("claim-generated-name", &fenced("data-bd69b", &[]));
    assert!(generated.is_some());
    assert_eq!(about("claim-generated-name", &fenced("data-", &[])), None);
}

#[test]
fn no_claim_is_made_from_a_fenced_one() {
    let record = fenced("data", &[]);
    let rule = migrating("no claim may be made from it");
    assert_eq!(about("claim-clone", &record), rule);
    let by = |source: Value| {
        changed("claim-clone", |request| {
            let spec = &mut request["object"]["spec"];
            spec["dataSource"] = json!(null);
            spec["dataSourceRef"] = source;
        })
    };
    let claim = json!({"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "data"});
    assert_eq!(verdict(&by(claim.clone()), &record), rule);
    let mut elsewhere = claim;
    elsewhere["namespace"] = json!("elsewhere");
    assert_eq!(verdict(&by(elsewhere.clone()), &record), None);
    elsewhere["namespace"] = json!("fixtures");
    let mut from_elsewhere = by(elsewhere);
    from_elsewhere.namespace = Some("elsewhere".into());
    assert_eq!(verdict(&from_elsewhere, &record), rule);
    let snapshot =
        json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "data"});
    assert_eq!(verdict(&by(snapshot), &record), None);
}

#[test]
fn no_claim_asks_for_a_volume_of_the_migration() {
    let record = fenced("data", &[]);
    assert_eq!(
        about("claim-volume-name", &record),
        migrating("no other claim may ask for its PersistentVolume pv-2")
    );
    for (volume, refused) in [("pv-1", true), ("pv-3", false), ("", false)] {
        let request = changed("claim-volume-name", |request| {
            request["object"]["spec"]["volumeName"] = json!(volume);
        });
        assert_eq!(verdict(&request, &record).is_some(), refused, "{volume}");
    }
}

#[test]
fn no_snapshot_is_taken() {
    let rule = migrating("no snapshot may be taken of it");
    assert_eq!(about("snapshot-create", &fenced("data", &[])), rule);
    assert_eq!(about("snapshot-create", &fenced("other", &[])), None);
}

#[test]
fn a_fenced_claim_keeps_its_size_and_its_marks_and_all_else_may_change() {
    let record = fenced("data", &[]);
    for (review, rule) in [
        ("claim-resized", Some("its size may not change")),
        (
            "claim-unmarked",
            Some("its annotation pvmigrate.io/epoch may not change"),
        ),
        (
            "claim-status-unmarked",
            Some("its annotation pvmigrate.io/epoch may not change"),
        ),
        ("claim-status", None),
        ("claim-labelled", None),
        ("claim-finalizers", None),
    ] {
        assert_eq!(about(review, &record), rule.and_then(migrating), "{review}");
        assert_eq!(about(review, &fenced("other", &[])), None, "{review}");
    }
    let smaller = changed("claim-resized", |request| {
        request["object"]["spec"]["resources"]["requests"]["storage"] = json!("1Mi");
    });
    assert_eq!(
        verdict(&smaller, &record),
        migrating("its size may not change")
    );
}

#[test]
fn a_mark_is_neither_added_nor_changed() {
    let record = fenced("data", &[]);
    for (kind, mark) in [
        ("annotations", "pvmigrate.io/epoch"),
        ("labels", "pvmigrate.io/run"),
    ] {
        let request = changed("claim-labelled", |request| {
            request["object"]["metadata"][kind][mark] = json!("7");
        });
        let kind = kind.trim_end_matches('s');
        let rule = format!("its {kind} {mark} may not change");
        assert_eq!(verdict(&request, &record), migrating(&rule));
    }
}

#[test]
fn a_fenced_claim_is_not_deleted() {
    let rule = migrating_or_given_up("it may not be deleted");
    assert_eq!(about("claim-delete", &fenced("data", &[])), rule);
    assert_eq!(about("claim-delete", &fenced("other", &[])), None);
}

#[test]
fn nobody_touches_the_staging_claim() {
    let mut record = fenced("data", &[]);
    record.claim.name = "other".into();
    let rename = |request: &mut Value| {
        for object in ["object", "oldObject"] {
            if !request[object].is_null() {
                request[object]["metadata"]["name"] = json!("pvmigrate-abc-1");
            }
        }
        request["name"] = json!("pvmigrate-abc-1");
    };
    for review in ["claim", "claim-delete", "claim-resized", "claim-unmarked"] {
        let sentence = verdict(&changed(review, rename), &record).unwrap();
        assert!(
            sentence.contains(
                ": claim fixtures/pvmigrate-abc-1 holds its copy and is for pvmigrate alone until "
            ),
            "{review}: {sentence}"
        );
    }
    assert_eq!(verdict(&changed("claim-labelled", rename), &record), None);
}
