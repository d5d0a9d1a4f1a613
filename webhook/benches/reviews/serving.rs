//! The webhook's side: a process that holds the webhook, a memory full of fenced claims, and
//! nothing else.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::runtime::watcher::Event;
use pvmigrate_record::record::Release;
use pvmigrate_webhook::authority::Authority;
use pvmigrate_webhook::memory::Memory;
use pvmigrate_webhook::rotation::{Lives, Ring};
use pvmigrate_webhook::{admission, server, tls};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub const NAME: &str = "webhook.ops.svc";

/// What a client needs to know.
#[derive(Serialize, Deserialize)]
pub struct Announced {
    pub address: SocketAddr,
    pub certificate: String,
}

pub struct Server {
    pub announced: Announced,
    child: Child,
}

impl Server {
    /// A webhook on core 0.
    pub fn start(claims: usize) -> Result<Self> {
        let mut child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(std::env::current_exe()?)
            .args(["--serve", "--claims", &claims.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("taskset cannot be run: apt-get install util-linux")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let announced = serde_json::from_str(&line).context("the webhook did not start")?;
        Ok(Self { announced, child })
    }

    /// A field of `/proc/PID/status` that is in KiB.
    pub fn memory(&self, field: &str) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(field));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value
            .and_then(|kib| kib.parse().ok())
            .with_context(|| format!("no {field}"))
    }

    /// The processor's time that it has used.
    pub fn processor(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th
        // field after it, in hundredths of a second.
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let hundredths = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let hundredths = hundredths.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(10 * hundredths))
    }

    pub fn end(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the webhook ended with {status}");
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Longer than any measurement.
const LIVES: Lives = Lives {
    authority: Duration::from_secs(24 * 60 * 60),
    leaf: Duration::from_secs(24 * 60 * 60),
    settle: Duration::from_secs(60 * 60),
};

/// Serves until its stdin ends.
pub fn serve(claims: usize) -> Result<()> {
    // A refusal is a line of the log, which costs as well.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::fs::File::create("/dev/null")?)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let authority = Authority::create("bench", LIVES.authority, Timestamp::now())?;
        let ring = Ring::alone(authority.clone());
        let leaf = tls::Current::issue(&ring, &LIVES, &[NAME.into()], Timestamp::now())?;
        let (_renewed, current) = watch::channel(leaf);
        let (_known, memory) = watch::channel(full(claims)?);
        let shutdown = CancellationToken::new();
        let listener = server::bind(Some((Ipv4Addr::LOCALHOST, 0).into())).await?;
        let announced = Announced {
            address: listener.local_addr()?,
            certificate: authority.certificate.clone(),
        };
        println!("{}", serde_json::to_string(&announced)?);
        let router = admission::router(memory, shutdown.clone());
        let config = tls::server_config(current)?;
        // Its end is not measured: it may take the seconds that a real one takes.
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_to_end(&mut vec![]);
            std::process::exit(0);
        });
        server::serve(listener, config, router, shutdown).await;
        Ok(())
    })
}

/// A memory with this many fenced claims, and with those that the reviews are about.
fn full(claims: usize) -> Result<Memory> {
    let release = Release {
        namespace: "ops".into(),
        name: "pvmigrate".into(),
    };
    let mut memory = Memory::new(release);
    memory.take(Event::Init);
    memory.take(Event::InitApply(volume(0, "fixtures", "data")?));
    for number in 1..claims {
        let namespace = format!("team-{}", number % 200);
        memory.take(Event::InitApply(volume(
            number,
            &namespace,
            &format!("data-db-{number}"),
        )?));
    }
    memory.take(Event::InitDone);
    memory.check_generation(1)?;
    ensure!(
        memory.fences().len() == claims.max(1),
        "{} are fenced",
        memory.fences().len()
    );
    Ok(memory)
}

/// A source volume with its record, with what is usually in one.
fn volume(number: usize, namespace: &str, claim: &str) -> Result<PersistentVolume> {
    let workloads = [
        ("apps/v1", "Deployment", "web", "scale"),
        ("apps/v1", "Deployment", "frozen", "scale"),
        ("apps/v1", "StatefulSet", "db", "scale"),
        ("batch/v1", "CronJob", "frozen", "suspend"),
        ("example.org/v1", "Widget", "frozen", "scale"),
    ];
    let shown = if number == 0 { workloads.len() } else { 1 };
    let freeze: Vec<_> = workloads[..shown]
        .iter()
        .map(|(group, kind, name, method)| {
            let name = if number == 0 {
                (*name).to_string()
            } else {
                format!("{name}-{number}")
            };
            json!({"method": method, "workload": {
                "apiVersion": group, "kind": kind, "resource": format!("{}s", kind.to_lowercase()),
                "namespace": namespace, "name": name, "uid": "2e4a1c55-6d13-4f6f-9f0b-0d6f5a0c1e11",
            }})
        })
        .collect();
    let record = json!({
        "version": 1,
        "release": {"namespace": "ops", "name": "pvmigrate"},
        "run": "4f1c9d2e7a",
        "epoch": 3,
        "job": "pvmigrate-x7k2p",
        "phase": "Frozen",
        "fence": {"on": true, "generation": 1},
        "claim": {"namespace": namespace, "name": claim, "uid": "0b1f7a2c-1d7e-4c57-8f3e-5a9f6c0d2b44"},
        "sourceClass": "standard",
        "destinationClass": "fast",
        "source": {"name": format!("pv-{}", 2 * number + 1), "uid": "9a7d0c31-52c4-4b7e-8f51-7e1d7c9b1f02", "reclaim_policy": "Delete"},
        "destination": {"name": format!("pv-{}", 2 * number + 2), "uid": "c3d9e8f7-9b1a-4d2e-a6b5-1f2e3d4c5b6a", "reclaim_policy": "Delete"},
        "manifest": {"labels": {"app.kubernetes.io/name": "db"}, "volumeMode": "Filesystem", "storage": "10Gi", "capacity": "10Gi"},
        "group": format!("{namespace}/{claim}"),
        "freeze": freeze,
    });
    Ok(serde_json::from_value(json!({"metadata": {
        "name": format!("pv-{}", 2 * number + 1),
        "labels": {"pvmigrate.io/run": "4f1c9d2e7a", "pvmigrate.io/role": "source"},
        "annotations": {"pvmigrate.io/record": record.to_string()},
    }}))?)
}
