//! The fuzz target for the jailer's flag parser: `cargo +nightly fuzz run flags`.

#![no_main]

#[path = "../flags_model.rs"]
mod flags_model;

libfuzzer_sys::fuzz_target!(|data: &[u8]| flags_model::fuzz_one(data));
