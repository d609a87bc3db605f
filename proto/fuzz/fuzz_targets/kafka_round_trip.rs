//! Fuzz target; what it asserts stands in `src/kafka.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| floodmark_proto_fuzz::run(
    floodmark_proto_fuzz::kafka::kafka_round_trip,
    data
));
