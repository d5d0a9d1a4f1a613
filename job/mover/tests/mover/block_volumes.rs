//! What a pass over block volumes reads, writes and proves, at every level.

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use pvmigrate_mover::{Mover, Options, verify};
use pvmigrate_record::order::{Level, PassReport, What};

use crate::block::{Device, assert_equal};
use crate::volume::{Kind, Volume, shell};
use crate::{assert_ok, reasons};

const UNIT: u64 = 4 << 20;

fn mover(level: Level, source: &Device, destination: &Device) -> Mover {
    let options = Options {
        verify: level,
        threads: NonZeroUsize::new(3).unwrap(),
        ..Options::default()
    };
    Mover::new(&source.path, &destination.path, options)
}

fn last(mover: &mut Mover) -> PassReport {
    mover.pass(What::Final, &mut |_, _| {})
}

/// Runs a script that knows a device as `DEVICE`.
fn run(device: &Device, script: &str) {
    let path = device.path.display().to_string();
    shell(Path::new("/"), &script.replace("DEVICE", &path));
}

#[test]
fn every_level_copies_the_same_and_proves_what_it_says() {
    let size = 10 * UNIT + 512 * 7;
    let tail = 3 * UNIT + 512;
    let content = "head -c 9000000 /dev/urandom; head -c 32943200 /dev/zero; printf end";
    for level in Level::ALL {
        let from = Device::new(size, content);
        let to = Device::new(size + tail, "head -c 60000000 /dev/zero | tr '\\0' x");
        let report = last(&mut mover(level, &from, &to));
        assert_ok(&report);
        assert_eq!(report.totals.read, size);
        // Zeros are holes of the image again, and not written.
        assert!(report.totals.bytes <= 5 * UNIT, "{}", report.totals.bytes);
        let proven = report.verified.map(|verified| verified.level);
        assert_eq!(proven, (level != Level::None).then_some(level));
        assert_equal(&from, &to, size);
        run(
            &to,
            &format!("cmp --ignore-initial={size}:0 --bytes={tail} DEVICE /dev/zero"),
        );
    }
}

#[test]
fn a_later_pass_writes_what_changed_and_a_new_mover_nothing() {
    let size = 40 * UNIT;
    let from = Device::new(size, &format!("head -c {size} /dev/urandom"));
    let to = Device::new(size, ":");
    let mut first = mover(Level::Written, &from, &to);
    let report = first.pass(What::Warm, &mut |_, _| {});
    assert_ok(&report);
    assert_eq!(report.totals.bytes, size);
    // In the page cache only, as an application leaves it.
    run(
        &from,
        "printf changed | dd of=DEVICE bs=1 seek=5000000 conv=notrunc status=none
         dd if=/dev/zero of=DEVICE bs=4M seek=17 count=2 conv=notrunc status=none",
    );
    let foreseen = report.next_seconds.unwrap();
    assert!(foreseen > 0.0 && foreseen < report.seconds, "{foreseen}");
    let report = last(&mut first);
    assert_ok(&report);
    // One piece of the first unit; the two of zeros are made without writing.
    assert_eq!((report.totals.bytes, report.totals.changed), (64 << 10, 3));
    assert_eq!(report.verified.unwrap().bytes, 3 * UNIT);
    assert_equal(&from, &to, size);

    let report = last(&mut mover(Level::Written, &from, &to));
    assert_ok(&report);
    assert_eq!((report.totals.bytes, report.totals.changed), (0, 0));
}

#[test]
fn a_destination_that_has_no_holes_gets_zeros_all_the_same() {
    let size = 10 * UNIT;
    let from = Device::new(size, "head -c 9000000 /dev/urandom");
    let volume = Volume::with_size(Kind::Tmpfs, "1M");
    // What ramfs holds can only be written.
    let device = volume.run(&format!(
        "mkdir ram; mount -t ramfs none ram
         head -c {size} /dev/zero | tr '\\0' x > ram/disk; losetup --find --show ram/disk"
    ));
    let to = Device {
        path: device.trim().into(),
        volume,
    };
    let holes = Command::new("fallocate")
        .args(["--punch-hole", "--offset=0", "--length=4096"])
        .arg(&to.path)
        .output();
    assert!(!holes.unwrap().status.success(), "it has holes");
    assert_ok(&last(&mut mover(Level::Full, &from, &to)));
    assert_equal(&from, &to, size);
}

#[test]
fn a_device_is_not_copied_to_itself() {
    let device = Device::new(2 * UNIT, ":");
    let report = last(&mut mover(Level::Written, &device, &device));
    assert_eq!(
        reasons(&report, "."),
        "source and destination are the same device"
    );
}

#[test]
fn a_difference_is_found_at_its_byte_and_behind_the_end_of_the_source() {
    let from = Device::new(5 * UNIT, &format!("head -c {} /dev/urandom", 5 * UNIT));
    let to = Device::new(6 * UNIT, ":");
    assert_ok(&last(&mut mover(Level::Full, &from, &to)));
    for at in [8_500_000, 21_000_000] {
        run(
            &to,
            &format!("printf changed | dd of=DEVICE bs=1 seek={at} conv=notrunc,fsync status=none"),
        );
    }
    let report = verify(&from.path, &to.path, &Options::default(), &mut |_, _| {});
    assert_eq!(report.error_count, 2);
    reasons(&report, "at byte 8388608");
    reasons(&report, "at byte 20971520");
}
