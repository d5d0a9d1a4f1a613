//! What is built from Go modules: once, outside the repository, and again when its versions change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::Bed;
use crate::archive::digest;
use crate::bed::write;
use crate::command::run_loud;

const KUBERNETES: &str = "v1.36.3";
const CARGO_DENY: &str = "0.20.2";

/// One `go build` or `go install`, and the programs that come of it.
struct Build {
    programs: &'static [&'static str],
    /// A folder of `tests/cluster/go` with a module of its own, or none for `go install`.
    module: Option<&'static str>,
    packages: &'static [&'static str],
    ldflags: String,
}

/// Builds what is missing or of another version than this source names.
pub fn ensure(bed: &Bed) -> Result<()> {
    ensure_all(bed, &builds())
}

/// Builds KEDA's operator, for the one test that needs it: it is as much to build as Kubernetes.
pub fn ensure_keda(bed: &Bed) -> Result<()> {
    let build = Build {
        programs: &["keda-operator"],
        module: Some("keda"),
        packages: &["github.com/kedacore/keda/v2/cmd/operator"],
        ldflags: "-s -w".into(),
    };
    ensure_all(bed, &[build])
}

fn ensure_all(bed: &Bed, builds: &[Build]) -> Result<()> {
    if stale(bed, builds)?.is_empty() {
        return Ok(());
    }
    let _lock = bed.build_lock()?;
    // Another process may have built them while this one waited.
    for build in stale(bed, builds)? {
        build.run(bed)?;
    }
    Ok(())
}

/// Installs what checks the crates' licences, when it is missing.
pub fn ensure_cargo_deny(bed: &Bed) -> Result<()> {
    if bed.program("cargo-deny").exists() {
        return Ok(());
    }
    let _lock = bed.build_lock()?;
    println!("building cargo-deny (2 minutes)");
    run_loud(
        Command::new("cargo")
            .args([
                "install",
                "--quiet",
                "--locked",
                "--version",
                CARGO_DENY,
                "cargo-deny",
                "--root",
            ])
            .arg(&bed.cache),
    )
}

fn builds() -> [Build; 6] {
    // Without its version the server calls itself v0.0.0-master, and charts refuse it.
    let version = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES} \
         -X k8s.io/component-base/version.gitMajor=1 \
         -X k8s.io/component-base/version.gitMinor=36 \
         -X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}"
    );
    [
        Build {
            programs: &[
                "kube-apiserver",
                "kube-controller-manager",
                "kube-proxy",
                "kube-scheduler",
                "kubectl",
                "kubelet",
            ],
            module: Some("kubernetes"),
            packages: &[
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-proxy",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "k8s.io/kubernetes/cmd/kubectl",
                "k8s.io/kubernetes/cmd/kubelet",
            ],
            ldflags: version,
        },
        Build {
            programs: &[
                "csi-attacher",
                "csi-provisioner",
                "csi-resizer",
                "csi-snapshotter",
                "snapshot-controller",
            ],
            module: Some("csi"),
            packages: &[
                "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher",
                "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
                "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
                "github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
                "github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
            ],
            ldflags: "-s -w".into(),
        },
        Build {
            programs: &["csi-driver"],
            module: Some("csi"),
            packages: &["./csi-driver"],
            ldflags: "-s -w".into(),
        },
        Build {
            programs: &["local-path-provisioner"],
            module: None,
            packages: &["github.com/rancher/local-path-provisioner@v0.0.30"],
            ldflags: "-s -w".into(),
        },
        Build {
            programs: &["helm"],
            module: None,
            packages: &["helm.sh/helm/v4/cmd/helm@v4.3.1"],
            ldflags: "-s -w".into(),
        },
        Build {
            programs: &["helm-unittest"],
            module: Some("helm-unittest"),
            packages: &["github.com/helm-unittest/helm-unittest/cmd/helm-unittest"],
            ldflags: "-s -w".into(),
        },
    ]
}

fn stale<'a>(bed: &Bed, builds: &'a [Build]) -> Result<Vec<&'a Build>> {
    let mut stale = Vec::new();
    for build in builds {
        let current = fs::read_to_string(build.stamp(bed)).unwrap_or_default();
        let complete = build
            .programs
            .iter()
            .all(|program| bed.program(program).exists());
        if !complete || current != build.recipe()? {
            stale.push(build);
        }
    }
    Ok(stale)
}

impl Build {
    fn run(&self, bed: &Bed) -> Result<()> {
        println!(
            "building {} (minutes when nothing is cached)",
            self.programs.join(" ")
        );
        let started = Instant::now();
        let output = bed.cache.join("bin");
        fs::create_dir_all(&output).with_context(|| format!("creating {}", output.display()))?;
        let mut go = Command::new("go");
        match self.module {
            Some(module) => {
                // A program of its own need not have its package's name.
                let to = match self.programs {
                    [program] => bed.program(program),
                    _ => output.join(""),
                };
                go.arg("build").arg("-o").arg(to);
                go.current_dir(module_folder(module));
            }
            None => {
                go.arg("install").env("GOBIN", &output).current_dir(&output);
            }
        }
        go.args(["-ldflags", &self.ldflags]).args(self.packages);
        run_loud(go.env_remove("GOFLAGS"))?;
        write(&self.stamp(bed), self.recipe()?)?;
        println!(
            "built {} in {:.0?}",
            self.programs.join(" "),
            started.elapsed()
        );
        Ok(())
    }

    /// All that decides what comes out; kept beside the programs, so that a change is seen.
    fn recipe(&self) -> Result<String> {
        let mut recipe = format!("{}\n{}\n", self.packages.join(" "), self.ldflags);
        if let Some(module) = self.module {
            for file in ["go.mod", "go.sum"] {
                let path = module_folder(module).join(file);
                recipe += &fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
            }
            let own = self.packages.iter().filter(|name| name.starts_with("./"));
            for package in own {
                recipe += &sources(&module_folder(module).join(package))?;
            }
        }
        Ok(recipe)
    }

    fn stamp(&self, bed: &Bed) -> PathBuf {
        bed.cache.join("stamps").join(self.programs[0])
    }
}

/// A digest of a package's files, tests apart.
fn sources(package: &Path) -> Result<String> {
    let listed = fs::read_dir(package).with_context(|| format!("reading {}", package.display()))?;
    let mut files: Vec<PathBuf> = listed.filter_map(|file| Some(file.ok()?.path())).collect();
    files.retain(|file| !file.to_string_lossy().ends_with("_test.go"));
    files.sort();
    let mut all = Vec::new();
    for file in files {
        all.extend(fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(digest(&all))
}

/// Where a module of `tests/cluster/go` lies.
pub fn module_folder(module: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("go")
        .join(module)
}
