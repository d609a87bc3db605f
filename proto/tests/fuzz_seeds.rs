//! Replays the seeds of every fuzz target on stable, and the worst inputs known, under the fuzzers' cap on memory.

// Helpers of a test count as its code; the counting allocator needs `unsafe`, as every allocator does.
#![allow(clippy::unwrap_used, clippy::print_stderr, unsafe_code, unreachable_pub, missing_docs)]

#[path = "../fuzz/src/bodies.rs"]
mod bodies;
#[path = "../fuzz/src/kafka.rs"]
mod kafka;
#[path = "../fuzz/src/memory.rs"]
mod memory;
mod tables;

use std::io::Write;
use std::path::{Path, PathBuf};

use bodies::{INPUT_MAX, MEMORY_MAX};
use floodmark_proto::batch::compression::{compress, decompress};
use floodmark_proto::batch::{BatchError, CompressionType, DecompressLimits};
use floodmark_proto::kafka::{ApiKey, Encoder, RequestHeader};
use kafka::{ENTRIES, Entry};
use tables::schema::Table;
use tables::{Chance, Sample};

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

fn sample(tables: &[Table], entry: &Entry, version: i16, chance: Option<Chance>) -> Vec<u8> {
    let holds = |table: &&Table| table.messages.iter().any(|message| message == entry.name);
    Sample { table: tables.iter().find(holds).unwrap(), version, chance }.message(entry.name)
}

#[test]
fn every_message_of_the_tables_is_in_the_list() {
    let mut tables: Vec<String> = tables::all().into_iter().flat_map(|table| table.messages).collect();
    let mut entries: Vec<_> = ENTRIES.iter().map(|entry| entry.name).collect();
    tables.sort();
    entries.sort_unstable();
    assert_eq!(entries, tables);
}

/// The seeds of the Kafka targets are the newest version of each message; `FLOODMARK_WRITE_SEEDS=1` writes them anew.
#[test]
#[allow(clippy::disallowed_methods)]
fn kafka_seeds_are_those_of_the_tables() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let tables = tables::all();
    let mut wanted: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for (place, entry) in ENTRIES.iter().enumerate() {
        let version = *entry.versions.end();
        let body = sample(&tables, entry, version, Some(Chance::new(7)));
        let key = ApiKey::ALL.iter().find(|key| entry.name.starts_with(key.name()));
        let whole = |suffix| key.filter(|key| entry.name.strip_prefix(key.name()) == Some(suffix));
        if let Some(key) = whole("Request") {
            let header = RequestHeader {
                api_key: key.code(),
                api_version: version,
                correlation_id: 1,
                client_id: Some("c"),
            };
            let mut encoder = Encoder::new();
            header.start_request(&mut encoder);
            let frame = [&encoder.finish().unwrap().concat()[4..], &body].concat();
            wanted.push((seeds.join("kafka_request").join(key.name()), frame));
        } else if let Some(key) = whole("Response") {
            let head = [key.code().to_be_bytes(), version.to_be_bytes()].concat();
            wanted.push((seeds.join("kafka_response").join(key.name()), [&head[..], &body].concat()));
        }
        let head = [place as u8, version as u8];
        wanted.push((seeds.join("kafka_round_trip").join(entry.name), [&head[..], &body].concat()));
    }
    if std::env::var("FLOODMARK_WRITE_SEEDS").is_ok_and(|value| value == "1") {
        for target in ["kafka_request", "kafka_response", "kafka_round_trip"] {
            std::fs::create_dir_all(seeds.join(target)).unwrap();
        }
        for (path, bytes) in &wanted {
            std::fs::write(path, bytes).unwrap();
        }
    }
    let stale = |(path, bytes): &&(PathBuf, Vec<u8>)| std::fs::read(path).ok().as_ref() != Some(bytes);
    let stale: Vec<_> = wanted.iter().filter(stale).map(|(path, _)| path).collect();
    assert!(stale.is_empty(), "run once with FLOODMARK_WRITE_SEEDS=1: {stale:?}");
}

#[test]
fn every_message_passes_there_and_back_whole_cut_and_damaged() {
    let tables = tables::all();
    for entry in ENTRIES {
        for version in entry.versions.clone() {
            for seed in 0..4 {
                let bytes = sample(&tables, entry, version, Some(Chance::new(seed)));
                assert!((entry.round_trip)(&bytes, version), "{} version {version}", entry.name);
                let mut damaged = bytes.clone();
                for at in (0..bytes.len()).step_by(1 + bytes.len() / 50) {
                    // Nothing that is cut short is a message.
                    assert!(!(entry.round_trip)(&bytes[..at], version), "{} version {version}", entry.name);
                    damaged[at] ^= 0x41;
                    (entry.round_trip)(&damaged, version);
                }
            }
        }
    }
}

/// What the decoder promises: eight times the frame, and 64 KiB.
fn memory_max(frame: &[u8]) -> usize {
    8 * frame.len() + (64 << 10)
}

fn decodes_within_memory(entry: &Entry, version: i16, bytes: &[u8]) {
    let peak = memory::capped(MEMORY_MAX, || {
        let _ = (entry.decode)(bytes, version);
    });
    let max = memory_max(bytes);
    assert!(peak <= max, "{} version {version}: {peak} bytes of memory, {max} allowed", entry.name);
}

/// The largest counts and lengths, in each encoding.
const HOSTILE: [&[u8]; 6] = [
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0x0f, 0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xff, 0xff, 0x3f],
];

#[test]
fn hostile_counts_take_no_more_memory_than_the_frame_allows() {
    let tables = tables::all();
    for entry in ENTRIES {
        for version in entry.versions.clone() {
            let message = sample(&tables, entry, version, Some(Chance::new(3)));
            for hostile in HOSTILE {
                for at in (0..message.len()).step_by(1 + message.len() / 60) {
                    let behind = message.get(at + hostile.len()..).unwrap_or_default();
                    decodes_within_memory(entry, version, &[&message[..at], hostile, behind].concat());
                }
            }
        }
    }
}

#[test]
fn large_frames_of_the_smallest_elements_take_no_more_memory_than_they_may() {
    for entry in ENTRIES {
        for version in entry.versions.clone() {
            for filler in [0, 1, 2, 3] {
                // Up to where a count may stand, and then as much of the smallest elements as it announces.
                for skipped in [0, 1, 2, 4, 6, 8, 10, 14, 16] {
                    for count in [&[0x00, 0x00, 0x40, 0x00][..], &[0x81, 0x80, 0x01]] {
                        let frame = [&vec![filler; skipped], count, &vec![filler; 60_000]].concat();
                        decodes_within_memory(entry, version, &frame);
                    }
                }
            }
        }
    }
}
