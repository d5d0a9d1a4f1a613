use super::*;

#[test]
fn a_namespace_with_a_fenced_claim_is_not_deleted() {
    assert_eq!(
        about("namespace-delete", &fenced("data", &[])),
        migrating_or_given_up("Namespace fixtures may not be deleted")
    );
}

#[test]
fn nor_is_the_namespace_of_the_release() {
    for (namespace, refused) in [("ops", true), ("other", false)] {
        let request = changed("namespace-delete", |request| {
            for name in ["/name", "/namespace", "/oldObject/metadata/name"] {
                *request.pointer_mut(name).unwrap() = json!(namespace);
            }
        });
        let verdict = verdict(&request, &fenced("data", &[]));
        assert_eq!(verdict.is_some(), refused, "{namespace}");
    }
}

#[test]
fn the_class_that_is_moved_to_is_not_deleted() {
    let mut record = fenced("data", &[]);
    assert_eq!(about("storageclass-delete", &record), None);
    record.source_class = "fixtures".into();
    assert_eq!(about("storageclass-delete", &record), None);
    record.destination_class = "fixtures".into();
    let sentence = about("storageclass-delete", &record).unwrap();
    assert!(
        sentence.contains(": StorageClass fixtures may not be deleted until that is done; ")
            && sentence.ends_with(GIVE_UP),
        "{sentence}"
    );
}
