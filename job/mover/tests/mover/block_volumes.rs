//! Raw block volumes, on loop devices.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::{Level, PassReport, What};

use crate::volume::shell;
use crate::{assert_ok, reasons};

const UNIT: u64 = 4 << 20;

/// A loop device on a sparse file, until it is dropped.
struct Disk {
    folder: PathBuf,
    device: PathBuf,
}

impl Disk {
    fn new(name: &str, size: u64) -> Self {
        let process = std::process::id();
        let folder = std::env::temp_dir().join(format!("pvmigrate-block-{process}-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let script = format!("truncate -s {size} image; losetup --find --show image");
        let device = shell(&folder, &script).trim().into();
        Disk { folder, device }
    }

    fn pair(name: &str, source: u64, destination: u64) -> (Self, Self) {
        (
            Disk::new(&format!("{name}-source"), source),
            Disk::new(&format!("{name}-destination"), destination),
        )
    }

    fn run(&self, script: &str) -> String {
        let script = script.replace("DEVICE", self.device.to_str().unwrap());
        shell(&self.folder, &script)
    }

    fn fill(&self, byte: u8) {
        let octal = format!("\\{byte:03o}");
        self.run(&format!(
            "head -c $(blockdev --getsize64 DEVICE) /dev/zero | tr '\\0' '{octal}' > DEVICE; sync DEVICE"
        ));
    }

    fn hash(&self, bytes: u64) -> String {
        self.run(&format!("head -c {bytes} DEVICE | sha256sum"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.run("losetup -d DEVICE");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn mover(level: Level, source: &Disk, destination: &Disk) -> Mover {
    let options = Options {
        verify: level,
        threads: NonZeroUsize::new(3).unwrap(),
        ..Options::default()
    };
    Mover::new(&source.device, &destination.device, options)
}

fn last(mover: &mut Mover) -> PassReport {
    mover.pass(What::Final, &mut |_, _| {})
}

#[test]
fn a_larger_destination_full_of_something_becomes_equal_with_zeros_behind() {
    let size = 10 * UNIT + 512 * 7;
    for level in Level::ALL {
        let (from, to) = Disk::pair(level.name(), size, size + 3 * UNIT + 512);
        from.run("head -c 9000000 /dev/urandom > DEVICE; sync DEVICE");
        from.run("head -c 700 /dev/urandom | dd of=DEVICE bs=1 seek=41943200 conv=notrunc status=none; sync DEVICE");
        to.fill(0xff);
        let report = last(&mut mover(level, &from, &to));
        assert_ok(&report);
        assert_eq!(report.totals.read, size);
        assert_eq!(
            report.verified.map(|v| v.level),
            (level != Level::None).then_some(level)
        );
        assert_eq!(from.hash(size), to.hash(size), "{level:?}");
        to.run(&format!(
            "tail -c +{} DEVICE | cmp -n {} - /dev/zero",
            size + 1,
            3 * UNIT + 512
        ));
        // Zeros are holes of the image again, and not written.
        assert!(report.totals.bytes <= 5 * UNIT, "{}", report.totals.bytes);
        let proof = pvmigrate_mover::verify(
            &from.device,
            &to.device,
            &Options::default(),
            &mut |_, _| {},
        );
        assert_ok(&proof);
    }
}

#[test]
fn a_later_pass_writes_what_changed_and_a_new_mover_nothing() {
    let size = 40 * UNIT;
    let (from, to) = Disk::pair("delta", size, size);
    from.run("head -c $(blockdev --getsize64 DEVICE) /dev/urandom > DEVICE");
    let mut first = mover(Level::Written, &from, &to);
    let report = first.pass(What::Warm, &mut |_, _| {});
    assert_ok(&report);
    assert_eq!(report.totals.bytes, size);
    // Not written back: it is in the page cache only.
    from.run("printf x | dd of=DEVICE bs=1 seek=5000000 conv=notrunc status=none");
    from.run("dd if=/dev/zero of=DEVICE bs=4M seek=17 count=2 conv=notrunc status=none");
    let report = last(&mut first);
    assert_ok(&report);
    assert_eq!((report.totals.bytes, report.totals.changed), (UNIT, 3));
    assert_eq!(report.verified.unwrap().bytes, 3 * UNIT);
    assert_eq!(from.hash(size), to.hash(size));

    let report = last(&mut mover(Level::Written, &from, &to));
    assert_ok(&report);
    assert_eq!((report.totals.bytes, report.totals.changed), (0, 0));
}

#[test]
fn what_cannot_be_is_refused_before_a_byte_is_written() {
    let (from, to) = Disk::pair("refused", 3 * UNIT, 2 * UNIT);
    to.fill(0xee);
    let before = to.hash(2 * UNIT);
    let report = last(&mut mover(Level::Written, &from, &to));
    assert_eq!(
        reasons(&report, "."),
        "the source has 12582912 bytes, the destination only 8388608: nothing was written"
    );
    assert_eq!(before, to.hash(2 * UNIT));

    let report = last(&mut mover(Level::Written, &to, &to));
    assert!(reasons(&report, ".").contains("the same device"));

    let folder = Path::new("/tmp");
    let report = last(&mut Mover::new(folder, &to.device, Options::default()));
    assert!(reasons(&report, ".").contains("volumeMode"), "{report:?}");

    to.run("mkfs.ext4 -q DEVICE; mkdir mnt; mount DEVICE mnt");
    let report = last(&mut mover(Level::Written, &to, &from));
    assert_ok(&report);
    let report = last(&mut mover(Level::Written, &from, &to));
    assert!(reasons(&report, ".").contains("in use"), "{report:?}");
    to.run("umount mnt");
}

#[test]
fn a_difference_is_found_at_its_byte() {
    let (from, to) = Disk::pair("differs", 5 * UNIT, 6 * UNIT);
    from.fill(0x11);
    assert_ok(&last(&mut mover(Level::Full, &from, &to)));
    to.run("printf x | dd of=DEVICE bs=1 seek=8500000 conv=notrunc status=none; sync DEVICE");
    to.run("printf x | dd of=DEVICE bs=1 seek=21000000 conv=notrunc status=none; sync DEVICE");
    let report = pvmigrate_mover::verify(
        &from.device,
        &to.device,
        &Options::default(),
        &mut |_, _| {},
    );
    assert_eq!(report.error_count, 2);
    reasons(&report, "at byte 8388608");
    reasons(&report, "at byte 20971520");
}
