//! Whole migrations: the chart installed by helm, real applications, and what is there afterwards.

mod again;
mod back_and_forth;
mod block;
mod csi;
mod failure;
mod fence;
mod kinds;
mod refusals;
mod settings;
