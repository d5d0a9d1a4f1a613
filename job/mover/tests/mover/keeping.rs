//! Flags, projects and hints; and what a destination cannot keep: an error, or allowed to be lost.

use std::collections::BTreeSet;
use std::process::Command;

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::{Attribute, PassReport, What};

use crate::volume::{Kind, Volume, shell};
use crate::{assert_ok, pass, program, reasons, verify};

/// A pass that may lose one attribute.
fn losing(source: &Volume, destination: &Volume, attribute: Attribute) -> PassReport {
    let options = Options {
        lose: BTreeSet::from([attribute]),
        ..Options::default()
    };
    Mover::new(&source.view, &destination.path, options).pass(What::Final, &mut |_, _| {})
}

/// `paths` have what the destination cannot hold, `words` of it in the reason; the rest is copied.
#[track_caller]
fn assert_error_unless_lost(
    (source, destination): (&Volume, &Volume),
    attribute: Attribute,
    paths: &[&str],
    words: &str,
) {
    source.run("printf y > zz-the-rest");
    let report = pass(&source.view, &destination.path);
    assert!(!report.ok, "{attribute:?} was lost without a word");
    for path in paths {
        let reason = reasons(&report, path);
        assert!(reason.contains(words), "{path}: {reason}");
    }
    assert_eq!(report.error_count, paths.len() as u64, "{report:#?}");
    assert_eq!(destination.run("cat zz-the-rest"), "y");

    let report = losing(source, destination, attribute);
    assert_ok(&report);
    let lost: Vec<_> = report.lost.into_iter().collect();
    assert_eq!(lost, [(attribute, paths.len() as u64)]);
    let another = [Attribute::Owner, Attribute::Mode]
        .into_iter()
        .find(|another| *another != attribute);
    assert!(!losing(source, destination, another.unwrap()).ok);
}

#[test]
fn flags_that_the_destination_has_not() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Tmpfs));
    source.run("mkdir d; printf x > f; chattr +S d f");
    let pair = (&source, &destination);
    assert_error_unless_lost(pair, Attribute::Flags, &["d", "f"], "flag");
}

#[test]
fn a_flag_that_the_destination_ignores() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("mkdir d; chattr +D d");
    let pair = (&source, &destination);
    assert_error_unless_lost(pair, Attribute::Flags, &["d"], "flag");
}

#[test]
fn no_copy_on_write_is_kept_by_btrfs_and_missed_on_xfs() {
    let (source, btrfs) = (Volume::new(Kind::Btrfs), Volume::new(Kind::Btrfs));
    source
        .run(": > f; chattr +C f; printf x > f; mkdir d; chattr +C d; printf x > with; mv with d");
    assert_ok(&pass(&source.view, &btrfs.path));
    let flags = "lsattr -d f d d/with | tr -d -";
    assert!(source.run(flags).starts_with("C f\nC d\n"));
    assert_eq!(btrfs.run(flags), source.run(flags));
    // From before it had the flag: it can only be set on an empty file.
    btrfs.run("rm f; printf x > f");
    assert_ok(&pass(&source.view, &btrfs.path));
    assert_eq!(btrfs.run(flags), source.run(flags));

    let xfs = Volume::new(Kind::Xfs);
    assert_error_unless_lost((&source, &xfs), Attribute::Flags, &["d", "f"], "flag");
}

#[test]
fn a_project_of_its_own_is_kept_and_the_volumes_own_is_not() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Xfs));
    source.run("chattr +P -p 7 .; printf x > volumes; mkdir d; printf x > d/volumes; printf x > own; chattr -p 42 own");
    // As a provisioner sets it up for a quota.
    destination.run("chattr +P -p 9 .");
    let projects =
        || destination.run("lsattr -pd . volumes d d/volumes own | awk '{print $1, $3}'");
    for _ in 0..2 {
        assert_ok(&pass(&source.view, &destination.path));
        assert_eq!(projects(), "9 .\n9 volumes\n9 d\n9 d/volumes\n42 own\n");
    }
    destination.run("chattr -p 1 volumes; chattr -p 2 own");
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(projects(), "9 .\n9 volumes\n9 d\n9 d/volumes\n42 own\n");
    assert!(destination.run("lsattr -pd .").contains('P'));
}

#[test]
fn a_folder_that_gives_its_project_to_new_files_keeps_doing_so() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Xfs));
    source.run("mkdir d; chattr +P -p 42 d; mkdir d/in");
    assert_ok(&pass(&source.view, &destination.path));
    destination.run(": > d/in/new");
    assert_eq!(
        destination.run("lsattr -p d/in/new | awk '{print $1}'"),
        "42\n"
    );
}

#[test]
fn extent_size_hints_are_kept_by_xfs_and_missed_on_ext4() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Xfs));
    source.run("mkdir d; xfs_io -c 'extsize 128k' d; printf x > d/inherits; xfs_io -fc 'extsize 64k' f; printf x > f");
    let hints = "xfs_io -rc extsize f; xfs_io -rc extsize d; xfs_io -rc extsize d/inherits";
    assert_eq!(
        source.run(hints),
        "[65536] f\n[131072] d\n[131072] d/inherits\n"
    );
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(destination.run(hints), source.run(hints));

    let ext4 = Volume::new(Kind::Ext4);
    let paths = ["d", "d/inherits", "f"];
    assert_error_unless_lost((&source, &ext4), Attribute::Project, &paths, "extent size");
}

#[test]
fn a_project_that_the_destination_cannot_hold() {
    let source = Volume::new(Kind::Xfs);
    source.run("printf x > f; chattr -p 42 f; mkdir d; chattr -p 43 d");
    for kind in [Kind::Tmpfs, Kind::Ext4, Kind::Btrfs] {
        let pair = (&source, &Volume::new(kind));
        assert_error_unless_lost(pair, Attribute::Project, &["d", "f"], "project");
    }
}

#[test]
fn projects_between_ext4_and_xfs() {
    let ext4 = || {
        let volume = Volume::new(Kind::Ext4);
        let with_projects = "umount view volume; tune2fs -O project image > /dev/null
            mount -o loop image volume; mount --bind volume view";
        let mut command = Command::new("bash");
        command.args(["-ec", with_projects]);
        let made = command.current_dir(volume.folder()).status().unwrap();
        made.success().then_some(volume)
    };
    let (Some(source), Some(last)) = (ext4(), ext4()) else {
        println!("nothing is tested: this kernel has no projects on ext4");
        return;
    };
    source.run("chattr +P -p 7 .; printf x > f; mkdir d; chattr -p 42 d; printf x > d/g");
    let between = Volume::new(Kind::Xfs);
    assert_ok(&pass(&source.view, &between.path));
    assert_ok(&pass(&between.view, &last.path));
    for volume in [between, last] {
        let projects = volume.run("lsattr -pd . f d d/g | awk '{print $1, $3}'");
        assert_eq!(projects, "0 .\n0 f\n42 d\n0 d/g\n");
    }
}

#[test]
fn an_attribute_that_is_too_large_for_the_destination() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    source.run("mkdir d; : > d/f; for path in d d/f; do setfattr -n user.large -v \"$(head -c 30000 /dev/zero | tr '\\0' v)\" $path; done; setfattr -n user.small -v kept d/f");
    let pair = (&source, &destination);
    assert_error_unless_lost(pair, Attribute::Xattrs, &["d", "d/f"], "user.large");
    assert!(destination.run("getfattr -d d/f").contains("kept"));
}

#[test]
fn times_that_the_destination_rounds() {
    let source = Volume::new(Kind::Xfs);
    let destination = Volume::with_options(Kind::Ext4, "64M", "-I 128");
    source.run("printf x > f; mkdir d; printf y > zz-the-rest; touch -d '2001-01-01 00:00:00.5' d f; touch -d 2001-01-01 zz-the-rest .");
    let report = pass(&source.view, &destination.path);
    assert!(!report.ok);
    for path in ["d", "f"] {
        assert!(reasons(&report, path).contains("time"));
    }
    assert_eq!(report.error_count, 2, "{report:#?}");
    let report = losing(&source, &destination, Attribute::Times);
    assert_ok(&report);
    assert_eq!(report.lost[&Attribute::Times], 2);
}

#[test]
fn acls_where_the_destination_has_none() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Btrfs));
    shell(destination.folder(), "mount -o remount,noacl volume");
    source.run("mkdir d; setfacl -d -m u:5:rwx d; printf x > f; setfacl -m u:5:rwx f");
    let pair = (&source, &destination);
    assert_error_unless_lost(pair, Attribute::Acls, &["d", "f"], "acl");
}

#[test]
fn what_a_pod_with_too_few_capabilities_cannot_give() {
    let source = Volume::new(Kind::Ext4);
    source.run(
        "printf x > owned; chown 5:6 owned; printf x > capable; setcap cap_net_raw+ep capable
         mknod device c 1 3; printf x > plain",
    );
    for (capability, attribute, path) in [
        ("chown", Attribute::Owner, "owned"),
        ("setfcap", Attribute::Capabilities, "capable"),
        ("mknod", Attribute::Specials, "device"),
    ] {
        let destination = Volume::new(Kind::Xfs);
        let copy = |options: &[&str]| {
            let drop = format!("--bounding-set=-{capability}");
            program(
                &["setpriv", &drop],
                "copy",
                options,
                (&source.view, &destination.path),
            )
        };
        let (code, report) = copy(&[]);
        assert_eq!((code, report.error_count), (1, 1), "{report:#?}");
        let reason = reasons(&report, path);
        assert!(reason.contains("Operation not permitted"), "{reason}");
        let (code, report) = copy(&["--lose", attribute.name()]);
        assert_eq!(code, 0, "{report:#?}");
        assert_eq!(
            report.lost.into_iter().collect::<Vec<_>>(),
            [(attribute, 1)]
        );
        assert_eq!(destination.run("cat plain"), "x");
    }
}

#[test]
fn verification_names_flags_and_projects_that_differ() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Xfs));
    source.run("printf x > flag; chattr +A flag; printf x > project; chattr -p 42 project; xfs_io -fc 'extsize 64k' hint");
    assert_ok(&pass(&source.view, &destination.path));
    destination.run("chattr -A flag; chattr -p 43 project; xfs_io -c 'extsize 128k' hint");
    let report = verify(&source.view, &destination.path);
    assert_eq!(report.error_count, 3, "{report:#?}");
    for (path, words) in [
        ("flag", "flag"),
        ("project", "project is 42"),
        ("hint", "extent size"),
    ] {
        let reason = reasons(&report, path);
        assert!(reason.contains(words), "{path}: {reason}");
    }
}
