//! Raw block volumes, as loop devices.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::{PassReport, What};

use crate::background::Background;
use crate::volume::{Kind, Volume, shell};
use crate::{assert_ok, eventually, program};

const MIB: u64 = 1024 * 1024;
/// What a pass after the first compares and writes as one.
const UNIT: u64 = 4 * MIB;

/// A loop device on a file in memory.
pub struct Device {
    pub path: PathBuf,
    /// Its file is `disk` in there.
    pub volume: Volume,
}

impl Device {
    /// Its content is made by a script whose output is the beginning of `disk`; the rest is a hole.
    pub fn new(size: u64, content: &str) -> Self {
        let volume = Volume::with_size(Kind::Tmpfs, "1G");
        let device = volume.run(&format!(
            "{{ {content}; }} > disk; truncate -s {size} disk; losetup --find --show disk"
        ));
        let path = device.trim().into();
        Device { path, volume }
    }

    fn sha256(&self) -> String {
        shell(
            Path::new("/"),
            &format!("sync; sha256sum < {}", self.path.display()),
        )
    }

    fn write(&self, content: &str, at: u64) {
        shell(
            Path::new("/"),
            &format!(
                "printf {content} | dd of={} bs=1 seek={at} conv=notrunc,fsync status=none",
                self.path.display()
            ),
        );
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.path).status();
    }
}

/// By the program: a process that another test is just starting has all that is open in this one,
/// for a moment, so that a device could be in use.
fn pass(source: &Device, destination: &Device) -> PassReport {
    program(&[], "copy", &[], (&source.path, &destination.path)).1
}

fn verify(source: &Device, destination: &Device) -> PassReport {
    program(&[], "verify", &[], (&source.path, &destination.path)).1
}

/// One of several passes of a mover of this process.
fn next_pass(mover: &mut Mover, what: What) -> PassReport {
    let mut report = PassReport::default();
    eventually("no other process has the device", || {
        report = mover.pass(what, &mut |_, _| {});
        report.ok || !report.errors[0].reason.contains("busy")
    });
    report
}

#[track_caller]
pub fn assert_equal(source: &Device, destination: &Device, size: u64) {
    let [a, b] = [source, destination].map(|device| device.path.display());
    shell(Path::new("/"), &format!("sync; cmp -n {size} {a} {b}"));
}

#[track_caller]
fn only_reason(report: &PassReport) -> &str {
    assert!(!report.ok, "{report:#?}");
    assert_eq!(
        (report.error_count, report.totals.bytes),
        (1, 0),
        "{report:#?}"
    );
    &report.errors[0].reason
}

/// Data, zeros that were written, holes, and an end that is no multiple of a unit.
const CONTENT: &str =
    "head -c 9000000 /dev/urandom; head -c 10000000 /dev/zero; head -c 5000 /dev/urandom";
const SIZE: u64 = 33 * MIB + 512;
const FULL_OF_ONES: &str = "head -c 40000000 /dev/zero | tr '\\0' '\\377'";

#[test]
fn a_copy_is_equal_and_zeros_are_written_too() {
    let source = Device::new(SIZE, CONTENT);
    let destination = Device::new(SIZE, FULL_OF_ONES);
    let report = pass(&source, &destination);
    assert_ok(&report);
    assert!(report.verified.is_some());
    assert_equal(&source, &destination, SIZE);
    assert_eq!(source.sha256(), destination.sha256());
}

#[test]
fn a_larger_destination_is_fine() {
    let source = Device::new(SIZE, CONTENT);
    let destination = Device::new(SIZE + 5 * MIB, FULL_OF_ONES);
    assert_ok(&pass(&source, &destination));
    assert_equal(&source, &destination, SIZE);
    assert_ok(&verify(&source, &destination));
}

#[test]
fn a_smaller_destination_is_refused_before_a_byte_is_written() {
    let source = Device::new(SIZE, CONTENT);
    let destination = Device::new(SIZE - 512, FULL_OF_ONES);
    let before = destination.sha256();
    for what in [What::Warm, What::Final] {
        let mut mover = Mover::new(&source.path, &destination.path, Options::default());
        let report = next_pass(&mut mover, what);
        let reason = only_reason(&report);
        for size in [SIZE, SIZE - 512] {
            assert!(reason.contains(&size.to_string()), "{reason}");
        }
        assert_eq!(destination.sha256(), before);
    }
}

#[test]
fn a_destination_in_use_is_refused() {
    let source = Device::new(SIZE, CONTENT);
    let destination = Device::new(SIZE, ":");
    let device = destination.path.display();
    destination.volume.run(&format!(
        "mkfs.ext4 -q {device}; mkdir m; mount {device} m; printf x > m/f"
    ));
    let report = pass(&source, &destination);
    let reason = only_reason(&report);
    assert!(
        reason.contains("busy") || reason.contains("in use"),
        "{reason}"
    );
    assert_eq!(
        destination
            .volume
            .run("umount m; mount -o ro disk m; cat m/f"),
        "x"
    );
}

#[test]
fn only_units_that_changed_are_written_by_the_next_pass() {
    let source = Device::new(SIZE, CONTENT);
    let destination = Device::new(SIZE, FULL_OF_ONES);
    let mut mover = Mover::new(&source.path, &destination.path, Options::default());
    assert_ok(&next_pass(&mut mover, What::Warm));
    source.write("changed", 100);
    // From one unit into the next.
    source.write("changed", 3 * UNIT - 3);
    let report = next_pass(&mut mover, What::Warm);
    assert_ok(&report);
    assert_eq!(report.totals.bytes, 3 * UNIT);
    source.write("end", SIZE - 3);
    let report = next_pass(&mut mover, What::Final);
    assert_ok(&report);
    assert_eq!(report.totals.bytes, SIZE % UNIT);
    assert_equal(&source, &destination, SIZE);
}

#[test]
fn a_copy_that_was_killed_is_completed_and_equal_units_are_not_written_again() {
    let source = Device::new(64 * MIB, "head -c 64000000 /dev/urandom");
    let destination = Device::new(64 * MIB, FULL_OF_ONES);
    let mut copy = Background::start(
        Command::new(env!("CARGO_BIN_EXE_pvmigrate-mover"))
            .args(["copy", "--verify=none", "--bandwidth=40000000"])
            .args([&source.path, &destination.path])
            .stdout(Stdio::null()),
    );
    let middle = |device: &Device| {
        let mut block = [0; 4096];
        let file = File::open(&device.path).unwrap();
        file.read_exact_at(&mut block, 7000 * 4096).unwrap();
        block
    };
    eventually("the middle is copied", || {
        let running = copy.child.try_wait().unwrap().is_none();
        assert!(running, "it ended before it could be killed");
        middle(&source) == middle(&destination)
    });
    drop(copy);
    let (code, report) = program(&[], "copy", &[], (&source.path, &destination.path));
    assert_eq!(code, 0, "{report:#?}");
    assert!(report.totals.bytes < 56 * MIB, "{report:#?}");
    assert_equal(&source, &destination, 64 * MIB);
}

#[test]
fn verification_reads_the_storage_and_not_the_cache_of_the_device() {
    let source = Device::new(SIZE, CONTENT);
    let destination = Device::new(SIZE, ":");
    assert_ok(&pass(&source, &destination));
    // Behind the cache of the device.
    destination
        .volume
        .run("printf CORRUPT | dd of=disk bs=1 seek=9000123 conv=notrunc status=none");
    let report = verify(&source, &destination);
    assert!(!report.ok, "the cache was believed");
    assert_eq!(report.error_count, 1, "{report:#?}");
    let repaired = pass(&source, &destination);
    assert_ok(&repaired);
    assert_equal(&source, &destination, SIZE);
}

#[test]
fn a_device_and_a_folder_are_refused() {
    let (source, destination) = (Device::new(SIZE, CONTENT), Volume::new(Kind::Tmpfs));
    let mut there = Mover::new(&source.path, &destination.path, Options::default());
    assert!(!there.pass(What::Final, &mut |_, _| {}).ok);
    let mut back = Mover::new(&destination.path, &source.path, Options::default());
    let before = source.sha256();
    assert!(!back.pass(What::Final, &mut |_, _| {}).ok);
    assert_eq!(source.sha256(), before);
}
