//! What each fuzz target does with its input. Also compiled by tests/fuzz_seeds.rs, which replays the committed seeds
//! without a fuzzer.

use std::convert::Infallible;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::crc32c::crc32c;
use floodmark_proto::batch::{BatchHeader, HEADER_LEN};
use floodmark_proto::ids::Offset;
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::{Disk, OpenMode, SimDisk, SyncPoint, write_all_at};
use floodmark_storage::index::{IndexPolicy, Indexer, offset_index, time_index, transaction_index};
use floodmark_storage::leader_epochs::LeaderEpochs;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::manifest::Manifest;
use floodmark_storage::partition_metadata;
use floodmark_storage::producers::{EndMarker, Origin, ProducerStates};
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, LogError, ReadLimits, TailBudget};

type Body = fn(&[u8]);

/// Body by target name.
pub(crate) const ALL: [(&str, Body); 9] = [
    ("offset_index", offset_index),
    ("time_index", time_index),
    ("transaction_index", transaction_index),
    ("producer_snapshot", producer_snapshot),
    ("leader_epochs", leader_epochs),
    ("partition_metadata", partition_metadata),
    ("manifest", manifest),
    ("batch_headers", batch_headers),
    ("recovery", recovery),
];

/// The first four bytes are what to look for, the rest is the index.
pub(crate) fn offset_index(data: &[u8]) {
    let Some((target, index)) = data.split_first_chunk() else { return };
    let target = u32::from_be_bytes(*target);
    let kept = offset_index::valid_prefix(index);
    assert!(kept * offset_index::ENTRY_LEN <= index.len());
    let valid = &index[..kept * offset_index::ENTRY_LEN];
    let scan = valid
        .chunks_exact(offset_index::ENTRY_LEN)
        .zip(0..)
        .filter_map(|(_, n)| offset_index::entry_at(valid, n))
        .take_while(|entry| entry.relative_offset <= target)
        .last();
    assert_eq!(offset_index::find_in(valid, target), scan);
    // A damaged index may answer anything, but it must answer.
    let _ = offset_index::find_in(index, target);
}

/// The first eight bytes are what to look for, the rest is the index.
pub(crate) fn time_index(data: &[u8]) {
    let Some((target, index)) = data.split_first_chunk() else { return };
    let target = i64::from_be_bytes(*target);
    let kept = time_index::valid_prefix(index);
    assert!(kept * time_index::ENTRY_LEN <= index.len());
    let entry_at = |n| match time_index::entry_at(index, n) {
        Some(entry) => Ok::<_, Infallible>(entry),
        None => panic!("entry {n} lies within the index"),
    };
    let scan = (0..kept as u32)
        .filter_map(|n| time_index::entry_at(index, n))
        .take_while(|entry| entry.timestamp <= target)
        .last();
    assert_eq!(time_index::find(kept as u32, entry_at, target), Ok(scan));
    let _ = time_index::find((index.len() / time_index::ENTRY_LEN) as u32, entry_at, target);
}

pub(crate) fn transaction_index(data: &[u8]) {
    let kept = transaction_index::valid_prefix(data) * transaction_index::ENTRY_LEN;
    let Ok(entries) = transaction_index::parse(&data[..kept]) else { panic!("the valid prefix must parse") };
    assert_eq!(entries.iter().flat_map(|e| e.encode()).collect::<Vec<u8>>(), &data[..kept]);
    assert_eq!(transaction_index::parse(data).is_ok(), kept == data.len());
    let _ = transaction_index::collect(&entries, Offset(0), Offset::MAX);
}

/// As it is, and with its checksum put right, so that the entries are reached.
pub(crate) fn producer_snapshot(data: &[u8]) {
    let _ = ProducerStates::from_snapshot(data, Offset::MAX);
    let mut bytes = data.to_vec();
    if bytes.len() >= 6 {
        let crc = crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&crc.to_be_bytes());
    }
    if let Ok(mut states) = ProducerStates::from_snapshot(&bytes, Offset::MAX) {
        let again = states.to_snapshot();
        let Ok(reloaded) = ProducerStates::from_snapshot(&again, Offset::MAX) else {
            panic!("our own snapshot must load")
        };
        assert_eq!(reloaded, states);
        let _ = states.last_stable_offset(Offset::MAX, Offset::ZERO);
        states.expire(i64::MAX, 0);
    }
}

pub(crate) fn leader_epochs(data: &[u8]) {
    if let Ok(epochs) = LeaderEpochs::parse(data) {
        assert_eq!(epochs.format().as_bytes(), data);
        let mut assigned = LeaderEpochs::new();
        for entry in epochs.entries() {
            assert!(assigned.assign(entry.epoch, entry.start_offset));
        }
        assert_eq!(assigned, epochs);
    }
}

pub(crate) fn partition_metadata(data: &[u8]) {
    if let Ok(topic_id) = partition_metadata::parse(data) {
        assert_eq!(partition_metadata::parse(partition_metadata::format(topic_id).as_bytes()), Ok(topic_id));
    }
}

/// As it is, and with a right checksum line added, so that the lines are reached.
pub(crate) fn manifest(data: &[u8]) {
    let mut summed = data.to_vec();
    summed.extend(format!("crc {:08x}\n", crc32fast::hash(data)).into_bytes());
    for bytes in [data, &summed] {
        if let Ok(manifest) = Manifest::parse(bytes) {
            let text = manifest.format();
            assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
            // An older version is written as the newest one.
            assert_eq!(text.as_bytes() == bytes, bytes.starts_with(b"floodmark log manifest 2\n"));
        }
    }
}

/// The input is a row of batch headers, each followed by its marker's outcome and coordinator epoch: the replay of a
/// hostile log.
pub(crate) fn batch_headers(data: &[u8]) {
    const MARKER_LEN: usize = 5;
    let policy = IndexPolicy { interval_bytes: 100, max_index_bytes: 1 << 10 };
    let mut indexer = Indexer::new(Offset(0), policy);
    let mut states = ProducerStates::default();
    let mut position = 0u32;
    for bytes in data.chunks_exact(HEADER_LEN + MARKER_LEN) {
        let Ok(header) = BatchHeader::parse(bytes) else { continue };
        let [outcome, epoch @ ..] = [bytes[61], bytes[62], bytes[63], bytes[64], bytes[65]];
        let marker = EndMarker { is_abort: outcome % 2 == 0, coordinator_epoch: i32::from_be_bytes(epoch) };
        for origin in [Origin::Client, Origin::Coordinator, Origin::Replica] {
            let _ = states.check(&header, Some(&marker), origin);
        }
        let _ = states.record(&header, Some(&marker)).and_then(|completed| completed.index_entry());
        states.on_high_watermark(Offset(header.base_offset.0 / 2));
        let _ = indexer.on_batch(&header, position);
        position = position.saturating_add(header.batch_length as u32);
    }
    let _ = (indexer.final_time_entry(), states.to_snapshot());
}

/// The input is what a crash, or a hostile hand, left in a log's only segment: first the length of a small file and which one
/// it is, then that file, then the segment. Opening either reports damage or gives a log that reads, appends and reopens.
pub(crate) fn recovery(data: &[u8]) {
    const SMALL: [&str; 6] = [
        "log.manifest",
        "leader-epoch-checkpoint",
        "00000000000000000000.index",
        "00000000000000000000.timeindex",
        "00000000000000000000.txnindex",
        "00000000000000000017.snapshot",
    ];
    let Some(([which, high, low], rest)) = data.split_first_chunk().map(|(head, rest)| (*head, rest)) else {
        return;
    };
    let (small, segment) = rest.split_at(rest.len().min(usize::from(high) << 8 | usize::from(low)));
    let disk = SimDisk::new();
    let dir = Path::new("t-0");
    let put = |name: &str, content: &[u8]| -> std::io::Result<()> {
        let file = disk.open(&dir.join(name), OpenMode::Create)?;
        write_all_at(&*file, &mut [IoSlice::new(content)], 0)?;
        file.sync(SyncPoint::AppendData)
    };
    let laid = disk.create_dir_all(dir).and_then(|()| put("00000000000000000000.log", segment));
    let laid = laid.and_then(|()| match SMALL.get(usize::from(which)) {
        Some(name) => put(name, small),
        None => Ok(()),
    });
    assert!(laid.is_ok());
    let Ok(log) = open_log(&disk, dir) else { return };
    let (start, end) = (log.start(), log.end());
    let read = read_all(&log);
    drop(log);
    // What recovery made of it, it makes of it again.
    let Ok(log) = open_log(&disk, dir) else { panic!("a recovered log opens") };
    assert_eq!((log.start(), log.end(), read_all(&log)), (start, end, read));
}

fn open_log(disk: &SimDisk, dir: &Path) -> Result<Log, LogError> {
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(0),
        random: Random::seeded(1),
        tail_budget: TailBudget::new(0),
    };
    Ok(Log::open(context, dir, LogConfig::default())?.0)
}

fn read_all(log: &Log) -> Vec<Vec<u8>> {
    let limits = ReadLimits { max_bytes: 64 << 10, below: Offset::MAX };
    let mut from = log.start();
    let mut pieces = Vec::new();
    while let Ok(read) = log.reader().read(from, limits) {
        let Some(last) = read.last() else { break };
        let mut rest = &last[..];
        while let Ok(header) = BatchHeader::parse(rest) {
            from = header.next_offset();
            rest = &rest[header.size_bytes()..];
        }
        pieces.extend(read.into_iter().map(|bytes| bytes.to_vec()));
    }
    pieces
}
