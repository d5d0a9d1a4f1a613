//! The CSI driver of `go/csi`, the community's sidecars around it, and the classes that it serves.
//! All of it stands beside the cluster: what is missing is started without a new boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bed::write;
use crate::command::retry;
use crate::control_plane::kubectl;
use crate::csi_objects::{NAMESPACE, cluster_objects, snapshot_class};
use crate::definitions::Definitions;
use crate::{Bed, NODES, kubelet, process};

/// What `StorageClass`es call the driver.
pub const DRIVER: &str = "loop.csi.test";

const PROGRAM: &str = "csi-driver";
const SIDECARS: [&str; 5] = [
    "csi-provisioner",
    "csi-attacher",
    "csi-resizer",
    "csi-snapshotter",
    "snapshot-controller",
];
/// What snapshots are, as the sidecars' own module has it.
const DEFINITIONS: Definitions = Definitions {
    module: "csi",
    source: "github.com/kubernetes-csi/external-snapshotter/client/v8",
    files: &[
        "snapshot.storage.k8s.io_volumesnapshotclasses.yaml",
        "snapshot.storage.k8s.io_volumesnapshotcontents.yaml",
        "snapshot.storage.k8s.io_volumesnapshots.yaml",
    ],
};

/// The processes, those first that depend on others.
pub fn names() -> impl Iterator<Item = &'static str> {
    SIDECARS.into_iter().chain([PROGRAM])
}

/// Where a file, as long as it is there, makes a call of the driver slow or fail: see `faults.go`.
pub fn faults_folder(bed: &Bed) -> PathBuf {
    folder(bed).join("faults")
}

fn folder(bed: &Bed) -> PathBuf {
    bed.state.join("csi")
}

/// Brings to life what does not run, or is older than its program, and waits until both nodes know
/// the driver. Volumes are as they were.
pub fn start(bed: &Bed) -> Result<()> {
    if names().all(|name| is_current(bed, name)) {
        return Ok(());
    }
    // Sidecars end when they lose their driver.
    for name in names() {
        process::stop(bed, name)?;
    }
    start_driver(bed)?;
    create_objects(bed)?;
    let socket = folder(bed).join("controller.sock");
    retry("the CSI driver to listen", Duration::from_secs(20), || {
        ensure!(socket.exists(), "see {}", bed.log(PROGRAM).display());
        Ok(())
    })?;
    await_registration(bed)?;
    start_sidecars(bed, &socket)?;
    process::ensure_alive(bed, PROGRAM)
}

/// Starts them until all run. Some end at the first answer that they do not expect, as a young API
/// server may give one; in a pod a kubelet would start them again.
fn start_sidecars(bed: &Bed, socket: &Path) -> Result<()> {
    for name in SIDECARS {
        start_sidecar(bed, name, socket)?;
    }
    let limit = Instant::now() + Duration::from_secs(30);
    // One that ends early ends within its first questions.
    let mut settled = Instant::now() + Duration::from_secs(1);
    while Instant::now() < settled {
        for name in SIDECARS {
            let Err(error) = process::ensure_alive(bed, name) else {
                continue;
            };
            if Instant::now() > limit {
                return Err(error.context("started again and again for 30 s"));
            }
            eprintln!("{error:#}; starting it again");
            start_sidecar(bed, name, socket)?;
            settled = Instant::now() + Duration::from_secs(1);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn is_current(bed: &Bed, name: &str) -> bool {
    let built = fs::metadata(bed.program(name)).and_then(|file| file.modified());
    let started = process::started(bed, name);
    process::is_alive(bed, name)
        && started
            .zip(built.ok())
            .is_some_and(|(started, built)| started > built)
}

fn start_driver(bed: &Bed) -> Result<()> {
    // The driver that is to listen is the new one.
    for node in &NODES {
        let registry = kubelet::root(bed, node).join("plugins_registry");
        fs::create_dir_all(&registry)
            .with_context(|| format!("creating {}", registry.display()))?;
    }
    let _ = fs::remove_file(folder(bed).join("controller.sock"));
    let mut arguments = vec![format!("--state={}", folder(bed).display())];
    arguments.extend(NODES.iter().map(|node| {
        let root = kubelet::root(bed, node);
        format!("--node={},{},{}", node.name, node.zone, root.display())
    }));
    process::start(bed, PROGRAM, &bed.program(PROGRAM), &arguments)
}

fn start_sidecar(bed: &Bed, name: &str, socket: &Path) -> Result<()> {
    let mut arguments = vec![
        // The provisioner asks it for the namespace of its capacities.
        format!("NAMESPACE={NAMESPACE}"),
        bed.program(name).display().to_string(),
        format!("--kubeconfig={}", bed.kubeconfig().display()),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
        // A fault that was lifted is not felt for minutes.
        "--retry-interval-max=4s".into(),
    ];
    if name != "snapshot-controller" {
        arguments.push(format!("--csi-address={}", socket.display()));
    }
    if name.contains("snapshot") {
        // Else it first looks 30 s for definitions that are not there.
        arguments.push("--feature-gates=CSIVolumeGroupSnapshot=false".into());
    }
    if name == "csi-provisioner" {
        arguments.extend(
            [
                "--default-fstype=ext4",
                "--extra-create-metadata",
                "--enable-capacity",
                "--capacity-ownerref-level=-1",
                "--capacity-poll-interval=10s",
                "--kube-api-capacity-qps=50",
                "--kube-api-capacity-burst=100",
            ]
            .map(String::from),
        );
    }
    process::start(bed, name, "/usr/bin/env".as_ref(), &arguments)
}

fn create_objects(bed: &Bed) -> Result<()> {
    let apply = |file: &Path| {
        let file = file.display().to_string();
        kubectl(
            bed,
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--filename",
                &file,
            ],
        )
    };
    apply(&DEFINITIONS.ensure(bed)?).context("defining what snapshots are")?;
    let objects = folder(bed).join("objects.json");
    write(&objects, serde_json::to_vec_pretty(&cluster_objects())?)?;
    apply(&objects).context("creating the classes of the CSI driver")?;
    let class = folder(bed).join("snapshot-class.json");
    write(&class, serde_json::to_vec_pretty(&snapshot_class())?)?;
    let what = "the API server to know what snapshots are";
    retry(what, Duration::from_secs(20), || apply(&class))?;
    Ok(())
}

fn await_registration(bed: &Bed) -> Result<()> {
    let format = "jsonpath={range .items[*]}{.metadata.name} {.spec.drivers[*].name}{\"\\n\"}{end}";
    let what = "both kubelets to know the CSI driver";
    retry(what, Duration::from_secs(60), || {
        let known = kubectl(bed, &["get", "csinodes", "-o", format])?;
        for node in &NODES {
            ensure!(
                known.contains(&format!("{} {DRIVER}", node.name)),
                "{} does not: see {}; they know {known:?}",
                node.name,
                bed.log(PROGRAM).display()
            );
        }
        Ok(())
    })
}
