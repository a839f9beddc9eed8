//! The layer reader must come to an end, with entries or a fault, whatever the bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let limits = oci::layers::Limits { bytes: 1 << 20, entries: 1000, path: 4095, xattrs: 4096 };
    let _ = oci::layers::read_through(bytes, &limits);
});
