//! Any bytes as a review: the decoder, the rules and the router behind it.

#![no_main]

#[path = "../../tests/corpus/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|body: &[u8]| check::body(body));
