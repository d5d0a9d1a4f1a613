//! The CSI driver of `go/csi`, the community's sidecars around it, and the classes that it serves.
//! All of it stands beside the cluster: what is missing is started without a new boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::archive::digest;
use crate::bed::write;
use crate::command::{retry, run};
use crate::control_plane::kubectl;
use crate::csi_objects::{NAMESPACE, cluster_objects, snapshot_class};
use crate::programs::module_folder;
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
/// The module that the sidecar's objects are defined in.
const CRD_MODULE: &str = "github.com/kubernetes-csi/external-snapshotter/client/v8";

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
    for name in SIDECARS {
        start_sidecar(bed, name, &socket)?;
    }
    await_registration(bed)?;
    for name in names() {
        ensure!(
            process::is_alive(bed, name),
            "{name} does not run any more: see {}",
            bed.log(name).display()
        );
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
    apply(&snapshot_definitions(bed)?).context("defining what snapshots are")?;
    let objects = folder(bed).join("objects.json");
    write(&objects, serde_json::to_vec_pretty(&cluster_objects())?)?;
    apply(&objects).context("creating the classes of the CSI driver")?;
    let class = folder(bed).join("snapshot-class.json");
    write(&class, serde_json::to_vec_pretty(&snapshot_class())?)?;
    let what = "the API server to know what snapshots are";
    retry(what, Duration::from_secs(20), || apply(&class))?;
    Ok(())
}

/// The definitions of snapshots as the sidecars' own module has them, in one file of the cache.
fn snapshot_definitions(bed: &Bed) -> Result<PathBuf> {
    let module = module_folder("csi");
    let sums = module.join("go.sum");
    let sums = fs::read(&sums).with_context(|| format!("reading {}", sums.display()))?;
    let cached = bed
        .cache
        .join(format!("snapshot-definitions-{:.8}.yaml", digest(&sums)));
    if cached.exists() {
        return Ok(cached);
    }
    let source = run(Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", CRD_MODULE])
        .env_remove("GOFLAGS")
        .current_dir(module))?;
    let mut all = String::new();
    for kind in [
        "volumesnapshotclasses",
        "volumesnapshotcontents",
        "volumesnapshots",
    ] {
        let file = format!("config/crd/snapshot.storage.k8s.io_{kind}.yaml");
        let path = Path::new(source.trim()).join(file);
        all += &fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        all += "\n---\n";
    }
    let partial = cached.with_extension("partial");
    write(&partial, all)?;
    fs::rename(&partial, &cached).with_context(|| format!("writing {}", cached.display()))?;
    Ok(cached)
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
