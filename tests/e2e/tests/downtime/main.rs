//! How long applications are away, measured: `cargo test -p pvmigrate-e2e --test downtime --
//! --ignored --nocapture`. A test prints its figures and asserts none, but for what must never be:
//! a request that failed, a line that was lost, more groups away than are allowed.

mod many;
mod quorum;
mod readiness;
