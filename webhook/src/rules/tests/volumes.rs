use super::*;

#[test]
fn a_volume_keeps_its_policy_its_claim_and_its_marks_and_all_else_may_change() {
    let record = fenced("data", &[]);
    for (review, volume, part) in [
        ("volume-policy", "pv-1", Some("reclaim policy")),
        (
            "volume-record",
            "pv-1",
            Some("annotation pvmigrate.io/record"),
        ),
        ("volume-unlabelled", "pv-1", Some("label pvmigrate.io/run")),
        (
            "volume-status-unlabelled",
            "pv-1",
            Some("label pvmigrate.io/run"),
        ),
        ("volume-status", "pv-1", None),
        ("volume-claimref-removed", "pv-1", Some("claimRef")),
        ("volume-uid-set", "pv-2", None),
        ("volume-labelled", "pv-2", None),
    ] {
        let rule =
            part.map(|part| format!("the {part} of its PersistentVolume {volume} may not change"));
        assert_eq!(
            about(review, &record),
            rule.and_then(|rule| migrating(&rule)),
            "{review}"
        );
    }
}

#[test]
fn a_claim_ref_may_get_the_uid_of_its_claim_and_nothing_else() {
    let record = fenced("data", &[]);
    let at = |namespace: &str, name: &str, uid: Option<&str>| match uid {
        Some(uid) => {
            json!({"namespace": namespace, "name": name, "uid": uid, "kind": "PersistentVolumeClaim"})
        }
        None => json!({"namespace": namespace, "name": name}),
    };
    // The claimRef before and after, and whether the change is refused.
    let table = [
        (at("a", "b", None), at("a", "b", Some("1")), false),
        (at("a", "b", Some("")), at("a", "b", Some("1")), false),
        (at("a", "b", Some("1")), at("a", "b", Some("1")), false),
        (at("a", "b", Some("1")), at("a", "b", Some("2")), true),
        (at("a", "b", Some("1")), at("a", "b", None), true),
        (at("a", "b", Some("1")), at("a", "b", Some("")), true),
        (at("a", "b", None), at("a", "c", None), true),
        (at("a", "b", None), at("c", "b", None), true),
        (at("a", "b", None), json!(null), true),
        (json!(null), at("a", "b", None), true),
        (json!(null), json!(null), false),
    ];
    for (before, after, refused) in table {
        let request = changed("volume-labelled", |request| {
            request["oldObject"]["spec"]["claimRef"] = before.clone();
            request["object"]["spec"]["claimRef"] = after.clone();
        });
        assert_eq!(
            verdict(&request, &record).is_some(),
            refused,
            "{before} → {after}"
        );
    }
}

#[test]
fn no_volume_of_the_migration_is_deleted() {
    let record = fenced("data", &[]);
    assert_eq!(
        about("volume-delete", &record),
        migrating_or_given_up("its PersistentVolume pv-2 may not be deleted")
    );
    for (volume, refused) in [("pv-1", true), ("pv-3", false)] {
        let request = changed("volume-delete", |request| {
            request["name"] = json!(volume);
            request["oldObject"]["metadata"]["name"] = json!(volume);
        });
        assert_eq!(verdict(&request, &record).is_some(), refused, "{volume}");
    }
}
