//! Directories that are new, ours, somebody else's, newer, in use, damaged; partitions that come and go.

use std::io::IoSlice;
use std::sync::Arc;

use super::*;
use crate::clock::Clock;
use crate::fs::{OpenMode, SimDisk, write_all_at};
use crate::log::tail_cache::TailBudget;
use crate::random::Random;

fn context(disk: &SimDisk) -> LogContext {
    LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_000),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(0),
    }
}

fn put(disk: &SimDisk, path: &str, content: &[u8]) {
    disk.create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
    write_all_at(&*file, &mut [IoSlice::new(content)], 0).unwrap();
}

fn topic(bits: u128) -> TopicId {
    TopicId::from_bytes(bits.to_be_bytes()).unwrap()
}

fn refusal_of(disk: &SimDisk) -> String {
    DataDir::open(context(disk), Path::new("data")).unwrap_err().to_string()
}

#[test]
fn a_directory_keeps_its_identity_and_serves_one_process_at_a_time() {
    let disk = SimDisk::new();
    let first = DataDir::open(context(&disk), Path::new("data")).unwrap();
    assert!(refusal_of(&disk).contains("another process uses this data directory"));
    let id = first.id();
    drop(first);
    assert_eq!(DataDir::open(context(&disk), Path::new("data")).unwrap().id(), id);
}

#[test]
fn what_is_not_ours_is_refused_and_left_as_it_was() {
    for (file, content, message) in [
        ("data/meta.properties", "version=1\n", "was written by Kafka"),
        ("data/photo.jpg", "x", "is not empty and was not written by Floodmark"),
        ("data/logs/t-0/log.manifest", "x", "has logs but no floodmark.dir"),
        ("data/floodmark.dir", "floodmark data directory 2\nmore\n", "has format 2, newer than 1"),
        ("data/floodmark.dir", "something\n", "was not written by Floodmark"),
        (
            "data/floodmark.dir",
            "floodmark data directory 1\ndirectory_id 67e55044-10b1-426f-9247-bb680e5fe0c8\ncrc 00000000\n",
            "is damaged",
        ),
    ] {
        let disk = SimDisk::new();
        put(&disk, file, content.as_bytes());
        let message_found = refusal_of(&disk);
        assert!(message_found.contains(message), "{file}: {message_found}");
        let left: Vec<_> = disk.files().into_keys().filter(|p| !p.ends_with(LOCK_FILE)).collect();
        assert_eq!(left, [PathBuf::from(file)]);
    }
}

#[test]
fn a_partition_belongs_to_one_incarnation_of_its_topic() {
    let disk = SimDisk::new();
    let data = DataDir::open(context(&disk), Path::new("data")).unwrap();
    let name = PartitionName::new("orders", 3).unwrap();
    let (log, report) = data.open_partition(&name, topic(77), LogConfig::default()).unwrap();
    assert!(report.was_new);
    log.close().unwrap();
    assert_eq!(data.partitions().unwrap(), std::slice::from_ref(&name));
    let other = data.open_partition(&name, topic(78), LogConfig::default()).unwrap_err().to_string();
    assert!(other.contains("another topic of this name"), "{other}");
    data.remove_partition(&name).unwrap();
    assert_eq!(data.partitions().unwrap(), []);
    assert!(data.open_partition(&name, topic(78), LogConfig::default()).unwrap().1.was_new);
}

/// Whatever a look finds is what opening finds: one that is made anew was said to be missing, and no other.
#[test]
fn a_log_is_missing_where_opening_would_make_one() {
    let disk = SimDisk::new();
    let data = DataDir::open(context(&disk), Path::new("data")).unwrap();
    let name = PartitionName::new("orders", 3).unwrap();
    let is_there = || data.holds_log(&name, topic(77)).unwrap();
    let open = || data.open_partition(&name, topic(77), LogConfig::default()).unwrap();
    assert!(!is_there());
    let operations = disk.operations();
    assert_eq!((is_there(), disk.operations()), (false, operations), "a look changes nothing");
    assert!(open().1.was_new);
    assert!(is_there() && !data.holds_log(&name, topic(78)).unwrap());
    let dir = data.partition_path(&name);
    let files: Vec<_> = disk.list(&dir).unwrap().into_iter().map(|e| e.name).collect();
    assert!(files.len() > 2, "{files:?}");
    // Each may be all that is left.
    for left in &files {
        for file in disk.list(&dir).unwrap().iter().filter(|e| e.name != *left) {
            disk.remove_file(&dir.join(&file.name)).unwrap();
        }
        let was_there = is_there();
        match data.open_partition(&name, topic(77), LogConfig::default()) {
            Ok((_, report)) => assert_eq!(report.was_new, !was_there, "{left}"),
            Err(_) => assert!(was_there, "{left}"),
        }
        data.remove_partition(&name).unwrap();
        open();
    }
    put(&disk, "data/logs/orders-3/partition.metadata", b"nobody's");
    data.holds_log(&name, topic(77)).unwrap_err();
}

/// Makes two partitions, removes one, and cuts the power after every change; what had returned by then must hold. The
/// first thing that does not, if any.
fn first_loss(skipped: Option<SyncPoint>) -> Option<String> {
    let disk = SimDisk::new();
    if let Some(point) = skipped {
        disk.skip_sync(point);
    }
    disk.record_images();
    let (kept, gone) = (PartitionName::new("kept", 0).unwrap(), PartitionName::new("gone", 0).unwrap());
    let data = DataDir::open(context(&disk), Path::new("data")).unwrap();
    let (id, opened) = (data.id(), disk.operations());
    for name in [&kept, &gone] {
        data.open_partition(name, topic(9), LogConfig::default()).unwrap().0.close().unwrap();
    }
    let made = disk.operations();
    data.remove_partition(&gone).unwrap();
    let removed = disk.operations();
    for image in disk.take_images().into_iter().chain([disk.image()]) {
        let now = image.operation();
        for seed in 0..24 {
            let after = image.power_cut(seed);
            let data = match DataDir::open(context(&after), Path::new("data")) {
                Ok(data) => data,
                Err(e) => return Some(format!("operation {now}, seed {seed}: {e}")),
            };
            let found = data.partitions().unwrap();
            let is_lost = now >= opened && data.id() != id
                || now >= made && !found.contains(&kept)
                || now >= removed && found.contains(&gone);
            if is_lost {
                return Some(format!("operation {now}, seed {seed}: {:?}, {found:?}", data.id()));
            }
            // A partition's incarnation is known from when it was made.
            if now >= made && data.open_partition(&kept, topic(8), LogConfig::default()).is_ok() {
                return Some(format!(
                    "operation {now}, seed {seed}: another topic's partition is taken for this one's"
                ));
            }
            if let Err(e) = data.open_partition(&kept, topic(9), LogConfig::default()) {
                return Some(format!("operation {now}, seed {seed}: {e}"));
            }
        }
    }
    None
}

#[test]
fn after_a_power_cut_made_is_made_and_removed_is_removed() {
    assert_eq!(first_loss(None), None);
}

#[test]
fn every_sync_of_a_data_directory_that_is_left_out_is_missed() {
    for point in [
        SyncPoint::DataDirCreated,
        SyncPoint::IdentityData,
        SyncPoint::IdentityRenamed,
        SyncPoint::PartitionCreated,
        SyncPoint::PartitionRemoved,
    ] {
        let loss = first_loss(Some(point));
        assert!(loss.is_some(), "nobody misses {point:?}");
    }
}

#[test]
fn names_are_what_kafka_takes_and_round_trip() {
    for (text, expected) in [
        ("orders-0", Some(("orders", 0))),
        ("a-b-12", Some(("a-b", 12))),
        ("orders", None),
        ("orders-", None),
        ("orders-01", None),
        ("orders--1", Some(("orders-", 1))),
        ("..-1", None),
        ("a/b-1", None),
        ("orders-2147483648", None),
        ("orders.00000000000000aa-delete", None),
    ] {
        let parsed = PartitionName::parse(text);
        assert_eq!(parsed.as_ref().map(|p| (p.topic(), p.partition())), expected, "{text}");
        assert!(parsed.is_none_or(|p| p.to_string() == text));
    }
    assert!(PartitionName::new(&"x".repeat(250), 0).is_err());
}

#[test]
fn a_new_partition_goes_where_fewest_are_and_most_space_is() {
    let load = |partitions, available_bytes| DirLoad { partitions, available_bytes };
    assert_eq!(choose(&[]), None);
    assert_eq!(choose(&[load(2, 9), load(1, 1), load(1, 5), load(1, 5)]), Some(2));
}

#[test]
fn a_partition_set_aside_keeps_its_files_and_gives_up_its_name() {
    let disk = SimDisk::new();
    let data = DataDir::open(context(&disk), Path::new("data")).unwrap();
    let name = PartitionName::new("t", 0).unwrap();
    assert_eq!(data.topic_of(&name).unwrap(), None);
    data.open_partition(&name, topic(9), LogConfig::default()).unwrap().0.close().unwrap();
    assert_eq!(data.topic_of(&name).unwrap(), Some(topic(9)));
    let aside = data.set_aside(&name).unwrap();
    assert!(data.partitions().unwrap().is_empty());
    assert_eq!(data.topic_of(&name).unwrap(), None);
    data.open_partition(&name, topic(10), LogConfig::default()).unwrap();
    drop(data);
    DataDir::open(context(&disk), Path::new("data")).unwrap();
    assert!(disk.files().keys().any(|file| file.starts_with(&aside)), "nothing of it was removed");
}
