//! Any bytes as record batches, as they are and with length and checksum mended.

#![no_main]

#[allow(dead_code)]
#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::batch(data);
});
