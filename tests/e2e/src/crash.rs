//! Crash points: a Job that is ended at a chosen write, the Job that follows it, and the state that
//! both together must reach, whatever the write was.
//!
//! ```text
//! a run without a crash ─► the list of writes ─► for each: Scene (namespace, application, proxy)
//!                                                   │ the Job is killed at the write
//!                                                   │ the next Job ends with its code
//!                                                   ▼ the end state is the same
//! ```
//!
//! A Job works on its release alone, so points that run side by side have a release each, with a
//! webhook of its own.

mod application;
mod course;
mod end;
mod left;
mod point;
mod release;
mod scene;
mod workers;

pub use application::Kind;
pub use course::{Course, spread};
pub use point::{Ending, Point, Strike};
pub use release::Release;
pub use workers::run_points;
