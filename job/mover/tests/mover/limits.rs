//! What is too long, too deep, too full, or not possible.

use pvmigrate_record::order::PassReport;

use crate::volume::{Kind, Volume, shell};
use crate::{assert_ok, pass, reasons, verify, warm};

/// 60 × 200 bytes deep, with a name that is not UTF-8 and a link from the top to the bottom.
const DEEP: &str = r#"
printf linked > top
for i in $(seq 60); do d=$(printf "$i-%.0s" {1..70} | head -c 199)$'\xff'; mkdir "$d"; cd -P "$d" 2>/dev/null || cd "$d"; done
printf bottom > bottom; ln -s nowhere link; mkfifo fifo; setfattr -n user.deep -v x bottom
setfattr -h -n trusted.deep -v x link; ln bottom bottom-too
"#;
const LIST: &str =
    r"find . -path ./lost+found -prune -o -printf '%p %y %m %U:%G %T@ %A@ %l\n' | sort";

#[test]
fn paths_beyond_path_max_are_copied_verified_and_removed() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run(DEEP);
    assert_ok(&pass(&source.view, &destination.path));
    let listed = shell(&source.view, LIST);
    assert!(listed.lines().any(|line| line.len() > 10_000));
    assert!(shell(&destination.view, LIST) == listed);
    assert_ok(&verify(&source.view, &destination.path));

    source.run("rm -r 1-*");
    let report = pass(&source.view, &destination.path);
    assert_ok(&report);
    assert_eq!(report.totals.deleted, 64);
}

#[test]
fn a_tree_deeper_than_the_limit_of_open_files_is_copied() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    // Names on the way back up, so that every level is looked at again after the deepest.
    source.run("for i in $(seq 300); do mkdir d z; : > z/f; cd d; done; mkdir -p ../../x/y");
    let program = env!("CARGO_BIN_EXE_pvmigrate-mover");
    let copy = |from: &Volume, to: &Volume| {
        let command = format!(
            "ulimit -n 160; ulimit -s 256; {program} copy {} {}",
            from.view.display(),
            to.path.display()
        );
        let report: PassReport = serde_json::from_str(&shell(from.folder(), &command)).unwrap();
        assert_ok(&report);
        report
    };
    assert_eq!(copy(&source, &destination).totals.files, 300);
    assert!(shell(&destination.view, LIST) == shell(&source.view, LIST));
    source.run("rm -r d");
    assert_eq!(copy(&source, &destination).totals.deleted, 900);
}

#[test]
fn more_files_than_may_be_open_are_copied_from_one_folder() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    // As large as several threads share, and with next to nothing in them.
    source.run("for i in $(seq 400); do truncate -s 2M $i; printf $i >> $i; done; mkdir d; cd d; for i in $(seq 900); do printf $i > $i; done");
    for level in ["written", "full"] {
        let command = format!(
            "ulimit -n 160; {} copy --verify={level} {} {}",
            env!("CARGO_BIN_EXE_pvmigrate-mover"),
            source.view.display(),
            destination.path.display()
        );
        let report: PassReport = serde_json::from_str(&shell(source.folder(), &command)).unwrap();
        assert_ok(&report);
        assert_eq!(report.totals.files, 1300);
        destination.run("rm -r *");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_the_others_are_copied() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    // What is not lost lies before it, or in its inode.
    source.run("printf x > a; sync -f a; head -c 5000000 /dev/urandom > lost; ln -s y z");
    // The storage ends where the file begins: what a disk with bad sectors answers.
    source.offline("debugfs -R 'blocks /lost' image 2>/dev/null | cut -d' ' -f1 > first");
    source.run("truncate -s $(($(< ../first) * 4096)) ../image");
    let report = pass(&source.view, &destination.path);
    assert!(!report.ok);
    let reason = reasons(&report, "lost");
    assert!(reason.contains("cannot read it"), "{reason}");
    assert_eq!(report.error_count, 1);
    assert_eq!(destination.run("cat a; readlink -n z"), "xy");
}

#[test]
fn in_a_folder_that_cannot_be_read_nothing_is_removed() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("mkdir bad good; printf x > bad/f; printf y > good/f");
    assert_ok(&pass(&source.view, &destination.path));
    source.offline(
        "block=$(debugfs -R 'blocks /bad' image 2>/dev/null | cut -d' ' -f1); dd if=/dev/urandom of=image bs=4096 seek=$block count=1 conv=notrunc status=none",
    );
    source.run("rm good/f");
    let report = pass(&source.view, &destination.path);
    assert!(!report.ok);
    let reason = reasons(&report, "bad");
    assert!(reason.contains("cannot read its directory"), "{reason}");
    assert_eq!(destination.run("find . -type f"), "./bad/f\n");
}

#[test]
fn a_write_that_is_lost_on_its_way_to_the_storage_is_an_error() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let source = Volume::new(Kind::Tmpfs);
        source.run("head -c 150000000 /dev/urandom > large");
        // Its file system has room; the storage below does not. Write errors come afterwards.
        let storage = Volume::with_size(Kind::Tmpfs, "110M");
        storage.run(&format!(
            "mkdir mounted; truncate -s 400M image; mkfs.{} -q image; mount -o loop image mounted",
            kind.name()
        ));
        let report = pass(&source.view, &storage.path.join("mounted"));
        assert!(!report.ok, "{kind:?}: {report:#?}");
        assert!(
            report
                .errors
                .iter()
                .any(|error| error.reason.contains("destination"))
        );
    }
}

#[test]
fn a_read_only_destination_is_an_error_and_ends_the_pass() {
    let (source, destination) = (Volume::new(Kind::Tmpfs), Volume::new(Kind::Tmpfs));
    source.run("for i in $(seq 50); do : > $i; done");
    let report = pass(&source.view, &destination.view);
    assert!(!report.ok);
    // It does not go on to find the same of all that is left.
    assert!(report.error_count <= 8, "{report:#?}");
    assert!(report.errors[0].reason.contains("Read-only file system"));
}

#[test]
fn a_folder_in_the_other_is_refused_before_anything_is_touched() {
    let volume = Volume::new(Kind::Tmpfs);
    volume.run("mkdir in; : > in/f; : > beside");
    for (source, destination) in [("", "in"), ("in", ""), ("in", "in")] {
        let report = pass(&volume.path.join(source), &volume.path.join(destination));
        assert!(reasons(&report, ".").contains("in the other"));
    }
    assert_eq!(volume.run("find . -type f | sort"), "./beside\n./in/f\n");
}

#[test]
fn a_source_that_is_not_there_is_an_error_in_a_warm_pass_too() {
    let destination = Volume::new(Kind::Tmpfs);
    destination.run(": > f");
    let report = warm(&destination.folder().join("nowhere"), &destination.path);
    assert!(!report.ok);
    assert!(reasons(&report, ".").contains("cannot open it"));
    assert_eq!(destination.run("ls"), "f\n");
}

#[test]
fn the_capabilities_of_a_mover_pod_are_enough() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    crate::torture::plant(&source);
    // What only CAP_SYS_ADMIN may set, and for trusted.* even see.
    source.run("setfattr -x security.custom plain");
    let command = format!(
        "setpriv --bounding-set=-all,+chown,+fowner,+fsetid,+dac_override,+dac_read_search,+setfcap,+mknod {} copy {} {}",
        env!("CARGO_BIN_EXE_pvmigrate-mover"),
        source.view.display(),
        destination.path.display()
    );
    let report: PassReport = serde_json::from_str(&shell(source.folder(), &command)).unwrap();
    assert_ok(&report);
    source.run("find . -exec setfattr -h -x trusted.special {} ';' 2> /dev/null");
    source.run("setfattr -x trusted.bytes attributed; setfattr -x trusted.t dir");
    assert_ok(&verify(&source.view, &destination.path));
}
