//! Destinations without room: refused before the first byte, or an error in the middle.

use std::num::NonZeroU64;

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::{PassReport, What};

use crate::background::Background;
use crate::volume::{Kind, Volume, shell};
use crate::{assert_ok, pass, reasons};

/// All whole numbers of a text.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Nothing was written or removed, and the reason has what is needed and what there is.
#[track_caller]
fn assert_refused(report: &PassReport, destination: &Volume, words: &str) {
    assert!(!report.ok, "{report:#?}");
    assert_eq!(
        (report.error_count, report.totals.bytes),
        (1, 0),
        "{report:#?}"
    );
    let reason = reasons(report, ".");
    assert!(reason.contains(words), "{reason}");
    assert!(numbers(&reason).len() >= 2, "both numbers: {reason}");
    assert_eq!(
        destination.run("find . -name lost+found -prune -o -type f -print"),
        "./from-before\n"
    );
}

#[test]
fn a_destination_with_too_few_bytes_is_refused_before_the_first_one() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let (source, destination) = (Volume::new(Kind::Ext4), Volume::with_size(kind, "8M"));
        source.run("printf x > a; head -c 20000000 /dev/urandom > b");
        destination.run("printf y > from-before");
        for what in [What::Warm, What::Final] {
            let mut mover = Mover::new(&source.view, &destination.path, Options::default());
            let report = mover.pass(what, &mut |_, _| {});
            assert_refused(&report, &destination, "bytes");
        }
    }
}

#[test]
fn a_destination_with_too_few_inodes_is_refused_before_the_first_one() {
    let source = Volume::new(Kind::Ext4);
    source.run("for i in $(seq 300); do : > $i; done");
    let destination = Volume::with_options(Kind::Ext4, "64M", "-N 64");
    destination.run("printf y > from-before");
    let report = pass(&source.view, &destination.path);
    assert_refused(&report, &destination, "inodes");
    let free: u64 = destination.run("stat -f -c %d .").trim().parse().unwrap();
    let numbers = numbers(&reasons(&report, "."));
    assert!(numbers.iter().any(|number| *number >= 300), "{numbers:?}");
    // What is there from before may be counted as room.
    assert!(
        numbers.iter().any(|number| (free..=64).contains(number)),
        "{numbers:?}"
    );
}

#[test]
fn a_smaller_destination_keeps_a_twentieth_free_until_nothing_writes_any_more() {
    let (source, destination) = (
        Volume::with_size(Kind::Ext4, "100M"),
        Volume::with_size(Kind::Tmpfs, "20M"),
    );
    source.run("head -c 20400000 /dev/urandom > a");
    let fresh = || Mover::new(&source.view, &destination.path, Options::default());
    let why = fresh().check().unwrap_err().to_string();
    let words = "of which 1048576 (5 %) have to stay free because it is smaller than the source";
    assert!(why.contains(words), "{why}");
    let report = fresh().pass(What::Warm, &mut |_, _| {});
    assert!(reasons(&report, ".").contains(words), "{report:#?}");
    assert_eq!(report.totals.bytes, 0);
    assert_ok(&fresh().pass(What::Final, &mut |_, _| {}));

    let alike = Volume::with_size(Kind::Tmpfs, "97M");
    source.run("fallocate -l 60M b");
    let room = Mover::new(&source.view, &alike.path, Options::default());
    room.check().unwrap();
}

#[test]
fn what_the_destination_has_already_needs_no_room() {
    let (source, destination) = (
        Volume::new(Kind::Ext4),
        Volume::with_size(Kind::Ext4, "32M"),
    );
    source.run("head -c 20000000 /dev/urandom > a; truncate -s 10G hole");
    let mut mover = Mover::new(&source.view, &destination.path, Options::default());
    assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
    source.run("printf x >> a");
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
    // A mover that knows nothing of the passes before.
    source.run("head -c 1000000 /dev/urandom > b");
    assert_ok(&pass(&source.view, &destination.path));
    // Room that is taken by what the source has not.
    source.run("rm a; head -c 20000000 /dev/urandom > c");
    assert_ok(&pass(&source.view, &destination.path));
}

#[test]
fn room_that_another_takes_in_the_middle_ends_the_pass_with_path_and_reason() {
    let source = Volume::new(Kind::Ext4);
    source.run("printf x > a; for i in $(seq 30); do head -c 2000000 /dev/urandom > b$i; done");
    let another = "
        n=0; until [ -s tree/a ]; do :; done
        while free=$(($(stat -f -c '%f * %S' .))); [ $free -gt 3000000 ]; do
            # What is copied meanwhile may be in its way.
            fallocate -l $((free * 9 / 10)) another-$((n += 1)) || :
        done
        sleep 100";
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        let destination = Volume::with_size(kind, "100M");
        // Beside the copy, whose pass would remove what the source has not.
        let copy = destination.path.join("tree");
        destination.run("mkdir tree");
        let another = Background::script(&destination.path, another);
        let options = Options {
            bandwidth: NonZeroU64::new(40_000_000),
            ..Options::default()
        };
        let mut mover = Mover::new(&source.view, &copy, options);
        let report = mover.pass(What::Warm, &mut |_, _| {});
        drop(another);
        assert!(!report.ok, "{kind:?}");
        let error = report
            .errors
            .iter()
            .find(|error| error.path.starts_with('b'));
        let reason = &error
            .unwrap_or_else(|| panic!("no path: {report:#?}"))
            .reason;
        assert!(reason.contains("No space left on device"), "{reason}");
        // It does not go on to find the same of all that is left.
        assert!(report.error_count <= 8, "{report:#?}");

        destination.run("rm -f another-*");
        assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
        assert_eq!(shell(&copy, "cat a"), "x");
    }
}

#[test]
fn a_quota_of_the_destination_is_its_size() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    let quota = "umount view volume; mount -o loop,prjquota image volume; mount --bind volume view
        chattr +P -p 9 volume; xfs_quota -x -c 'limit -p bhard=10m 9' volume";
    let set = std::process::Command::new("bash")
        .args(["-ec", quota])
        .current_dir(destination.folder())
        .status();
    if !set.unwrap().success() {
        println!("nothing is tested: this kernel has no XFS quota");
        return;
    }
    source.run("head -c 20000000 /dev/urandom > large");
    destination.run("printf y > from-before");
    let report = pass(&source.view, &destination.path);
    assert_refused(&report, &destination, "bytes");
    source.run("truncate -s 1M large");
    assert_ok(&pass(&source.view, &destination.path));
}
