//! What other tools lose without a word. Each loss has a test of its own.

use std::fs;
use std::io::Write;
use std::num::NonZeroU64;
use std::process::{Command, Stdio};
use std::thread::{scope, sleep};
use std::time::Duration;

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::What;

use crate::background::Background;
use crate::observe::{differences, observe};
use crate::volume::{Kind, Volume};
use crate::{assert_ok, eventually, pass};

/// As it is used: what a warm pass has seen is not looked at again without a reason.
fn mover(source: &Volume, destination: &Volume) -> Mover {
    Mover::new(&source.view, &destination.path, Options::default())
}

#[test]
fn a_change_in_the_same_second_that_keeps_the_size() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Tmpfs] {
        let (source, destination) = (Volume::new(kind), Volume::new(Kind::Ext4));
        let mut mover = mover(&source, &destination);
        source.run("for i in $(seq 50); do printf one > $i; done");
        for (round, content) in ["one", "two", "six", "ten"].into_iter().enumerate() {
            let write = format!("for i in $(seq 50); do printf {content} > $i; done");
            source.run(&write);
            let what = if round == 3 { What::Final } else { What::Warm };
            assert_ok(&mover.pass(what, &mut |_, _| {}));
            let copied = destination.run("cat $(seq 50)");
            assert_eq!(copied, content.repeat(50), "{kind:?}, round {round}");
        }
    }
}

#[test]
fn a_change_whose_time_was_set_back() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        let (source, destination) = (Volume::new(kind), Volume::new(Kind::Xfs));
        let mut mover = mover(&source, &destination);
        source.run("printf one > f; printf one > g; touch -d 2001-01-01 f g");
        assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
        source.run("printf two > f; printf two > new; mv new g; touch -d 2001-01-01 f g");
        assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
        assert_eq!(destination.run("cat f g"), "twotwo", "{kind:?}");
    }
}

/// Two files that a process has mapped, one of them a hole, and writes to without a system call.
struct Mapped<'a> {
    source: &'a Volume,
    xfs_io: Background,
}

impl<'a> Mapped<'a> {
    fn new(source: &'a Volume) -> Self {
        source.run(
            "head -c 1000000 /dev/zero | tr '\\0' . > z-data; truncate -s 1m z-hole; sync -f .",
        );
        let xfs_io = Background::start(
            Command::new("xfs_io")
                .args(["z-data", "z-hole"])
                .current_dir(&source.path)
                .stdin(Stdio::piped())
                .stdout(Stdio::null()),
        );
        let mut mapped = Mapped { source, xfs_io };
        for file in 0..2 {
            mapped.say(&format!("file {file}\nmmap -rw 0 900000"));
        }
        mapped
    }

    fn say(&mut self, commands: &str) {
        writeln!(self.xfs_io.child.stdin.as_ref().unwrap(), "{commands}").unwrap();
    }

    fn write(&mut self, character: char) {
        for mapping in 0..2 {
            let code = u32::from(character);
            self.say(&format!("mmap {mapping}\nmwrite -S {code} 5000 9"));
        }
        let written = character.to_string().repeat(9);
        eventually("the write is seen", || {
            ["z-data", "z-hole"].iter().all(|file| {
                let content = fs::read(self.source.view.join(file)).unwrap();
                content[5000..5009] == *written.as_bytes()
            })
        });
    }

    /// When the inodes were changed.
    fn times(&self) -> String {
        self.source.run("stat -c %.9Z z-data z-hole")
    }
}

#[track_caller]
fn assert_last_write(source: &Volume, destination: &Volume) {
    assert_eq!(
        differences(&observe(&source.view), &observe(&destination.view)),
        [""; 0]
    );
    assert_eq!(destination.run("tr -dc A-Z < z-hole"), "BBBBBBBBB");
}

fn on_each(test: impl Fn(Kind) + Sync) {
    scope(|scope| {
        let test = &test;
        let kinds = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];
        for running in kinds.map(|kind| scope.spawn(move || test(kind))) {
            running.join().unwrap();
        }
    });
}

#[test]
fn a_write_through_a_mapping_that_was_written_to_long_before_the_pass() {
    on_each(|kind| {
        let (source, destination) = (Volume::new(kind), Volume::new(Kind::Xfs));
        let mut mapped = Mapped::new(&source);
        mapped.write('A');
        sleep(Duration::from_secs(13));
        let mut mover = mover(&source, &destination);
        assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
        mapped.write('B');
        assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
        drop(mapped);
        assert_last_write(&source, &destination);
    });
}

#[test]
fn a_write_through_a_mapping_that_was_written_to_during_the_pass() {
    on_each(|kind| {
        let (source, destination) = (Volume::new(kind), Volume::new(Kind::Xfs));
        source.run("for i in $(seq 30); do head -c 1000000 /dev/urandom > $i; done");
        let mut mapped = Mapped::new(&source);
        let options = Options {
            bandwidth: NonZeroU64::new(20_000_000),
            ..Options::default()
        };
        let mut mover = Mover::new(&source.view, &destination.path, options);
        scope(|scope| {
            let pass = scope.spawn(|| mover.pass(What::Warm, &mut |_, _| {}));
            // After it has synced the source, and before it has come to these files.
            eventually("the pass is at work", || {
                destination.view.join("1").exists()
            });
            mapped.write('A');
            assert!(pass.join().unwrap().ok);
        });
        let before = mapped.times();
        mapped.write('B');
        if mapped.times() != before {
            println!("{kind:?}: the system wrote the pages back meanwhile, which shows the write");
        }
        assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
        drop(mapped);
        assert_last_write(&source, &destination);
    });
}

#[test]
fn acls_from_ext4_to_xfs() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run(
        "mkdir d; setfacl -m u:1234:rwx,g:55:r,m::rw d; setfacl -d -m u:7:rx,o::- d
         printf x > d/f; mkdir d/in; printf x > plain; chmod 640 plain; setfacl -m u:8:r plain",
    );
    assert_ok(&pass(&source.view, &destination.path));
    let acls = "getfacl -n -p . plain d d/f d/in";
    assert!(source.run(acls).contains("default:user:7:r-x"));
    assert_eq!(destination.run(acls), source.run(acls));
}

#[test]
fn holes() {
    let (source, destination) = (
        Volume::new(Kind::Ext4),
        Volume::with_size(Kind::Ext4, "64M"),
    );
    source.run("truncate -s 10G huge; printf end | dd of=huge bs=1 seek=9999999999 conv=notrunc status=none");
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(
        destination.run("stat -c %s huge; dd if=huge bs=1 skip=9999999999 count=3 status=none"),
        "10737418240\nend"
    );
    assert!(
        destination
            .run("stat -c %b huge")
            .trim()
            .parse::<u64>()
            .unwrap()
            <= 64
    );
}

#[test]
fn hard_links_among_files_symlinks_and_specials() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Btrfs));
    source.run(
        "printf x > file; ln -s file symlink; mkfifo fifo; mknod device c 1 3; mkdir z
         for one in file symlink fifo device; do ln -P $one z/$one-2; ln -P $one z/$one-3; done",
    );
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(
        destination.run("find . -links 3 -not -type d | wc -l"),
        "12\n"
    );
    assert_eq!(
        destination.run("find . -not -type d -printf '%i\\n' | sort -u | wc -l"),
        "4\n"
    );
    // Told apart and tied otherwise, with the names and contents as they were.
    source
        .run("rm z/file-2; printf x > z/file-2; ln -f z/file-3 z/file-4; ln -Pf symlink z/fifo-2");
    assert_ok(&pass(&source.view, &destination.path));
    assert_eq!(
        differences(&observe(&source.view), &observe(&destination.view)),
        [""; 0]
    );
}

#[test]
fn times_of_folders_below_the_second() {
    let (source, destination) = (Volume::new(Kind::Xfs), Volume::new(Kind::Ext4));
    source.run(
        "mkdir -p a/b/c; printf x > a/b/c/f; touch -d '2001-01-01 00:00:00.000000001' a/b/c
         touch -d '2001-01-01 00:00:00.999999999' a/b; touch -d '1970-01-01 00:00:00.5' a .",
    );
    assert_ok(&pass(&source.view, &destination.path));
    let times = "stat -c '%n %.9Y' . a a/b a/b/c";
    assert!(source.run(times).contains("a/b/c 978307200.000000001"));
    assert_eq!(destination.run(times), source.run(times));
}

#[test]
fn names_that_are_not_utf8() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Btrfs));
    source.run(
        r#"for byte in $(seq 255); do
             [ $byte = 47 ] || : > "$(printf "n\x$(printf %x $byte)x")"
           done
         mkdir $'\xff\xfe'; ln -s $'\xc0\x80' $'\xff\xfe/\xed\xa0\x80'"#,
    );
    assert_ok(&pass(&source.view, &destination.path));
    let names = "find . -path ./lost+found -prune -o -printf '%p>%l\\0' | sort -z | sha256sum";
    assert_eq!(
        source.run("ls -A | wc -l").trim().parse::<u32>().unwrap(),
        257
    );
    assert_eq!(destination.run(names), source.run(names));
}
