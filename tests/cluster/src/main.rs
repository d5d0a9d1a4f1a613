//! The test bed at the command line: `testbed up`, `testbed down`.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use pvmigrate_testbed::{
    Bed, down, ensure_cargo_deny, ensure_keda, install, load, node, start_kubelet, status,
    stop_kubelet, up,
};

/// A real Kubernetes cluster of two nodes on this machine.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Installs packages and builds programs that are missing
    Deps {
        /// Also those that only the tests that take long need
        #[arg(long)]
        long: bool,
    },
    /// Boots the cluster, unless it runs, and prints KUBECONFIG=…
    Up,
    /// Ends the cluster and removes all that it left
    Down,
    /// Says which processes run
    Status,
    /// Imports an image archive into both nodes
    Load { archive: PathBuf },
    /// Ends a node's kubelet; its containers run on
    StopKubelet { node: String },
    /// Starts a node's kubelet again
    StartKubelet { node: String },
    /// Prints the path of a program that the test bed built
    Program { name: String },
}

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act() -> Result<()> {
    let bed = Bed::from_env()?;
    match Arguments::parse().action {
        Action::Deps { long } => {
            install(&bed)?;
            ensure_cargo_deny(&bed)?;
            if long {
                ensure_keda(&bed)?;
            }
        }
        Action::Up => {
            up(&bed)?;
            println!("KUBECONFIG={}", bed.kubeconfig().display());
        }
        Action::Down => down(&bed)?,
        Action::Status => print!("{}", status(&bed)),
        Action::Load { archive } => load(&bed, &archive)?,
        Action::StopKubelet { node: name } => stop_kubelet(&bed, node(&name)?)?,
        Action::StartKubelet { node: name } => start_kubelet(&bed, node(&name)?)?,
        Action::Program { name } => println!("{}", bed.program(&name).display()),
    }
    Ok(())
}
