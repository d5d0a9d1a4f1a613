//! The program's arguments and exit codes.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use pvmigrate_record::order::{Level, PassReport};

use crate::volume::{Kind, Volume};
use crate::{program, reasons};

fn run(arguments: &[&str], paths: &[&Path]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_pvmigrate-mover"))
        .args(arguments)
        .args(paths)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn each_level_of_verification_compares_what_it_says() {
    let source = Volume::new(Kind::Ext4);
    source.run("head -c 100000 /dev/urandom > f; mkdir d; truncate -s 10M d/hole");
    for level in Level::ALL {
        let destination = Volume::new(Kind::Xfs);
        let copy = || {
            let verify = format!("--verify={}", level.name());
            let (code, report) =
                program(&[], "copy", &[&verify], (&source.view, &destination.path));
            assert_eq!(code, 0, "{report:#?}");
            report.verified
        };
        let (first, again) = (copy(), copy());
        if level == Level::None {
            assert_eq!((first, again), (None, None));
            continue;
        }
        let (first, again) = (first.unwrap(), again.unwrap());
        for verified in [&first, &again] {
            assert_eq!((verified.level, verified.entries), (level, 4));
            assert_eq!(verified.source_digest, verified.destination_digest);
            assert_eq!(verified.source_digest.len(), 64);
        }
        match level {
            Level::Metadata => assert_eq!((first.bytes, again.bytes), (0, 0)),
            // Another mover knows nothing of the first one's proof.
            Level::Written => assert!(first.bytes >= 100_000, "{first:?}"),
            _ => assert!(
                first.bytes >= 100_000 && again.bytes >= 100_000,
                "{first:?} {again:?}"
            ),
        }
    }
}

#[test]
fn a_difference_is_exit_code_1_and_named() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run("mkdir d; printf x > d/f");
    let sides = [source.view.as_path(), &destination.path];
    assert_eq!(run(&["copy"], &sides).0, Some(0));
    assert_eq!(run(&["verify"], &sides).0, Some(0));
    destination.run("printf y > d/f; touch -r . /dev/null");
    let (code, stdout, _) = run(&["verify"], &sides);
    assert_eq!(code, Some(1));
    let report: PassReport = serde_json::from_str(&stdout).unwrap();
    assert!(reasons(&report, "d/f").contains("content differs"));
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_what_is_right() {
    let nowhere = [Path::new("/nowhere/a"), Path::new("/nowhere/b")];
    for (arguments, words) in [
        (
            ["copy", "--verify=some"],
            "one of none, metadata, written, full",
        ),
        (
            ["copy", "--lose=colour"],
            "one of owner, mode, times, xattrs",
        ),
        (["verify", "--exclude=not[fine"], "not[fine"),
        (["copy", "--bandwidth=fast"], "fast"),
        (["copy", "--threads=0"], "--threads"),
    ] {
        let (code, stdout, stderr) = run(&arguments, &nowhere);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {stderr}"
        );
        assert!(stderr.contains(words), "{arguments:?}: {stderr}");
    }
    assert_eq!(run(&["move"], &nowhere).0, Some(2));
    assert_eq!(run(&["copy"], &nowhere[..1]).0, Some(2));
}

#[test]
fn folders_that_are_not_there_are_exit_code_1_with_a_report() {
    let nowhere = [Path::new("/nowhere/a"), Path::new("/nowhere/b")];
    for verb in ["copy", "verify"] {
        let (code, stdout, _) = run(&[verb], &nowhere);
        assert_eq!(code, Some(1));
        let report: PassReport = serde_json::from_str(&stdout).unwrap();
        assert!(reasons(&report, ".").contains("cannot open it"));
    }
}

#[test]
fn patterns_and_attributes_may_be_several() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Tmpfs));
    source.run(": > a; : > b; : > c; mkdir d; chattr +S d; printf x > e; chattr -p 42 e");
    let options = ["--exclude=a", "--exclude", "b", "--lose=flags,project"];
    let (code, report) = program(&[], "copy", &options, (&source.view, &destination.path));
    assert_eq!(code, 0, "{report:#?}");
    assert_eq!((report.totals.excluded, report.lost.len()), (2, 2));
    assert_eq!(destination.run("echo *"), "c d e\n");
}

#[test]
fn a_limit_of_bandwidth_holds_for_all_threads_together() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Tmpfs));
    source.run("for i in $(seq 20); do head -c 1048576 /dev/urandom > $i; done");
    let options = ["--bandwidth=10485760", "--verify=none", "--threads=4"];
    let began = Instant::now();
    let (code, report) = program(&[], "copy", &options, (&source.view, &destination.path));
    let seconds = began.elapsed().as_secs_f64();
    println!("20 MiB at 10 MiB/s took {seconds:.2} s");
    assert_eq!((code, report.totals.bytes), (0, 20 << 20));
    assert!(seconds >= 1.5, "{seconds}");
}
