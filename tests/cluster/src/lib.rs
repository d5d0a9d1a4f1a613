//! A real Kubernetes cluster on one machine, from packages: two nodes, storage that lies on a node
//! and storage that is attached to one, up in seconds.
//!
//! ```text
//!   programs ──► disks, network, certificates ──► etcd, API server, containerd a and b
//!   (cached)                                            │
//!                images ──► both nodes ◄────────────────┤
//!                                                       ▼
//!   controller manager, scheduler, kube-proxy, kubelet a and b, local-path-provisioner,
//!   CSI driver and its sidecars
//! ```
//!
//! Everything that runs carries a mark in its environment, and everything that lies on disk or is
//! mounted lies under one folder, so that [`down`] finds all of it, whatever died before.

#![forbid(unsafe_code)]

mod archive;
mod bed;
mod boot;
mod command;
mod containers;
mod control_plane;
mod csi;
mod csi_objects;
mod debian;
mod definitions;
mod disks;
mod images;
pub mod keda;
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
pub use csi::{DRIVER as CSI_DRIVER, faults_folder as csi_faults_folder};
pub use images::TOOLS_IMAGE;
pub use kubelet::{start as start_kubelet, stop as stop_kubelet};
pub use programs::{ensure as ensure_programs, ensure_cargo_deny, ensure_keda};
pub use storage::CLASSES;

/// Installs what is missing on this machine: Debian's packages and the programs built from Go.
pub fn install(bed: &Bed) -> anyhow::Result<()> {
    debian::ensure()?;
    programs::ensure(bed)
}
