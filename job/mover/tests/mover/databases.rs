//! Databases under load through warm passes, stopped, copied, and asked by their own tools.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use pvmigrate_mover::{Mover, Options};
use pvmigrate_record::order::What;

use crate::assert_ok;
use crate::background::Background;
use crate::volume::{Kind, Volume, shell};

#[test]
fn sqlite_that_was_killed_with_its_log_full() {
    let (source, destination) = (Volume::new(Kind::Ext4), Volume::new(Kind::Xfs));
    source.run(
        "sqlite3 db 'pragma journal_mode = wal; create table t (id integer primary key, x blob);
                     create index i on t (x)'",
    );
    let mut sqlite = Background::start(
        Command::new("sqlite3")
            .arg("db")
            .current_dir(&source.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped()),
    );
    let mut statements = sqlite.child.stdin.take().unwrap();
    let mut answers = BufReader::new(sqlite.child.stdout.take().unwrap()).lines();
    let mut insert = |rows: u32| {
        let mut last = 0;
        for _ in 0..rows {
            let statement = b"insert into t (x) values (randomblob(700)); select max(id) from t;\n";
            statements.write_all(statement).unwrap();
            statements.flush().unwrap();
            last = answers.next().unwrap().unwrap().parse().unwrap();
        }
        last
    };
    let mut mover = Mover::new(&source.view, &destination.path, Options::default());
    insert(200);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let load = scope.spawn(|| insert(300));
            while !load.is_finished() {
                assert!(mover.pass(What::Warm, &mut |_, _| {}).ok);
            }
        });
    }
    let committed: u32 = insert(100);
    drop(sqlite);
    assert!(source.path.join("db-wal").exists());
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));

    let ask =
        "sqlite3 db 'pragma integrity_check; select count(*), max(id), sum(length(x)) from t'";
    let expected = format!("ok\n{committed}|{committed}|{}\n", committed * 700);
    assert_eq!(destination.run(ask), expected);
    assert_eq!(source.run(ask), expected);
}

/// A server in the folder `data` of a volume. It has a socket only, beside the volume.
struct Postgres<'a> {
    volume: &'a Volume,
}

impl Postgres<'_> {
    /// Runs a script as the user that the server runs as.
    fn run(&self, script: &str) -> String {
        let output = Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
            .args(["bash", "-euo", "pipefail", "-c", script])
            .env("PATH", "/usr/lib/postgresql/15/bin:/usr/bin:/bin")
            .env("PGHOST", self.volume.folder().join("sockets"))
            .env("PGDATA", self.volume.path.join("data"))
            .env("PGDATABASE", "postgres")
            .current_dir("/")
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self) {
        shell(
            self.volume.folder(),
            "chmod 755 . volume; mkdir sockets; chown postgres sockets",
        );
        self.run(
            "pg_ctl -s -w start -l $PGHOST/log -o \"-k $PGHOST -c listen_addresses= -c max_wal_size=64MB -c min_wal_size=32MB -c shared_buffers=16MB\"",
        );
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        let pid = self.volume.path.join("data/postmaster.pid");
        let _ = Command::new("bash")
            .args(["-c", "kill -QUIT $(head -1 \"$0\")"])
            .arg(pid)
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn postgresql_with_checksums() {
    let (source, destination) = (
        Volume::with_size(Kind::Ext4, "700M"),
        Volume::with_size(Kind::Xfs, "700M"),
    );
    source.run("mkdir data; chown postgres:postgres data");
    let old = Postgres { volume: &source };
    shell(source.folder(), "chmod 755 . volume");
    old.run("initdb --no-sync --data-checksums > /dev/null");
    old.start();
    old.run("pgbench -q -i -s 1 2> /dev/null; psql -qc 'create table marks (id serial, at timestamptz default now())'");
    let mut mover = Mover::new(&source.view, &destination.path, Options::default());
    std::thread::scope(|scope| {
        let load = scope.spawn(|| old.run("pgbench -n -c 4 -T 4 > /dev/null 2>&1"));
        while !load.is_finished() {
            assert!(mover.pass(What::Warm, &mut |_, _| {}).ok);
        }
        load.join().unwrap();
    });
    let state = "psql -qtAc 'select (select max(id) from marks), count(*), sum(delta) from pgbench_history'";
    old.run("psql -qc 'insert into marks select from generate_series(1, 77)'");
    let committed = old.run(state);
    assert!(committed.starts_with("77|"), "{committed}");
    assert!(!committed.contains("|0|"), "there was no load: {committed}");
    old.run("pg_ctl -s -w -m fast stop");
    assert_ok(&mover.pass(What::Final, &mut |_, _| {}));

    let new = Postgres {
        volume: &destination,
    };
    shell(destination.folder(), "chmod 755 . volume");
    assert!(
        new.run("pg_checksums --check")
            .contains("Bad checksums:  0")
    );
    new.start();
    assert_eq!(new.run(state), committed);
    new.run("psql -qc 'create extension amcheck'; pg_amcheck --heapallindexed --no-strict-names postgres");
    new.run("pg_ctl -s -w -m fast stop");
}
