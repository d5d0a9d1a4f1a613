//! A real Kubernetes cluster on one machine, from packages: two nodes, two storage classes on two
//! file systems, up in seconds.
//!
//! ```text
//!   programs ──► disks, network, certificates ──► etcd, API server, containerd a and b
//!   (cached)                                            │
//!                images ──► both nodes ◄────────────────┤
//!                                                       ▼
//!   controller manager, scheduler, kube-proxy, kubelet a and b, local-path-provisioner
//! ```
//!
//! Everything that runs carries a mark in its environment, and everything that lies on disk or is
//! mounted lies under one folder, so that [`down`] finds all of it, whatever died before.

mod archive;
mod bed;
mod boot;
mod command;
mod containers;
mod control_plane;
mod debian;
mod disks;
mod images;
mod kubelet;
mod network;
mod pki;
mod process;
mod programs;
mod storage;

pub use archive::{Archive, ImageConfig};
pub use bed::{Bed, CACHE_VARIABLE, NODES, Node, STATE_VARIABLE, node};
pub use boot::{down, status, up};
pub use containers::load;
pub use images::TOOLS_IMAGE;
pub use kubelet::{start as start_kubelet, stop as stop_kubelet};
pub use programs::{ensure as ensure_programs, ensure_cargo_deny};
pub use storage::CLASSES;

/// Installs what is missing on this machine: Debian's packages and the programs built from Go.
pub fn install(bed: &Bed) -> anyhow::Result<()> {
    debian::ensure()?;
    programs::ensure(bed)
}
