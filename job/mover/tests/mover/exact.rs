//! A copy is the same tree, whichever file system it comes from and goes to.

use crate::observe::{allocated_otherwise, data, differences, observe};
use crate::torture::{plant, plant_flags, plant_projects};
use crate::volume::{Kind, Volume};
use crate::{assert_ok, pass, warm};

fn assert_exact(from: Kind, to: Kind) {
    let (source, destination) = (Volume::new(from), Volume::new(to));
    plant(&source);
    if from != Kind::Tmpfs && to != Kind::Tmpfs {
        let both = from
            .flags()
            .chars()
            .filter(|flag| to.flags().contains(*flag));
        plant_flags(&source, &both.collect::<String>());
    }
    if (from, to) == (Kind::Xfs, Kind::Xfs) {
        plant_projects(&source);
    }
    let before = observe(&source.view);
    assert!(before.len() > 80, "the tree is there: {}", before.len());

    let report = pass(&source.view, &destination.path);
    assert_ok(&report);
    assert_eq!(differences(&before, &observe(&destination.view)), [""; 0]);
    assert_eq!(differences(&before, &observe(&source.view)), [""; 0]);
    for sparse in ["sparse", "hole-only", "hole-at-the-end", "written-zeros"] {
        let (left, right) = (source.view.join(sparse), destination.view.join(sparse));
        assert_eq!(data(&left), data(&right), "{sparse}");
    }
    assert_eq!(
        allocated_otherwise(&source.view, &destination.view),
        [""; 0]
    );

    // Observed once more from the storage, and copied once more.
    let again = pass(&source.view, &destination.path);
    assert_ok(&again);
    assert_eq!((again.totals.bytes, again.totals.deleted), (0, 0));
    assert_eq!(again.verified, report.verified);
    assert_eq!(differences(&before, &observe(&destination.view)), [""; 0]);
}

#[test]
fn ext4_to_xfs_keeps_everything() {
    assert_exact(Kind::Ext4, Kind::Xfs);
}

#[test]
fn xfs_to_ext4_keeps_everything() {
    assert_exact(Kind::Xfs, Kind::Ext4);
}

#[test]
fn xfs_to_xfs_keeps_everything() {
    assert_exact(Kind::Xfs, Kind::Xfs);
}

#[test]
fn ext4_to_btrfs_keeps_everything() {
    assert_exact(Kind::Ext4, Kind::Btrfs);
}

#[test]
fn btrfs_to_xfs_keeps_everything() {
    assert_exact(Kind::Btrfs, Kind::Xfs);
}

#[test]
fn tmpfs_to_ext4_keeps_everything() {
    assert_exact(Kind::Tmpfs, Kind::Ext4);
}

#[test]
fn xfs_to_tmpfs_keeps_everything() {
    assert_exact(Kind::Xfs, Kind::Tmpfs);
}

#[test]
fn access_times_of_a_writable_source_stay_as_they_are() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("mkdir d; printf x > d/f; touch -d 2001-01-01 d/f d .");
    let before = observe(&source.view);
    assert_ok(&pass(&source.path, &destination.path));
    assert_eq!(differences(&before, &observe(&source.view)), [""; 0]);
}

#[test]
fn a_warm_pass_copies_and_compares_the_same() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    plant(&source);
    let report = warm(&source.view, &destination.path);
    assert_ok(&report);
    assert!(report.verified.is_some());
    assert_eq!(
        differences(&observe(&source.view), &observe(&destination.view)),
        [""; 0]
    );
}

#[test]
fn what_was_written_into_a_hole_through_a_mapping_is_copied() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let (source, destination) = (Volume::new(kind), Volume::new(Kind::Xfs));
        source.run("truncate -s 10M mapped; sync -f mapped");
        // Still in memory only, so the file system knows of no data there.
        source.run("xfs_io -c 'mmap -rw 0 10m' -c 'mwrite -S 0x41 5000000 9' mapped");
        assert_ok(&pass(&source.view, &destination.path));
        assert_eq!(
            destination.run("tr -d '\\0' < mapped"),
            "AAAAAAAAA",
            "{kind:?}"
        );
    }
}

#[test]
fn holes_smaller_than_a_block_of_the_destination_are_no_difference() {
    let source = Volume::with_options(Kind::Ext4, "64M", "-b 1024");
    let destination = Volume::new(Kind::Xfs);
    source.run(
        "truncate -s 2M comb; printf y | dd of=comb bs=1024 seek=1500 conv=notrunc status=none
         # From one page into the middle of the next.
         head -c 5000000 /dev/urandom > before; truncate -s 40k pages; for i in 0 1 2 3 5 8 9 10 11 14; do
           head -c 1024 /dev/urandom | dd of=pages bs=1024 seek=$i conv=notrunc status=none; done
         for i in $(seq 0 2 999); do printf x | dd of=comb bs=1024 seek=$i conv=notrunc status=none; done",
    );
    assert!(data(&source.view.join("comb")).len() > 400);
    for _ in 0..2 {
        assert_ok(&pass(&source.view, &destination.path));
    }
    assert_eq!(
        differences(&observe(&source.view), &observe(&destination.view)),
        [""; 0]
    );
}

#[test]
fn lost_and_found_is_left_alone_and_its_contents_are_noted() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Ext4));
    source.run("printf x > lost+found/found; printf y > mine");
    destination.run("printf z > lost+found/theirs");
    let report = pass(&source.view, &destination.path);
    assert_ok(&report);
    assert_eq!(
        report.notes,
        ["lost+found has contents, which are not copied"]
    );
    assert_eq!(destination.run("ls lost+found"), "theirs\n");
    assert_eq!(destination.run("cat mine"), "y");
}

#[test]
fn a_lost_and_found_that_an_application_made_is_copied() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    source.run("mkdir lost+found; printf x > lost+found/mine; chown 1000 lost+found");
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(
        destination.run("cat lost+found/mine; stat -c %u lost+found"),
        "x1000\n"
    );
}

#[test]
fn what_is_mounted_in_the_source_is_noted_and_not_entered() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("mkdir m; mount -t tmpfs pvmigrate-test m; printf x > m/inside; printf y > beside");
    let report = pass(&source.path, &destination.path);
    assert_ok(&report);
    assert_eq!(report.notes, ["m is a mount point and is not copied"]);
    assert_eq!(destination.run("find . -type f"), "./beside\n");
}
