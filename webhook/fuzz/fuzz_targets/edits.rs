//! Reviews that a Kubernetes sent, edited at any place: what bytes hardly ever come to.

#![no_main]

#[path = "../../tests/corpus/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|edits: &[u8]| check::edits(edits));
