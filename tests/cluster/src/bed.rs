use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Names the folder for what is built once and kept.
pub const CACHE_VARIABLE: &str = "PVMIGRATE_TESTBED_CACHE";
/// Names the folder for what one running cluster needs; gone after `down`.
pub const STATE_VARIABLE: &str = "PVMIGRATE_TESTBED_STATE";

/// Ports that a Kubernetes of someone else's on this machine would not use.
pub const API_PORT: u16 = 16443;
pub const ETCD_PORT: u16 = 12379;
pub const ETCD_PEER_PORT: u16 = 12380;

/// One of the cluster's nodes: a containerd and a kubelet of its own.
#[derive(Debug)]
pub struct Node {
    pub name: &'static str,
    pub zone: &'static str,
    pub number: u16,
}

pub const NODES: [Node; 2] = [
    Node {
        name: "node-a",
        zone: "a",
        number: 1,
    },
    Node {
        name: "node-b",
        zone: "b",
        number: 2,
    },
];

/// The node of this name.
pub fn node(name: &str) -> Result<&'static Node> {
    NODES
        .iter()
        .find(|node| node.name == name)
        .with_context(|| format!("there is no node `{name}`: the test bed has node-a and node-b"))
}

impl Node {
    /// The host's address that this node's kubelet announces as its own.
    pub fn address(&self) -> String {
        format!("10.200.0.{}", self.number)
    }

    pub fn pod_subnet(&self) -> String {
        format!("10.201.{}.0/24", self.number)
    }

    /// The link that this node's pods hang on. Link names end at 15 characters.
    pub fn bridge(&self) -> String {
        format!("pvmt-{}", self.zone)
    }
}

/// Where the test bed keeps its things.
#[derive(Debug, Clone)]
pub struct Bed {
    pub cache: PathBuf,
    pub state: PathBuf,
}

impl Bed {
    /// The folders that the environment names, or the usual ones.
    pub fn from_env() -> Result<Self> {
        let cache = match std::env::var_os(CACHE_VARIABLE) {
            Some(folder) => PathBuf::from(folder),
            None => std::env::home_dir()
                .with_context(|| {
                    format!("no home folder is known: set {CACHE_VARIABLE} to a folder to build in")
                })?
                .join(".cache/pvmigrate-testbed"),
        };
        let state = std::env::var_os(STATE_VARIABLE).map_or_else(
            || std::env::temp_dir().join("pvmigrate-testbed"),
            PathBuf::from,
        );
        for folder in [&cache, &state] {
            if !folder.is_absolute() {
                bail!(
                    "{} is not an absolute path: set {CACHE_VARIABLE} and {STATE_VARIABLE} to absolute ones",
                    folder.display()
                );
            }
        }
        Ok(Self { cache, state })
    }

    /// A program that the test bed built.
    pub fn program(&self, name: &str) -> PathBuf {
        self.cache.join("bin").join(name)
    }

    /// The administrator's kubeconfig of the running cluster.
    pub fn kubeconfig(&self) -> PathBuf {
        self.state.join("admin.kubeconfig")
    }

    /// What a process of this name prints.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state.join("logs").join(format!("{process}.log"))
    }

    /// What pods have asked the API server, a JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.log("audit")
    }

    /// The image that a volume of the CSI driver is made of.
    pub fn csi_image(&self, handle: &str) -> PathBuf {
        self.state.join("csi/volumes").join(format!("{handle}.img"))
    }

    pub(crate) fn node_folder(&self, node: &Node) -> PathBuf {
        self.state.join(node.name)
    }

    /// Lets one process at a time boot, load or stop. Released when the file is dropped, and by
    /// the kernel when its holder dies.
    pub(crate) fn lock(&self) -> Result<File> {
        lock_file(&self.state.with_extension("lock"))
    }

    /// Lets one process at a time build.
    pub(crate) fn build_lock(&self) -> Result<File> {
        lock_file(&self.cache.join("lock"))
    }
}

fn lock_file(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Writes a file and the folders above it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
