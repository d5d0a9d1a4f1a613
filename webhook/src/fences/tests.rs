use super::*;
use crate::samples::{fenced, fences, release};

fn claim(name: &str) -> Key<'_> {
    Key::Claim {
        namespace: "fixtures",
        name,
    }
}

fn put(into: &mut Fences, volume: &str, record: Record) {
    let of = Fenced::of(&Arc::new(release()), record);
    into.insert(volume, Arc::new(of));
}

#[test]
fn a_record_is_found_by_everything_it_is_about() {
    let fences = fences(&[fenced("data-db-0", &["StatefulSet/db", "Widget/w"])]);
    let workload = |group, resource, name| Key::Workload {
        group,
        resource,
        namespace: "fixtures",
        name,
    };
    let namespace = "fixtures";
    for (key, found) in [
        (claim("data-db-0"), true),
        (claim("data-db-1"), false),
        (claim("pvmigrate-abc-1"), false),
        (
            Key::Staging {
                namespace,
                name: "pvmigrate-abc-1",
            },
            true,
        ),
        (
            Key::Stem {
                namespace,
                stem: "data-db",
            },
            true,
        ),
        (workload("apps", "statefulsets", "db"), true),
        (workload("", "statefulsets", "db"), false),
        (workload("apps", "deployments", "db"), false),
        (workload("example.org", "widgets", "w"), true),
        (Key::Volume("pv-1"), true),
        (Key::Volume("pv-2"), true),
        (Key::Volume("fixtures"), false),
        (Key::Namespace("fixtures"), true),
        (Key::Namespace("ops"), true),
        (Key::Namespace("pv-1"), false),
        (Key::DestinationClass("b"), true),
        (Key::DestinationClass("a"), false),
    ] {
        assert_eq!(fences.first(key).is_some(), found, "{key:?}");
    }
}

#[test]
fn a_record_that_changes_is_found_by_what_it_is_about_now() {
    let mut fences = Fences::default();
    put(&mut fences, "pv-1", fenced("data", &["Deployment/web"]));
    put(&mut fences, "pv-2", fenced("data", &[]));
    assert_eq!(fences.about(claim("data")).count(), 2);
    put(&mut fences, "pv-1", fenced("other", &[]));
    assert_eq!(fences.about(claim("data")).count(), 1);
    assert_eq!(fences.about(claim("other")).count(), 1);
    assert!(fences.remove("pv-1").is_some());
    assert!(fences.remove("pv-2").is_some());
    assert!(fences.remove("pv-2").is_none());
    assert!(fences.is_empty() && fences.index.is_empty());
}

#[test]
fn a_record_may_name_a_thing_twice() {
    let twice = fenced("data", &["Deployment/web", "Deployment/web"]);
    let mut fences = fences(&[twice]);
    let web = Key::Workload {
        group: "apps",
        resource: "deployments",
        namespace: "fixtures",
        name: "web",
    };
    assert_eq!(fences.about(web).count(), 1);
    fences.remove("pv-0");
    assert!(fences.index.is_empty());
}
