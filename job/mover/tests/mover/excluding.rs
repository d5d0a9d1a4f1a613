//! What is left out because a pattern says so.

use pvmigrate_mover::{Exclusions, Mover, Options, verify};
use pvmigrate_record::order::{Level, What};

use crate::volume::{Kind, Volume};
use crate::{assert_ok, reasons};

fn leaving_out(patterns: &[&str]) -> Options {
    Options {
        verify: Level::Full,
        exclude: Exclusions::parse(patterns).unwrap(),
        ..Options::default()
    }
}

const TREE: &str = "mkdir -p cache/deep a/cache $'a/b\\xff' tmp; printf x > cache/deep/f; printf x > a/cache/f
    printf x > a/1.log; printf x > $'a/b\\xff/2.log'; printf x > 3.log; printf x > tmp/f; ln a/1.log tmp/linked; printf x > kept";

#[test]
fn matches_are_left_out_counted_and_verified_as_if_they_were_not_there() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run(TREE);
    let options = leaving_out(&["/cache", "**/*.log", "tmp/f"]);
    let mut mover = Mover::new(&source.view, &destination.path, options.clone());
    for what in [What::Warm, What::Final] {
        let report = mover.pass(what, &mut |_, _| {});
        assert_ok(&report);
        // A directory counts once, with all that is in it.
        assert_eq!(report.totals.excluded, 5, "{report:#?}");
        assert_eq!(report.totals.files + report.totals.hard_links, 3);
        let left = destination.run("find . -not -type d | sort");
        assert_eq!(left, "./a/cache/f\n./kept\n./tmp/linked\n");
    }
    let report = verify(&source.view, &destination.path, &options, &mut |_, _| {});
    assert_ok(&report);
    let all = verify(
        &source.view,
        &destination.path,
        &Options::default(),
        &mut |_, _| {},
    );
    assert!(reasons(&all, "cache").contains("missing on the destination"));
    assert!(reasons(&all, "a/1.log").contains("missing on the destination"));
}

#[test]
fn matches_that_the_destination_has_from_before_are_removed() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Ext4));
    source.run(TREE);
    destination.run(TREE);
    destination.run("mkdir only; printf x > only/here.log; chattr +i cache/deep/f");
    let options = leaving_out(&["cache", "**/*.log"]);
    let verified = |ok| {
        let report = verify(&source.view, &destination.path, &options, &mut |_, _| {});
        assert_eq!(report.ok, ok, "{report:#?}");
        report
    };
    assert!(reasons(&verified(false), "cache").contains("not on the source"));
    let mut mover = Mover::new(&source.view, &destination.path, options.clone());
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
    verified(true);
    let left = destination.run("find . -path ./lost+found -prune -o -not -type d -print | sort");
    assert_eq!(left, "./a/cache/f\n./kept\n./tmp/f\n./tmp/linked\n");
}

#[test]
fn what_comes_to_match_between_two_passes_is_left_out_by_the_second() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    source.run("mkdir d; printf x > d/a; printf x > d/b.tmp");
    let mut mover = Mover::new(&source.view, &destination.path, leaving_out(&["**/*.tmp"]));
    assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
    source.run("mv d/b.tmp d/b; mv d/a d/a.tmp");
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
    assert_eq!(destination.run("ls d"), "b\n");
}
