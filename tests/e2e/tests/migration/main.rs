//! Whole migrations: the chart installed by helm, real applications, and what is there afterwards.

mod again;
mod failure;
mod fence;
mod kinds;
mod refusals;
mod there_and_back;
