//! Random trees that change at random between the passes of one mover end up equal.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::What;

use crate::change::{EVERYTHING, MAKE, ROOT, changes};
use crate::observe::{differences, observe};
use crate::volume::{Kind, Volume};

/// For each pair of file systems.
const CASES: u32 = 24;
const MANY_CASES: u32 = 1000;

/// `PVMIGRATE_TEST_CASES` is how many cases instead.
fn check(cases: u32, from: Kind, to: Kind) {
    let (source, destination) = (Volume::new(from), Volume::new(to));
    let rounds = (
        changes(&MAKE, 40),
        changes(&EVERYTHING, 12),
        changes(&EVERYTHING, 12),
    );
    let config = ProptestConfig {
        cases: std::env::var("PVMIGRATE_TEST_CASES").map_or(cases, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&rounds, |(first, second, third)| {
        for volume in [&source, &destination] {
            volume.run(&format!("rm -rf {ROOT}; mkdir {ROOT}"));
        }
        let tree = source.path.join(ROOT);
        let copy = destination.path.join(ROOT);
        let mut mover = Mover::new(&source.view.join(ROOT), &copy, Options::default());
        for (what, changes) in [
            (What::Warm, first),
            (What::Warm, second),
            (What::Final, third),
        ] {
            for change in changes {
                let _ = change.apply(&tree);
            }
            let report = mover.pass(what, &mut |_, _| {});
            prop_assert!(report.ok, "{report:#?}");
            prop_assert!(what == What::Warm || report.verified.is_some());
            let expected = observe(&source.view.join(ROOT));
            let found = observe(&destination.view.join(ROOT));
            prop_assert_eq!(differences(&expected, &found), [""; 0]);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{from:?} to {to:?}: {error}"));
}

#[test]
fn a_tree_that_changes_between_passes_is_equal_after_each() {
    check(CASES, Kind::Ext4, Kind::Xfs);
}

#[test]
#[ignore = "takes minutes"]
fn a_tree_that_changes_between_passes_is_equal_after_each_a_thousand_times() {
    check(MANY_CASES, Kind::Xfs, Kind::Ext4);
    check(MANY_CASES, Kind::Ext4, Kind::Btrfs);
    check(MANY_CASES, Kind::Btrfs, Kind::Xfs);
}
