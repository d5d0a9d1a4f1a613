//! The words that pvmigrate's programs exchange: the phases of a migration, the record that is
//! written on a source volume, the orders and reports of a mover, the names of labels and
//! annotations, and the sentences of a refusal. No client, no I/O, no clock.

#![forbid(unsafe_code)]

pub mod names;
pub mod order;
pub mod phase;
pub mod record;
pub mod refusal;

pub use order::{Order, PassReport, Report, What};
pub use phase::{Heading, Phase};
pub use record::Record;
