//! Fuzz target; what it asserts stands in `src/bodies.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floodmark_proto_fuzz::run(
    floodmark_proto_fuzz::bodies::decompress_lz4,
    data
));
