//! What goes wrong between the write and the proof, below the engine and behind its back.
//!
//! The engine is stopped while it copies what comes after, which makes the moment a certain one.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pvmigrate_record::order::{PassReport, What};
use rustix::process::Signal;

use crate::background::Background;
use crate::volume::{Kind, Volume, shell};
use crate::{assert_ok, eventually, pass, reasons, verify};

/// Overwrites bytes of a file on the storage, below its file system, whose page cache goes on
/// having the right ones. `at` is within the file.
fn corrupt(volume: &Volume, file: &str, at: u64) {
    let script = format!(
        "sync -f {file}
         filefrag -e -b512 {file} > ../extents
         block=$(awk -v at={} '/^ *[0-9]+:/ {{ gsub(/[.:]/, \" \"); if ($2 <= at && at <= $3) print $4 + at - $2 }}' ../extents)
         printf CORRUPT | dd of=../image bs=1 seek=$((block * 512 + {})) conv=notrunc status=none
         blockdev --flushbufs $(findmnt -n -o SOURCE --mountpoint .)",
        at / 512,
        at % 512
    );
    volume.run(&script);
}

/// Copies; when `file` has its content and `time` of modification on the destination, `interfere`
/// is done to it, and then the copy goes on.
fn copy_while(
    (source, destination): (&Volume, &Volume),
    level: &str,
    file: &str,
    interfere: impl FnOnce(),
) -> PassReport {
    let output = source.folder().join("report");
    let mut copy = Background::start(
        Command::new(env!("CARGO_BIN_EXE_pvmigrate-mover"))
            .args([
                "copy",
                "--bandwidth=100000000",
                &format!("--verify={level}"),
            ])
            .args([&source.view, &destination.path])
            .stdout(Stdio::from(fs::File::create(&output).unwrap())),
    );
    let wanted = fs::metadata(source.view.join(file)).unwrap();
    eventually("it is copied", || {
        let running = copy.child.try_wait().unwrap().is_none();
        assert!(running, "it ended too early to interfere");
        fs::metadata(destination.view.join(file)).is_ok_and(|found| {
            (found.len(), found.modified().unwrap()) == (wanted.len(), wanted.modified().unwrap())
        })
    });
    copy.signal(Signal::STOP);
    let done = destination.run("[ ! -e z ] || find z -size +3900 | wc -l");
    let done: u32 = done.trim().parse().unwrap_or(0);
    assert!(done < FILES_AFTER, "it is too late to interfere");
    interfere();
    copy.signal(Signal::CONT);
    copy.child.wait().unwrap();
    serde_json::from_slice(&fs::read(output).unwrap()).unwrap()
}

/// Enough to be still at work on them when the target is done.
const FILES_AFTER: u32 = 50;

fn source() -> Volume {
    let source = Volume::new(Kind::Ext4);
    source.run(&format!(
        "head -c 1500000 /dev/urandom > a-target; head -c 1500000 /dev/urandom > fine; mkdir z
         for i in $(seq {FILES_AFTER}); do head -c 2000000 /dev/urandom > z/$i; done
         touch -d 2001-01-01 a-target"
    ));
    source
}

#[test]
fn content_that_the_storage_lost_after_it_was_written_is_found_by_the_levels_that_read() {
    let source = source();
    for (level, kind, found) in [
        ("written", Kind::Xfs, true),
        ("full", Kind::Ext4, true),
        ("metadata", Kind::Xfs, false),
    ] {
        let destination = Volume::new(kind);
        let report = copy_while((&source, &destination), level, "a-target", || {
            corrupt(&destination, "a-target", 1_234_567);
        });
        assert_eq!(report.ok, !found, "{level}: {report:#?}");
        if found {
            let reason = reasons(&report, "a-target");
            assert!(reason.contains("content"), "{reason}");
            assert_eq!(report.error_count, 1, "{report:#?}");
        }
    }
}

#[test]
fn a_file_that_vanishes_from_the_destination_after_it_was_written_is_named() {
    let source = source();
    for level in ["metadata", "written", "full"] {
        let destination = Volume::new(Kind::Xfs);
        let report = copy_while((&source, &destination), level, "a-target", || {
            fs::remove_file(destination.path.join("a-target")).unwrap();
        });
        assert!(!report.ok, "{level}");
        let reason = reasons(&report, "a-target");
        assert!(reason.contains("missing on the destination"), "{reason}");
    }
}

#[test]
fn a_file_whose_mode_another_changes_after_it_was_written_is_named() {
    let (source, destination) = (source(), Volume::new(Kind::Ext4));
    let report = copy_while((&source, &destination), "written", "a-target", || {
        destination.run("chmod 600 a-target");
    });
    assert!(!report.ok);
    assert!(reasons(&report, "a-target").contains("mode"));
}

#[test]
fn verification_reads_the_storage_and_not_the_page_cache() {
    let source = Volume::new(Kind::Ext4);
    source.run("mkdir d; for i in $(seq 9); do head -c 1000000 /dev/urandom > d/$i; done; printf small > d/small");
    for kind in [Kind::Xfs, Kind::Ext4] {
        let destination = Volume::new(kind);
        assert_ok(&pass(&source.view, &destination.path));
        destination.run("cat d/* > /dev/null");
        for (file, at) in [("d/3", 999_990), ("d/7", 0), ("d/small", 1)] {
            corrupt(&destination, file, at);
        }
        let report = verify(&source.view, &destination.path);
        assert_eq!(report.error_count, 3, "{kind:?}: {report:#?}");
        for path in ["d/3", "d/7", "d/small"] {
            assert!(reasons(&report, path).contains("content differs"));
        }
        // A pass in full finds it too, and makes it good.
        let repaired = pass(&source.view, &destination.path);
        assert_ok(&repaired);
        assert_eq!(shell(Path::new("/"), &compare(&source, &destination)), "");
    }
}

#[test]
fn what_a_pass_found_wrong_the_next_one_of_the_same_mover_makes_good() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source
        .run("mkdir d; head -c 3000000 /dev/urandom > d/large; printf small > d/small; : > d/mode; sleep 0.1");
    let mut mover = crate::mover(&source.view, &destination.path);
    assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
    corrupt(&destination, "d/large", 2_345_678);
    corrupt(&destination, "d/small", 1);
    destination.run("chmod 600 d/mode");
    let report = mover.pass(What::Final, &mut |_, _| {});
    assert_eq!(report.error_count, 3, "{report:#?}");
    for (path, words) in [
        ("d/large", "content differs after byte 2097152"),
        ("d/small", "content differs after byte 0"),
        (
            "d/mode",
            "mode is 644 on the source, 600 on the destination",
        ),
    ] {
        assert_eq!(reasons(&report, path), words);
    }
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
    assert_eq!(shell(Path::new("/"), &compare(&source, &destination)), "");
}

fn compare(source: &Volume, destination: &Volume) -> String {
    format!(
        "diff -r {}/d {}/d",
        source.view.display(),
        destination.view.display()
    )
}

#[test]
fn a_name_that_is_changed_below_the_file_system_is_named() {
    let (source, destination) = (
        Volume::new(Kind::Ext4),
        // Else the file system would find it itself.
        Volume::with_options(Kind::Ext4, "64M", "-O ^metadata_csum"),
    );
    source.run("mkdir d; printf x > d/a-name-to-change; printf y > d/other");
    assert_ok(&pass(&source.view, &destination.path));
    destination.offline("sed -i 's/a-name-to-change/a-name-to-chance/' image");
    let report = verify(&source.view, &destination.path);
    assert!(!report.ok);
    assert!(reasons(&report, "d/a-name-to-change").contains("missing on the destination"));
    assert!(reasons(&report, "d/a-name-to-chance").contains("not on the source"));
}
