//! What other tools lose without a word. Each loss has a test of its own.

use std::io::Write;
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

#[test]
fn a_write_through_a_mapping_that_moves_no_time() {
    let on = |kind| {
        let (source, destination) = (Volume::new(kind), Volume::new(Kind::Xfs));
        source
            .run("head -c 1000000 /dev/zero | tr '\\0' . > mapped; truncate -s 1m hole; sync -f .");
        let mut xfs_io = Background::start(
            Command::new("xfs_io")
                .args(["mapped", "hole"])
                .current_dir(&source.path)
                .stdin(Stdio::piped())
                .stdout(Stdio::null()),
        );
        let mut stdin = xfs_io.child.stdin.take().unwrap();
        stdin
            .write_all(b"file 0\nmmap -rw 0 900000\nfile 1\nmmap -rw 0 900000\n")
            .unwrap();
        let mut write = |character: char| {
            for mapping in 0..2 {
                let code = u32::from(character);
                writeln!(stdin, "mmap {mapping}\nmwrite -S {code} 5000 9").unwrap();
            }
            let written = character.to_string().repeat(9);
            eventually("the write is seen", || {
                ["mapped", "hole"].iter().all(|file| {
                    std::fs::read(source.view.join(file)).unwrap()[5000..5009]
                        == *written.as_bytes()
                })
            });
        };
        write('A');
        sleep(Duration::from_secs(13));
        let mut mover = mover(&source, &destination);
        assert_ok(&mover.pass(What::Warm, &mut |_, _| {}));
        write('B');
        assert_ok(&mover.pass(What::Final, &mut |_, _| {}));
        drop(xfs_io);
        assert_eq!(
            differences(&observe(&source.view), &observe(&destination.view)),
            [""; 0],
            "{kind:?}"
        );
        assert_eq!(destination.run("tr -dc AB < hole"), "BBBBBBBBB", "{kind:?}");
    };
    scope(|scope| {
        let kinds = [Kind::Ext4, Kind::Xfs, Kind::Btrfs];
        for running in kinds.map(|kind| scope.spawn(move || on(kind))) {
            running.join().unwrap();
        }
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
