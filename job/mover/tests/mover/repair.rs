//! Whatever the destination holds, a pass makes it equal.

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::What;

use crate::background::Background;
use crate::observe::{data, differences, observe};
use crate::torture::{plant, plant_flags};
use crate::volume::{Kind, Volume};
use crate::{assert_ok, pass, warm};

/// What an interrupted pass, another pass, and a bad day may leave.
const GARBAGE: &str = r"
chattr -i immutable immutable-dir; chattr -a append-only
# same size, same time, other content
touch -r big /tmp/pvmigrate-mover-time-$$; printf XXXX | dd of=big bs=1 seek=1500000 conv=notrunc status=none; touch -r /tmp/pvmigrate-mover-time-$$ big; rm /tmp/pvmigrate-mover-time-$$
truncate -s 100 block; printf longer-than-before > plain; rm empty
# holes filled in, data where there was a hole, reserved space that is not wanted
dd if=/dev/zero of=hole-only bs=1M count=10 conv=notrunc status=none
printf garbage | dd of=sparse bs=64K seek=100 conv=notrunc status=none
fallocate -l 8M -n hole-at-the-end; fallocate -p -o 0 -l 1M written-zeros
rm reserved; truncate -s 4M reserved
# other types
rm sym-relative; mkdir -p sym-relative/with/content; printf x > sym-relative/with/content/x
rm -r dir/deeper; ln -s /etc dir/deeper
rm fifo-a; printf file > fifo-a; rm -r acl-dir; mkfifo acl-dir
rm char-a; mknod char-a c 1 5; rm sym-long; ln -s elsewhere sym-long
# hard links split and merged
cp --preserve=all --remove-destination link-a link-b; rm other-a; ln link-a other-a; rm mode-0644; ln link-a mode-0644
ln plain dir/surplus-name
# metadata
chmod 777 owned mode-4755; chown 1:1 capable; setfattr -n user.surplus -v x plain; setfattr -x user.one attributed
setfattr -n user.big -v other attributed; setfacl -b acl; setfacl -m u:1:rwx plain; setfacl -d -m u:1:rwx dir
setfattr -n trusted.special -h -v other sym-a; touch -h sym-b; chown -h 9:9 sym-b
# what the source has not
mkdir -p surplus/a/b/c; printf x > surplus/a/b/c/d; mkfifo surplus/fifo; ln -s / surplus/root
printf x > surplus/stuck; chattr +i surplus/stuck surplus/a/b
chattr +i plain; chattr +a dir
";

#[test]
fn a_destination_full_of_garbage_becomes_equal() {
    for (from, to) in [(Kind::Ext4, Kind::Xfs), (Kind::Xfs, Kind::Ext4)] {
        let (source, destination) = (Volume::new(from), Volume::new(to));
        plant(&source);
        plant_flags(&source, "AdS");
        let before = observe(&source.view);
        assert_ok(&pass(&source.view, &destination.path));
        destination.run(GARBAGE);
        assert!(differences(&before, &observe(&destination.view)).len() > 40);

        assert_ok(&pass(&source.view, &destination.path));
        assert_eq!(differences(&before, &observe(&destination.view)), [""; 0]);
        for sparse in ["sparse", "hole-only", "hole-at-the-end", "written-zeros"] {
            let (left, right) = (source.view.join(sparse), destination.view.join(sparse));
            assert_eq!(data(&left), data(&right), "{sparse}, {from:?} to {to:?}");
        }
        let blocks = "stat -c '%n %b' hole-only hole-at-the-end";
        assert_eq!(destination.run(blocks), source.run(blocks));
    }
}

#[test]
fn a_change_within_a_large_file_writes_only_what_changed() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("head -c 20000000 /dev/urandom > file");
    assert_ok(&pass(&source.view, &destination.path));
    source.run("printf changed | dd of=file bs=1 seek=12345678 conv=notrunc status=none");
    let report = pass(&source.view, &destination.path);
    assert_ok(&report);
    assert!(report.totals.bytes <= 1024 * 1024, "{report:#?}");
}

#[test]
fn files_that_change_under_a_warm_pass_are_counted_and_made_good_by_the_final_one() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("for i in $(seq 300); do mkdir $i; head -c 100000 /dev/urandom > $i/f; done");
    let writer = Background::script(
        &source.path,
        "while :; do for i in {1..300}; do rm -f $i/f; echo $RANDOM > $i/f; mv $i/f $i/g; mv $i/g $i/f; done; done",
    );
    let mut noted = false;
    for _ in 0..20 {
        let report = warm(&source.view, &destination.path);
        assert!(report.ok, "{report:#?}");
        noted |= report
            .notes
            .iter()
            .any(|note| note.contains("vanished or changed"));
        if noted {
            break;
        }
    }
    drop(writer);
    assert!(noted, "twenty passes over a busy tree met no change");
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(
        differences(&observe(&source.view), &observe(&destination.view)),
        [""; 0]
    );
}

#[test]
fn one_mover_makes_good_what_changed_under_its_warm_passes() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    source.run("for i in $(seq 40); do mkdir $i; head -c 300000 /dev/urandom > $i/f; done");
    let writer = Background::script(
        &source.path,
        "while :; do for i in {1..40}; do
           printf x | dd of=$i/f bs=1 seek=$RANDOM conv=notrunc status=none; touch -d 2001-01-01 $i/f
           mv $i/f $i/g; ln $i/g $i/f; rm $i/g; mv $i moved; mv moved $i
         done; done",
    );
    let mut mover = Mover::new(&source.view, &destination.path, Options::default());
    for _ in 0..6 {
        let report = mover.pass(What::Warm, &mut |_, _| {});
        assert!(report.ok, "{report:#?}");
    }
    drop(writer);
    // In the middle of its loop it may have left a name.
    source.run("[ ! -e moved ] || rm -r moved");
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
    assert_eq!(
        differences(&observe(&source.view), &observe(&destination.view)),
        [""; 0]
    );
}

#[test]
fn a_file_that_changes_under_a_final_pass_is_an_error() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("head -c 50000000 /dev/urandom > busy");
    let writer = Background::script(&source.path, "while :; do printf x >> busy; done");
    let report = pass(&source.view, &destination.path);
    drop(writer);
    assert!(!report.ok);
    let reason = crate::reasons(&report, "busy");
    assert!(reason.contains("changed while it was copied"), "{reason}");
}

#[test]
fn what_vanishes_under_a_final_pass_is_an_error_that_names_it() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run(
        "head -c 100000000 /dev/urandom > a-large; mkdir z; for i in $(seq 500); do : > z/$i; done",
    );
    let writer = Background::script(
        &source.path,
        "while :; do for i in {1..500}; do mv z/$i z/${i}x; mv z/${i}x z/$i; done; done",
    );
    let report = pass(&source.view, &destination.path);
    drop(writer);
    assert!(!report.ok);
    let named = report.errors.iter().any(|error| {
        let path = error.path.strip_prefix('z').unwrap_or("none");
        (path.is_empty() || path.starts_with('/')) && error.reason.contains("while it was copied")
    });
    assert!(named, "{report:#?}");
}
