use serde_json::json;

use super::*;
use crate::plan::tests::from;

fn claim() -> PersistentVolumeClaim {
    from(json!({
        "metadata": {
            "namespace": "shop", "name": "data", "uid": "u",
            "labels": {"app": "db"},
            "annotations": {
                "operator.example/role": "primary",
                "pv.kubernetes.io/bind-completed": "yes",
                "volume.kubernetes.io/selected-node": "n",
                "volume.beta.kubernetes.io/storage-provisioner": "p",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "pvmigrate.io/epoch": "3"
            },
            "finalizers": ["kubernetes.io/pvc-protection"],
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "alive"},
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "old", "uid": "dead"},
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "alive"}
            ]
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "a", "volumeName": "pv-1",
            "resources": {"requests": {"storage": "1Gi"}}, "selector": {}, "dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}
        },
        "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}}
    }))
}

fn record(heading: Heading) -> Record {
    let manifest = manifest(&claim(), &["alive".into()]);
    from(json!({
        "version": 1, "release": {"namespace": "ops", "name": "r"}, "run": "abc", "epoch": 1, "job": "j",
        "phase": "Planned", "heading": heading, "fence": {"on": false, "generation": 0},
        "claim": {"namespace": "shop", "name": "data", "uid": "0123-4567-89ab-cdef"},
        "sourceClass": "a", "destinationClass": "b",
        "source": {"name": "pv-1", "uid": "1", "reclaim_policy": "Delete"},
        "manifest": manifest, "group": "g", "freeze": []
    }))
}

#[test]
fn the_new_claim_carries_what_is_the_claims_and_nothing_of_its_old_volume() {
    let new = new_claim(&record(Heading::Destination), "pv-2");
    assert_eq!(new.labels()["app"], "db");
    let annotations: Vec<&String> = new.annotations().keys().collect();
    assert_eq!(annotations, ["operator.example/role"]);
    assert_eq!(new.finalizers(), Vec::<String>::new());
    let spec = new.spec.unwrap();
    assert_eq!(spec.volume_name.as_deref(), Some("pv-2"));
    assert_eq!(spec.storage_class_name.as_deref(), Some("b"));
    assert_eq!((spec.selector, spec.data_source), (None, None));
    assert_eq!(storage(spec.resources.unwrap().requests.as_ref()), "1Gi");
}

#[test]
fn only_owners_that_live_are_carried_over_and_never_a_pod() {
    let new = new_claim(&record(Heading::Destination), "pv-2");
    let owners: Vec<&String> = new
        .owner_references()
        .iter()
        .map(|owner| &owner.name)
        .collect();
    assert_eq!(owners, ["db"]);
}

#[test]
fn on_the_way_back_the_claim_has_its_old_class() {
    let new = new_claim(&record(Heading::Source), "pv-1");
    assert_eq!(new.spec.unwrap().storage_class_name.as_deref(), Some("a"));
}

#[test]
fn a_wish_is_for_the_destination_and_not_for_the_way_back() {
    let wishes = Wishes {
        storage: Some("1536Mi".into()),
        access_modes: vec!["ReadWriteMany".into()],
    };
    let headed = |heading| {
        let mut record = record(heading);
        record.manifest.wishes = wishes.clone();
        record
    };
    let asks = |claim: PersistentVolumeClaim| {
        let spec = claim.spec.unwrap();
        let size = storage(spec.resources.unwrap().requests.as_ref());
        (size, spec.access_modes.unwrap().join(","))
    };
    let expected = ("1536Mi".to_string(), "ReadWriteMany".to_string());
    assert_eq!(
        asks(staging_claim(&headed(Heading::Destination), None)),
        expected
    );
    assert_eq!(
        asks(new_claim(&headed(Heading::Destination), "pv-2")),
        expected
    );
    let expected = ("1Gi".to_string(), "ReadWriteOnce".to_string());
    assert_eq!(asks(new_claim(&headed(Heading::Source), "pv-1")), expected);
}

#[test]
fn the_staging_claim_is_as_large_as_the_source_really_is() {
    let staging = staging_claim(&record(Heading::Destination), None);
    assert_eq!(staging.name_any(), "pvmigrate-abc-0123456789ab");
    assert_eq!(
        storage(staging.spec.unwrap().resources.unwrap().requests.as_ref()),
        "2Gi"
    );
}

#[test]
fn what_is_written_on_a_claim_until_it_is_deleted_is_kept() {
    let mut record = record(Heading::Destination);
    let mut claim = new_claim(&record, "pv-1");
    claim.labels_mut().insert("tier".into(), "gold".into());
    let annotations = claim.annotations_mut();
    annotations.insert("backup".into(), "hourly".into());
    annotations.insert("pv.kubernetes.io/bind-completed".into(), "yes".into());
    annotations.insert(names::EPOCH.into(), "3".into());
    let owners = record.manifest.owners.clone();
    refresh(&mut record.manifest, &claim);
    assert_eq!(record.manifest.labels["tier"], "gold");
    assert_eq!(record.manifest.annotations["backup"], "hourly");
    let ours = [names::EPOCH, "pv.kubernetes.io/bind-completed"];
    assert!(
        !ours
            .iter()
            .any(|key| record.manifest.annotations.contains_key(*key))
    );
    assert_eq!(record.manifest.owners, owners);
}
