//! A copy that is killed, at whatever moment, is completed by the next one.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pvmigrate_record::order::PassReport;

use crate::background::Background;
use crate::observe::{Observation, differences, observe};
use crate::torture::{plant, plant_flags};
use crate::volume::{Kind, Volume};
use crate::{assert_ok, pass, program};

const ROUNDS: u64 = 5;
const KILLS: u64 = 8;

fn kill_after(source: &Volume, destination: &Volume, time: Duration) {
    let copy = Background::start(
        Command::new(env!("CARGO_BIN_EXE_pvmigrate-mover"))
            .args(["copy", "--verify=none"])
            .args([&source.view, &destination.path])
            .stdout(Stdio::null()),
    );
    sleep(time);
    drop(copy);
}

fn complete(source: &Volume, before: &Observation, destination: &Volume) -> PassReport {
    let report = pass(&source.view, &destination.path);
    assert_ok(&report);
    assert_eq!(differences(before, &observe(&destination.view)), [""; 0]);
    report
}

#[test]
fn forty_times_at_any_moment() {
    let source = Volume::new(Kind::Ext4);
    plant(&source);
    plant_flags(&source, "AdS");
    let before = observe(&source.view);
    let began = Instant::now();
    let all = {
        let destination = Volume::new(Kind::Xfs);
        let (code, report) = program(
            &[],
            "copy",
            &["--verify=none"],
            (&source.view, &destination.path),
        );
        assert_eq!(code, 0, "{report:#?}");
        report.totals.bytes
    };
    let whole = began.elapsed();

    let seed = std::env::var("PVMIGRATE_TEST_SEED").map_or_else(
        |_| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_secs()
        },
        |seed| seed.parse().unwrap(),
    );
    println!("PVMIGRATE_TEST_SEED={seed}; a whole copy took {whole:?} and wrote {all} bytes");
    let mut random = seed | 1;
    for round in 0..ROUNDS {
        // One destination for the kills of a round: each meets what the one before has left.
        let destination = Volume::new(if round % 2 == 0 {
            Kind::Xfs
        } else {
            Kind::Btrfs
        });
        for _ in 0..KILLS {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            kill_after(
                &source,
                &destination,
                whole * u32::try_from(random % 1000).unwrap() / 1000,
            );
        }
        complete(&source, &before, &destination);
    }
}

#[test]
fn what_was_copied_before_is_not_written_again() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    source.run("for i in $(seq 60); do head -c 1000000 /dev/urandom > $i; done");
    let before = observe(&source.view);
    let mut copy = Background::start(
        Command::new(env!("CARGO_BIN_EXE_pvmigrate-mover"))
            .args(["copy", "--verify=none", "--bandwidth=40000000"])
            .args([&source.view, &destination.path])
            .stdout(Stdio::null()),
    );
    crate::eventually("half of it is copied", || {
        assert!(
            copy.child.try_wait().unwrap().is_none(),
            "it was too fast to be killed"
        );
        destination.view.read_dir().unwrap().count() > 30
    });
    drop(copy);
    let report = complete(&source, &before, &destination);
    assert!(report.totals.bytes < 40_000_000, "{report:#?}");
    assert!(report.totals.bytes > 0, "{report:#?}");
}
