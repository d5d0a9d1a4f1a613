//! One link that holds the nodes' addresses, and one bridge a node for its pods. Pods reach each
//! other and the host, and nothing else: nothing is masqueraded to the outside.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::bed::write;
use crate::command::run;
use crate::{Bed, NODES};

/// Holds the nodes' addresses. A bridge, because not every kernel has dummy links.
const HOST_LINK: &str = "pvmt-host";

pub fn create() -> Result<()> {
    // Without shared mounts the kubelet's and local-path's mounts do not reach containers.
    run(Command::new("mount").args(["--make-rshared", "/"]))?;
    write(Path::new("/proc/sys/net/ipv4/ip_forward"), "1")?;
    run(Command::new("ip").args(["link", "add", HOST_LINK, "type", "bridge"]))?;
    run(Command::new("ip").args(["link", "set", HOST_LINK, "up"]))?;
    for node in &NODES {
        let address = format!("{}/24", node.address());
        run(Command::new("ip").args(["address", "add", &address, "dev", HOST_LINK]))?;
    }
    Ok(())
}

/// Removes the links, and with the pods' bridges what hangs on them, and kube-proxy's rules.
pub fn remove(bed: &Bed) -> Result<()> {
    for link in NODES
        .iter()
        .map(crate::Node::bridge)
        .chain([HOST_LINK.into()])
    {
        if Path::new("/sys/class/net").join(&link).exists() {
            run(Command::new("ip").args(["link", "delete", &link]))?;
        }
    }
    let proxy = bed.program("kube-proxy");
    if proxy.exists() && rules_left()? {
        run(Command::new(proxy).arg("--cleanup"))
            .context("removing the rules that kube-proxy made")?;
    }
    Ok(())
}

fn rules_left() -> Result<bool> {
    Ok(run(Command::new("iptables-save").args(["-t", "nat"]))?.contains("KUBE-"))
}
