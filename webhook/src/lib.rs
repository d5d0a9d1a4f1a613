//! The fence's webhook: it refuses what would touch a claim while pvmigrate moves it.
//!
//! ```text
//! API server ── server (TLS, tls) ── admission (routing) ── rules (verdict, pure)
//!                                                             │
//!                watch on the source volumes ── memory ───────┘
//! ```
//!
//! Nothing is asked while a request waits: verdicts come from memory. A webhook that is not
//! synced, or behind the generation in the request's path, answers with an error, never with
//! "allowed".

#![forbid(unsafe_code)]

pub mod admission;
pub mod authority;
pub mod config;
pub mod fences;
pub mod memory;
pub mod rotation;
pub mod rules;
#[cfg(test)]
mod samples;
pub mod secret;
pub mod server;
pub mod tls;
