//! See `recovery` in bodies.rs.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code)]
mod bodies;
#[path = "../memory_limit.rs"]
mod memory_limit;

libfuzzer_sys::fuzz_target!(|data: &[u8]| memory_limit::within(|| bodies::recovery(data)));
