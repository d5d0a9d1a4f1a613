//! Verification finds what a copy may have got wrong, and names each path.

use pvmigrate_mover::{Exclusions, Mover, Options};
use pvmigrate_record::order::What;

use crate::torture::{plant, plant_flags};
use crate::volume::{Kind, Volume};
use crate::{assert_ok, pass, reasons, verify};

fn copied() -> (Volume, Volume) {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    plant(&source);
    plant_flags(&source, "AdS");
    assert_ok(&pass(&source.view, &destination.path));
    (source, destination)
}

#[test]
fn each_fault_is_named_by_its_path() {
    let (source, destination) = copied();
    assert_ok(&verify(&source.view, &destination.path));
    // (what happens to the destination, the path that must be named, words of the reason)
    let faults = [
        (
            "touch -r big t; printf CHANGED | dd of=big bs=1 seek=2500000 conv=notrunc status=none; touch -r t big; rm t; touch -d '2005-05-05 05:05:05.050505050' .",
            "big",
            "content",
        ),
        (
            "rm dir/deeper/still/child",
            "dir/deeper/still/child",
            "missing on the destination",
        ),
        (
            "printf x > dir/deeper/surplus",
            "dir/deeper/surplus",
            "not on the source",
        ),
        (
            "chmod 0645 mode-0644",
            "mode-0644",
            "mode is 644 on the source, 645",
        ),
        ("chmod g-s dir-2755", "dir-2755", "mode"),
        (
            "chown 1:4321 owned",
            "owned",
            "owner is 1234:4321 on the source, 1:4321",
        ),
        (
            "touch -d '2011-01-01 01:01:01.000000002' acl",
            "acl",
            "time of modification",
        ),
        (
            "setfattr -n user.one -v 2 attributed",
            "attributed",
            "user.one",
        ),
        (
            "setfattr -x trusted.special fifo-a",
            "fifo-a",
            "trusted.special",
        ),
        ("setfacl -k acl-dir", "acl-dir", "posix_acl_default"),
        ("setcap -r capable", "capable", "security.capability"),
        (
            "rm sym-relative; ln -s other sym-relative",
            "sym-relative",
            "points elsewhere",
        ),
        ("rm char-a; mknod char-a c 1 9", "char-a", "device"),
        (
            "rm socket-b; mkfifo socket-b",
            "socket-b",
            "a socket on the source, a FIFO on the destination",
        ),
        (
            "cp --preserve=all --remove-destination link-b t; mv t link-b",
            "link-b",
            "hard links",
        ),
        (
            "dd if=/dev/zero of=hole-only bs=1M count=10 conv=notrunc status=none",
            "hole-only",
            "holes",
        ),
        ("chattr -i immutable", "immutable", "immutable"),
        (
            "printf x > $'dir\\xc3/more'",
            "dir\\xc3/more",
            "not on the source",
        ),
        ("chmod o-x .", ".", "mode"),
        ("setfattr -x user.root .", ".", "user.root"),
    ];
    let before = verify(&source.view, &destination.path).verified.unwrap();
    for (fault, path, words) in faults {
        destination.run(fault);
        let report = verify(&source.view, &destination.path);
        assert!(!report.ok, "{fault}");
        let reason = reasons(&report, path);
        assert!(reason.contains(words), "{path}: {reason}");
        let verified = report.verified.unwrap();
        // Where the holes are is no content: the digest is the same, the error is there.
        if words != "holes" {
            assert_ne!(verified.destination_digest, before.source_digest, "{fault}");
            assert_ne!(
                verified.destination_digest, verified.source_digest,
                "{fault}"
            );
        }
        assert_ok(&pass(&source.view, &destination.path));
    }
}

#[test]
fn only_the_first_errors_are_kept_and_all_are_counted() {
    let (source, destination) = (Volume::new(Kind::Tmpfs), Volume::new(Kind::Tmpfs));
    source.run("for i in $(seq 50); do : > $i; done; touch -d 2001-01-01 .");
    destination.run("touch -d 2001-01-01 .");
    let report = verify(&source.view, &destination.path);
    assert!(!report.ok);
    assert!(report.error_count >= 50);
    assert_eq!(report.errors.len(), 20);
}

#[test]
fn what_the_copy_passes_over_is_named() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("mkdir -p d/e; : > d/empty; printf x > d/file; ln -s x d/link; printf y > d/e/deep; ln d/file d/e/hard");
    let paths = ["d/empty", "d/file", "d/link", "d/e"];
    for path in paths {
        let options = Options {
            overlook: Exclusions::parse(&[path]).unwrap(),
            ..Options::default()
        };
        let mut mover = Mover::new(&source.view, &destination.path, options);
        let report = mover.pass(What::Final, &mut |_, _| {});
        assert!(!report.ok, "{path}");
        assert_eq!(reasons(&report, path), "missing on the destination");
        destination.run("rm -r *");
    }
    // Also in a pass that has little to do.
    let mut mover = Mover::new(&source.view, &destination.path, Options::default());
    assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
    destination.run("rm d/empty");
    let report = mover.pass(What::Final, &mut |_, _| {});
    assert_ok(&report);
    assert_eq!(destination.run("ls d/empty"), "d/empty\n");
}
