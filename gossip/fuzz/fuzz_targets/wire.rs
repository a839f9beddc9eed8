//! Whatever arrives from the network is a message, or refused by name.
#![no_main]

#[path = "../receive.rs"]
mod receive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| receive::receive(bytes));
