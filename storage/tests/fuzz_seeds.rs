//! Replays the committed seeds of every fuzz target, so that what the fuzzer once reached stays reached without it.

#![allow(clippy::expect_used, clippy::disallowed_methods, reason = "a test that reads its own seed files")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

#[test]
fn seeds_pass_whole_and_cut() {
    for (target, body) in bodies::ALL {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut replayed = 0;
        for seed in std::fs::read_dir(&seeds).expect(target) {
            let bytes = std::fs::read(seed.expect(target).path()).expect(target);
            for end in (0..=bytes.len()).rev().take(64) {
                body(&bytes[..end]);
            }
            replayed += 1;
        }
        assert!(replayed > 0, "{target} has no seed");
    }
}
