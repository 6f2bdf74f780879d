//! Any bytes as what the members of a group tell each other: a subscription, an assignment.

#![no_main]

#[allow(dead_code)]
#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::group(data);
});
