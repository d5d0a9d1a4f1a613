//! The program as a pod runs it: orders by a file, reports on stdout.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pvmigrate_record::order::{Order, PassReport, Report, What};

use crate::assert_ok;
use crate::background::Background;
use crate::volume::{Kind, Volume};

struct Mover {
    source: Volume,
    destination: Volume,
    /// Where its order and its termination message are.
    pod: Volume,
    child: Child,
    reports: Receiver<Report>,
}

impl Mover {
    /// Starts a mover, as PID 1 of its own namespace like in a container, and waits for ready.
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(options: &[&str]) -> Self {
        let [source, destination, pod] = [Kind::Ext4, Kind::Xfs, Kind::Tmpfs].map(Volume::new);
        pod.run(": > log");
        let mut child = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child"])
            .arg(env!("CARGO_BIN_EXE_pvmigrate-mover"))
            .arg("serve")
            .args(options)
            .args([Path::new("--source"), &source.view])
            .args([Path::new("--destination"), &destination.path])
            .args([PathBuf::from("--order-file"), pod.path.join("order")])
            .args([PathBuf::from("--termination-log"), pod.path.join("log")])
            .env("POD_UID", "me")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, reports) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let report = serde_json::from_str(&line.unwrap()).unwrap();
                if send.send(report).is_err() {
                    return;
                }
            }
        });
        let mover = Mover {
            source,
            destination,
            pod,
            child,
            reports,
        };
        assert_eq!(mover.next(), Report::Ready { pod: "me".into() });
        mover
    }

    fn order(&self, pod: &str, sequence: u64, what: What) -> Order {
        self.give(Order {
            pod: pod.into(),
            sequence,
            what,
            at_end: false,
        })
    }

    /// Orders the final pass for when the pod is asked to end, and waits until that is taken.
    fn order_at_end(&self, sequence: u64) -> Order {
        let order = self.give(Order {
            pod: "me".into(),
            sequence,
            what: What::Final,
            at_end: true,
        });
        let taken = Report::Taken {
            order: order.clone(),
        };
        assert_eq!(self.next(), taken);
        order
    }

    /// Replaces the order file, as the kubelet does.
    fn give(&self, order: Order) -> Order {
        fs::write(
            self.pod.path.join("new"),
            serde_json::to_vec(&order).unwrap(),
        )
        .unwrap();
        fs::rename(self.pod.path.join("new"), self.pod.path.join("order")).unwrap();
        order
    }

    fn next(&self) -> Report {
        let waited = self.reports.recv_timeout(Duration::from_secs(30));
        waited.expect("a report within half a minute")
    }

    fn next_pass(&self) -> PassReport {
        loop {
            match self.next() {
                Report::Progress { .. } | Report::Taken { .. } => {}
                Report::Pass(report) => return *report,
                Report::Ready { .. } => panic!("ready twice"),
            }
        }
    }

    /// The passes of one warm order.
    fn warm_passes(&self) -> Vec<PassReport> {
        let mut passes = vec![self.next_pass()];
        while !passes[passes.len() - 1].settled {
            passes.push(self.next_pass());
        }
        passes
    }

    /// What the preStop hook runs, in the mover's own PID namespace.
    fn tell(&self) {
        let mover = self.pid().as_raw_nonzero().to_string();
        let hook = Command::new("nsenter")
            .args(["--pid", "--target", &mover, "--"])
            .args([env!("CARGO_BIN_EXE_pvmigrate-mover"), "end"])
            .status();
        assert!(hook.unwrap().success());
    }

    fn terminate(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
    }

    /// The PID of the mover itself.
    fn pid(&self) -> rustix::process::Pid {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let pid: i32 = fs::read_to_string(children)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        rustix::process::Pid::from_raw(pid).unwrap()
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn orders_for_this_pod_are_carried_out_once_and_echoed() {
    let mut mover = Mover::start();
    mover.source.run("printf one > file");
    fs::write(mover.pod.path.join("order"), "").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    fs::write(mover.pod.path.join("order"), "not an order").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    mover.order("another", 9, What::Final);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(mover.destination.run("ls"), "", "another pod's order");

    let order = mover.order("me", 3, What::Warm);
    let taken = Report::Taken {
        order: order.clone(),
    };
    assert_eq!(mover.next(), taken);
    for report in mover.warm_passes() {
        assert_ok(&report);
        assert_eq!(report.order.as_ref(), Some(&order));
    }
    assert_eq!(mover.destination.run("cat file"), "one");

    mover.source.run("printf two > file");
    for stale in [3, 2] {
        mover.order("me", stale, What::Final);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(
        mover.destination.run("cat file"),
        "one",
        "an order of before"
    );

    let order = mover.order("me", 4, What::Final);
    let report = mover.next_pass();
    assert_ok(&report);
    assert_eq!(report.order, Some(order));
    assert!(report.verified.is_some());
    assert_eq!(mover.destination.run("cat file"), "two");
    assert_eq!(mover.child.wait().unwrap().code(), Some(0));
    let message = fs::read(mover.pod.path.join("log")).unwrap();
    assert_eq!(
        serde_json::from_slice::<PassReport>(&message).unwrap(),
        report
    );
}

#[test]
fn a_warm_order_that_the_pod_was_made_with_needs_no_name() {
    let mover = Mover::start();
    mover.source.run("printf one > file");
    mover.order("", 1, What::Final);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(mover.destination.run("ls"), "", "a final order for whoever");
    mover.order("", 1, What::Warm);
    let ours = Order {
        pod: "me".into(),
        sequence: 1,
        what: What::Warm,
        at_end: false,
    };
    let taken = Report::Taken {
        order: ours.clone(),
    };
    assert_eq!(mover.next(), taken);
    for report in mover.warm_passes() {
        assert_ok(&report);
        assert_eq!(report.order.as_ref(), Some(&ours));
    }
    assert_eq!(mover.destination.run("cat file"), "one");
}

#[test]
fn a_mover_that_waits_keeps_its_copy_fresh_until_its_next_order() {
    let mover = Mover::start_with(&["--fresh-for=1"]);
    mover.source.run("printf one > file");
    let order = mover.order("me", 1, What::Warm);
    let passes = mover.warm_passes();
    mover.source.run("printf two > file");
    let fresh = mover.next_pass();
    assert_ok(&fresh);
    assert_eq!(fresh.order.as_ref(), Some(&order));
    assert_eq!(fresh.pass as usize, passes.len() + 1);
    assert_eq!(mover.destination.run("cat file"), "two");
    // Also while it waits to be asked to end.
    let last = mover.order_at_end(2);
    mover.source.run("printf three > file");
    let fresh = mover.next_pass();
    assert_ok(&fresh);
    assert_eq!(fresh.order, Some(order));
    assert_eq!(mover.destination.run("cat file"), "three");
    mover.source.run("printf four > file");
    mover.tell();
    let report = mover.next_pass();
    assert_ok(&report);
    assert_eq!(report.order, Some(last));
    assert_eq!(mover.destination.run("cat file"), "four");
}

#[test]
fn a_warm_order_is_settled_when_what_changes_no_longer_shrinks() {
    let mut mover = Mover::start();
    mover
        .source
        .run("for i in $(seq 20); do head -c 1000000 /dev/urandom > $i; done");
    let writer = Background::script(
        &mover.source.path,
        "while :; do printf x | dd of=7 bs=1 seek=$RANDOM conv=notrunc status=none; sleep 0.01; done",
    );
    let order = mover.order("me", 1, What::Warm);
    let passes = mover.warm_passes();
    for (index, pass) in passes.iter().enumerate() {
        assert!(pass.ok, "{pass:#?}");
        assert_eq!(pass.order.as_ref(), Some(&order));
        assert_eq!(pass.pass as usize, index + 1);
        assert!(pass.totals.changed <= 22);
    }
    assert!(passes[passes.len() - 1].next_seconds.is_some());
    drop(writer);

    mover.order("me", 2, What::Final);
    let report = mover.next_pass();
    assert_ok(&report);
    assert_eq!(report.pass as usize, passes.len() + 1);
    assert_eq!(mover.child.wait().unwrap().code(), Some(0));
    let sums = "sha256sum $(seq 20)";
    assert_eq!(mover.destination.run(sums), mover.source.run(sums));
}

#[test]
fn a_final_order_need_not_wait_for_the_warm_one_to_settle() {
    let mut mover = Mover::start();
    mover
        .source
        .run("for i in $(seq 20); do head -c 1000000 /dev/urandom > $i; done");
    let writer = Background::script(
        &mover.source.path,
        "while :; do for i in {1..20}; do head -c 1000000 /dev/urandom > $i; done; done",
    );
    mover.order("me", 1, What::Warm);
    assert!(mover.next_pass().ok);
    drop(writer);
    let order = mover.order("me", 2, What::Final);
    let report = loop {
        let report = mover.next_pass();
        if report.order.as_ref() == Some(&order) {
            break report;
        }
    };
    assert_ok(&report);
    assert_eq!(mover.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_final_pass_that_fails_reports_it_within_the_termination_message_and_ends_with_zero() {
    let mut mover = Mover::start();
    mover.source.run(
        "for i in $(seq 30); do n=$(printf \"$i%.0s\" {1..100}); : > $n; setfattr -n user.x -v \"$(head -c 60000 /dev/zero | tr '\\0' v)\" $n 2>/dev/null || mknod $n.dev b 1 $i; done; mkdir in",
    );
    // What is mounted there can neither be replaced nor removed.
    mover
        .destination
        .run("mkdir in; mount -t tmpfs pvmigrate-test in");
    let order = mover.order("me", 1, What::Final);
    let report = mover.next_pass();
    assert!(!report.ok);
    assert!(crate::reasons(&report, "in").contains("mount point"));
    assert_eq!(mover.child.wait().unwrap().code(), Some(0));
    let message = fs::read(mover.pod.path.join("log")).unwrap();
    assert!(message.len() <= 4000);
    let message: PassReport = serde_json::from_slice(&message).unwrap();
    assert_eq!((message.ok, message.order), (false, Some(order)));
    assert_eq!(message.error_count, report.error_count);
}

#[test]
fn sigterm_ends_it_at_once_also_as_pid_1_and_in_a_pass() {
    for in_a_pass in [false, true] {
        let mut mover = Mover::start();
        if in_a_pass {
            mover.source.run("head -c 200000000 /dev/urandom > large");
            mover.order("me", 1, What::Warm);
            crate::eventually("it is in the pass", || {
                mover.destination.path.join("large").exists()
            });
        }
        let started = Instant::now();
        mover.terminate();
        assert_eq!(mover.child.wait().unwrap().code(), Some(143));
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn a_pass_that_was_ordered_for_the_end_begins_when_the_kubelet_asks_for_it() {
    let mut mover = Mover::start();
    mover.order("me", 1, What::Warm);
    for pass in mover.warm_passes() {
        assert_ok(&pass);
    }
    let order = mover.order_at_end(2);
    mover.source.run("head -c 100000000 /dev/urandom > late");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(mover.destination.run("ls"), "", "nobody has asked yet");
    mover.tell();
    mover.terminate();
    let report = mover.next_pass();
    assert_ok(&report);
    assert_eq!(report.order, Some(order));
    assert_eq!(mover.child.wait().unwrap().code(), Some(0));
    let sum = "sha256sum late";
    assert_eq!(mover.destination.run(sum), mover.source.run(sum));
}

#[test]
fn a_signal_that_no_kubelet_has_announced_begins_no_last_pass() {
    let mut mover = Mover::start();
    mover.order_at_end(1);
    mover.source.run(": > late");
    mover.terminate();
    assert_eq!(mover.child.wait().unwrap().code(), Some(1));
    assert_eq!(mover.destination.run("ls"), "");
    assert_eq!(mover.pod.run("cat log"), "", "nothing was reported");

    // Nor does one for which the kubelet had asked before the order came.
    let mut mover = Mover::start();
    mover.tell();
    mover.order_at_end(1);
    assert_eq!(mover.child.wait().unwrap().code(), Some(1));
    assert_eq!(mover.pod.run("cat log"), "");
}

#[test]
fn an_order_for_the_end_gives_way_to_the_next_one() {
    let mut mover = Mover::start();
    mover.order_at_end(1);
    mover.source.run("printf now > file");
    let order = mover.order("me", 2, What::Final);
    let taken = Report::Taken {
        order: order.clone(),
    };
    assert_eq!(mover.next(), taken);
    let report = mover.next_pass();
    assert_ok(&report);
    assert_eq!(report.order, Some(order));
    assert_eq!(mover.child.wait().unwrap().code(), Some(0));

    let mut mover = Mover::start();
    mover.order_at_end(1);
    mover.order("me", 2, What::Warm);
    for pass in mover.warm_passes() {
        assert_ok(&pass);
    }
    mover.terminate();
    assert_eq!(mover.child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_mover_without_its_folders_does_not_start() {
    let status = Command::new(env!("CARGO_BIN_EXE_pvmigrate-mover"))
        .args(["serve", "--source", "/nowhere", "--pod-uid", "me"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_warm_pass_steps_back_behind_others_and_a_final_one_does_not() {
    let mover = Mover::start_with(&["--bandwidth=10000000"]);
    mover
        .source
        .run("for i in $(seq 10); do head -c 1000000 /dev/urandom > $i; done");
    // The 19th field of /proc/…/stat; the name in brackets has no spaces.
    let niceness = |mover: &Mover| {
        let unshare = mover.child.id();
        let pids = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        let threads = fs::read_dir(format!("/proc/{}/task", pids.trim())).unwrap();
        let mut found: Vec<i32> = threads
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("stat")).ok())
            .map(|stat| stat.split(' ').nth(18).unwrap().parse().unwrap())
            .collect();
        found.sort_unstable();
        found
    };
    // Whoever runs the tests may have stepped back already.
    let [own] = niceness(&mover)[..] else {
        panic!("threads before the first order");
    };
    let less = (own + 10).min(19);
    mover.order("me", 1, What::Warm);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(niceness(&mover), [own, less, less, less, less]);
    for pass in mover.warm_passes() {
        assert_ok(&pass);
    }
    mover
        .source
        .run("for i in $(seq 10); do head -c 1000000 /dev/urandom > $i; done");
    mover.order("me", 2, What::Final);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(niceness(&mover), [own; 5]);
    assert_ok(&mover.next_pass());
}
