//! Replays the seeds of every fuzz target on stable, and the worst inputs known, under the fuzzers' cap on memory.

// Helpers of a test count as its code; the counting allocator needs `unsafe`, as every allocator does.
#![allow(clippy::unwrap_used, clippy::print_stderr, unsafe_code, unreachable_pub, missing_docs)]

#[path = "../fuzz/src/bodies.rs"]
mod bodies;
#[path = "../fuzz/src/memory.rs"]
mod memory;

use std::io::Write;
use std::path::{Path, PathBuf};

use bodies::{INPUT_MAX, MEMORY_MAX};
use floodmark_proto::batch::compression::{compress, decompress};
use floodmark_proto::batch::{BatchError, CompressionType, DecompressLimits};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

// Test data, which no simulated disk needs to own.
#[allow(clippy::disallowed_methods)]
fn files_of(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn every_target_passes_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, body) in bodies::ALL {
        let files = files_of(&seeds.join(target));
        assert!(files.len() >= 3, "{target} has {} seeds", files.len());
        for (path, input) in files {
            eprintln!("{}", path.display());
            memory::capped(MEMORY_MAX, || body(&input));
        }
    }
}

#[test]
fn every_target_passes_the_goldens_whole_cut_and_damaged() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    // One client of each language; the rest differ in their codecs alone.
    for client in ["kafka-java-4.3.1", "kafka-python-3.0.12", "librdkafka-2.16.0", "franz-go-1.22.2"] {
        for (_, input) in files_of(&golden.join(client)) {
            for (_, body) in bodies::ALL {
                let mut damaged = input.clone();
                for at in (61..input.len()).step_by(1 + input.len() / 40) {
                    memory::capped(MEMORY_MAX, || body(&input[..at]));
                    damaged[at] ^= 0x41;
                    memory::capped(MEMORY_MAX, || body(&damaged));
                }
                memory::capped(MEMORY_MAX, || body(&input));
            }
        }
    }
}

#[test]
fn targets_and_bodies_are_the_same_list() {
    let targets = files_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets"));
    let mut targets: Vec<_> =
        targets.iter().map(|(path, _)| path.file_stem().unwrap().to_str().unwrap()).collect();
    let mut bodies: Vec<_> = bodies::ALL.iter().map(|(target, _)| *target).collect();
    targets.sort_unstable();
    bodies.sort_unstable();
    assert_eq!(targets, bodies);
}

/// A payload of `codec` that decodes to `len` zeros.
fn zeros(codec: CompressionType, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, None, &vec![0; len], &mut out).unwrap();
    out
}

fn lz4_of_large_blocks(len: usize) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    let info = FrameInfo::new().block_size(BlockSize::Max4MB).block_mode(BlockMode::Linked);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(&vec![0; len]).unwrap();
    encoder.finish().unwrap()
}

fn zstd_of_a_large_window(len: usize) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![0; len]).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_largest_outputs_stay_within_memory() {
    let limits = DecompressLimits { max_ratio: usize::MAX, ..DecompressLimits::DEFAULT };
    let full = limits.max_bytes;
    let mut worst = Vec::new();
    for codec in [CompressionType::Gzip, CompressionType::Snappy, CompressionType::Lz4, CompressionType::Zstd]
    {
        worst.extend([(codec, zeros(codec, full)), (codec, zeros(codec, full + 1))]);
    }
    worst.extend([full, full + 1].map(|len| (CompressionType::Lz4, lz4_of_large_blocks(len))));
    worst.extend([full, full + 1].map(|len| (CompressionType::Zstd, zstd_of_a_large_window(len))));
    let mut passed = 0;
    for (codec, mut input) in worst {
        // Whatever lies within the promise, whole; a longer payload up to where the promise ends.
        input.truncate(INPUT_MAX);
        let mut done = Ok(());
        let peak = memory::capped(MEMORY_MAX, || done = decompress(codec, &input, &limits, &mut Vec::new()));
        eprintln!(
            "{codec:?}: {} bytes in, {:.1} MiB at the peak, {done:?}",
            input.len(),
            peak as f64 / 1048576.0
        );
        match done {
            Ok(()) => passed += 1,
            Err(error) => {
                assert!(matches!(error, BatchError::Bomb { .. } | BatchError::Decompress { .. }), "{error}")
            }
        }
    }
    assert_eq!(passed, 6, "each payload of exactly the cap decodes");
}
