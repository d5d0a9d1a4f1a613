//! What the tests against a real cluster share: the cluster, a namespace for each test, objects to
//! put there, waiting that says what it waits for, and a proxy that kills the Job at a chosen write.
//!
//! ```no_run
//! # use pvmigrate_e2e::{claim, run_test};
//! #[tokio::test]
//! async fn a_claim_can_be_made() {
//!     run_test("a-claim-can-be-made", async |test| {
//!         test.create(&claim("data", &test.cluster.classes[0])).await?;
//!         Ok(())
//!     })
//!     .await;
//! }
//! ```

#![forbid(unsafe_code)]

pub mod audit;
mod cluster;
mod commands;
pub mod crash;
pub mod csi;
mod dump;
pub mod example;
pub mod leftovers;
mod local;
mod objects;
mod once;
mod outside;
mod policy;
mod proxy;
mod refusal;
mod release;
mod settled;
mod test;
pub mod tree;
mod volumes;
mod wait;

pub use cluster::{Cluster, IMAGE_VARIABLE, KUBECONFIG_VARIABLE, TOOLS_IMAGE_VARIABLE};
pub use commands::Output;
pub use local::{Local, program};
pub use objects::{Mount, claim, deployment, mount, pod, stateful_set, stay};
pub use once::{migrate, once};
pub use outside::Outside;
pub use policy::{create_policy, delete_policy};
pub use proxy::{Hold, Proxy, When, Write};
pub use refusal::Refusal;
pub use release::{End, Release, WAIT};
pub use settled::settled;
pub use test::{Test, run_test};
pub use volumes::{Bound, bound, dispose, folder, released};
pub use wait::wait_for;
