//! The table is Kafka's, values are judged as Kafka judges them, and mean to a log what they say.

use std::time::Duration;

use floodmark_proto::batch::CompressionType;
use floodmark_storage::{CompactionConfig, FlushPolicy, LogConfig};
use proptest::prelude::*;

use super::super::image::Settings;
use super::*;

/// Names, types and defaults as Kafka 4.3.1 tells them.
const KAFKA: [(&str, ConfigType, &str); 33] = [
    ("cleanup.policy", ConfigType::List, "delete"),
    ("compression.gzip.level", ConfigType::Int, "-1"),
    ("compression.lz4.level", ConfigType::Int, "9"),
    ("compression.type", ConfigType::String, "producer"),
    ("compression.zstd.level", ConfigType::Int, "3"),
    ("delete.retention.ms", ConfigType::Long, "86400000"),
    ("file.delete.delay.ms", ConfigType::Long, "60000"),
    ("flush.messages", ConfigType::Long, "9223372036854775807"),
    ("flush.ms", ConfigType::Long, "9223372036854775807"),
    ("follower.replication.throttled.replicas", ConfigType::List, ""),
    ("index.interval.bytes", ConfigType::Int, "4096"),
    ("leader.replication.throttled.replicas", ConfigType::List, ""),
    ("local.retention.bytes", ConfigType::Long, "-2"),
    ("local.retention.ms", ConfigType::Long, "-2"),
    ("max.compaction.lag.ms", ConfigType::Long, "9223372036854775807"),
    ("max.message.bytes", ConfigType::Int, "1048588"),
    ("message.timestamp.after.max.ms", ConfigType::Long, "3600000"),
    ("message.timestamp.before.max.ms", ConfigType::Long, "9223372036854775807"),
    ("message.timestamp.type", ConfigType::String, "CreateTime"),
    ("min.cleanable.dirty.ratio", ConfigType::Double, "0.5"),
    ("min.compaction.lag.ms", ConfigType::Long, "0"),
    ("min.insync.replicas", ConfigType::Int, "1"),
    ("preallocate", ConfigType::Boolean, "false"),
    ("remote.log.copy.disable", ConfigType::Boolean, "false"),
    ("remote.log.delete.on.disable", ConfigType::Boolean, "false"),
    ("remote.storage.enable", ConfigType::Boolean, "false"),
    ("retention.bytes", ConfigType::Long, "-1"),
    ("retention.ms", ConfigType::Long, "604800000"),
    ("segment.bytes", ConfigType::Int, "1073741824"),
    ("segment.index.bytes", ConfigType::Int, "10485760"),
    ("segment.jitter.ms", ConfigType::Long, "0"),
    ("segment.ms", ConfigType::Long, "604800000"),
    ("unclean.leader.election.enable", ConfigType::Boolean, "false"),
];

fn none() -> Settings {
    Settings::new()
}

fn set(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn resolve(topic: &[(&str, &str)]) -> TopicSettings {
    let (topic, none) = (set(topic), none());
    let layers = Layers { topic: &topic, broker: &none, cluster: &none, file: &none };
    TopicSettings::resolve(&layers, &LogConfig::default())
}

#[test]
fn the_table_is_kafkas_and_ours() {
    let kafkas: Vec<_> = all()
        .iter()
        .filter(|s| !s.name.starts_with("floodmark."))
        .map(|s| (s.name, s.config_type(), s.default))
        .collect();
    assert_eq!(kafkas, KAFKA);
    let ours: Vec<_> = all().iter().map(|s| s.name).filter(|n| n.starts_with("floodmark.")).collect();
    assert_eq!(ours, ["floodmark.key.index", "floodmark.sync"]);
    assert!(all().is_sorted_by_key(|s| s.name));
}

#[test]
fn every_setting_takes_its_default_and_says_what_it_does() {
    for setting in all() {
        assert_eq!(setting.check(setting.default), Ok(()), "{}", setting.name);
        assert!(setting.documentation.len() > 30, "{}", setting.name);
        assert!(!setting.documentation.contains("  "), "{}", setting.name);
    }
    let twice =
        all().iter().flat_map(|s| s.synonyms).map(|s| s.name).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(twice.len(), all().iter().map(|s| s.synonyms.len()).sum::<usize>());
}

#[test]
fn values_are_judged_as_kafka_judges_them() {
    for (name, value, is_good) in [
        ("cleanup.policy", "delete", true),
        ("cleanup.policy", "compact", true),
        ("cleanup.policy", "delete, compact", true),
        ("cleanup.policy", "delete,delete", true),
        ("cleanup.policy", "", true),
        ("cleanup.policy", "bogus", false),
        ("retention.ms", "-1", true),
        ("retention.ms", " 10 ", true),
        ("retention.ms", "-5", false),
        ("retention.ms", "abc", false),
        ("retention.ms", "", false),
        ("retention.ms", "9223372036854775808", false),
        ("retention.bytes", "-5", true),
        ("preallocate", "yes", false),
        ("preallocate", "TRUE", true),
        ("compression.type", "Gzip", false),
        ("compression.type", "none", false),
        ("compression.type", "uncompressed", true),
        ("compression.gzip.level", "0", false),
        ("compression.gzip.level", "-1", true),
        ("compression.gzip.level", "9", true),
        ("compression.gzip.level", "10", false),
        ("compression.zstd.level", "-131072", true),
        ("compression.zstd.level", "23", false),
        ("message.timestamp.type", "createtime", false),
        ("min.cleanable.dirty.ratio", "1.5", false),
        ("min.cleanable.dirty.ratio", "NaN", false),
        ("min.cleanable.dirty.ratio", "1", true),
        ("leader.replication.throttled.replicas", "*", true),
        ("leader.replication.throttled.replicas", "0:1,12:3", true),
        ("leader.replication.throttled.replicas", "0:1,x", false),
        ("segment.bytes", "1000", false),
        ("segment.bytes", "1048576", true),
        ("segment.bytes", "2147483648", false),
        ("min.insync.replicas", "0", false),
        ("remote.storage.enable", "false", true),
        ("remote.storage.enable", "true", false),
        ("floodmark.sync", "interval", true),
        ("floodmark.sync", "always", false),
    ] {
        assert_eq!(check(name, value).is_ok(), is_good, "{name}={value}: {:?}", check(name, value));
    }
}

#[test]
fn refusals_say_what_to_do() {
    let told = |name, value| check(name, value).unwrap_err().to_string();
    assert_eq!(told("retention", "1"), "unknown topic config name: retention; did you mean retention.ms?");
    assert_eq!(
        told("cleanup_policy", "1"),
        "unknown topic config name: cleanup_policy; did you mean cleanup.policy?"
    );
    assert_eq!(
        told("retention.ms", "-2"),
        "invalid value -2 for configuration retention.ms: it must be at least -1"
    );
    assert_eq!(
        told("compression.gzip.level", "10"),
        "invalid value 10 for configuration compression.gzip.level: it must be between 1 and 9, or -1"
    );
    let lags = [("min.compaction.lag.ms", "100"), ("max.compaction.lag.ms", "10")];
    assert_eq!(
        check_all(lags).unwrap_err().to_string(),
        "min.compaction.lag.ms (100) exceeds max.compaction.lag.ms (10)"
    );
    assert_eq!(check_all([lags[0]]), Ok(()));
}

#[test]
fn nothing_set_is_kafkas_default_with_durable_acknowledgements() {
    let settings = resolve(&[]);
    assert_eq!(settings.log, LogConfig::default());
    assert_eq!(settings.sync, SyncPolicy::Ack);
    assert_eq!(settings.compression, Compression::Producer);
    assert_eq!(settings.timestamp_type, TimestampType::CreateTime);
    assert_eq!((settings.timestamp_before_max_ms, settings.timestamp_after_max_ms), (i64::MAX, 3_600_000));
    assert_eq!(settings.min_insync_replicas, 1);
    assert_eq!(settings.cleanup, Cleanup { delete: true, compact: false });
}

#[test]
fn cleanup_policy_decides_what_retention_and_compaction_mean() {
    let compact =
        resolve(&[("cleanup.policy", "compact"), ("retention.ms", "5"), ("delete.retention.ms", "7")]);
    assert_eq!((compact.log.retention_ms, compact.log.retention_bytes), (-1, -1));
    let expected = CompactionConfig { delete_retention_ms: 7, ..CompactionConfig::default() };
    assert_eq!(compact.log.compaction, Some(expected));
    let both =
        resolve(&[("cleanup.policy", "compact,delete"), ("retention.ms", "5"), ("retention.bytes", "-7")]);
    assert_eq!((both.log.retention_ms, both.log.retention_bytes), (5, -1));
    assert!(both.log.compaction.is_some());
    let neither = resolve(&[("cleanup.policy", "")]);
    assert_eq!((neither.log.retention_ms, neither.log.compaction), (-1, None));
}

#[test]
fn sync_decides_about_flushing_and_writing_ahead() {
    let ack = resolve(&[("flush.ms", "20"), ("flush.messages", "3")]);
    let flush = FlushPolicy { records: Some(3), interval: Some(Duration::from_millis(20)) };
    assert_eq!((ack.log.flush, ack.log.prewrite_bytes), (flush, LogConfig::default().prewrite_bytes));
    let interval = resolve(&[("floodmark.sync", "interval")]);
    let every_second = FlushPolicy { records: None, interval: Some(Duration::from_secs(1)) };
    assert_eq!((interval.log.flush, interval.log.prewrite_bytes), (every_second, 0));
    let own = resolve(&[("floodmark.sync", "interval"), ("flush.ms", "50")]);
    assert_eq!(own.log.flush.interval, Some(Duration::from_millis(50)));
    let never = resolve(&[("floodmark.sync", "none")]);
    assert_eq!((never.sync, never.log.flush), (SyncPolicy::None, FlushPolicy::default()));
}

#[test]
fn compression_names_a_codec_and_its_level() {
    for (pairs, expected) in [
        (&[("compression.type", "gzip")][..], Compression::Codec(CompressionType::Gzip, None)),
        (
            &[("compression.type", "gzip"), ("compression.gzip.level", "2")],
            Compression::Codec(CompressionType::Gzip, Some(2)),
        ),
        (&[("compression.type", "zstd")], Compression::Codec(CompressionType::Zstd, Some(3))),
        (
            &[("compression.type", "lz4"), ("compression.lz4.level", "12")],
            Compression::Codec(CompressionType::Lz4, None),
        ),
        (&[("compression.type", "snappy")], Compression::Codec(CompressionType::Snappy, None)),
        (&[("compression.type", "uncompressed")], Compression::Codec(CompressionType::None, None)),
    ] {
        assert_eq!(resolve(pairs).compression, expected);
    }
}

#[test]
fn layers_count_in_their_order_and_are_explained() {
    let topic = none();
    let broker = set(&[("log.retention.hours", "1")]);
    let cluster = set(&[("log.retention.minutes", "2"), ("log.retention.ms", "-1")]);
    let file = set(&[("log.retention.hours", "9223372036854775807"), ("log.retention.ms", "5")]);
    let layers = Layers { topic: &topic, broker: &broker, cluster: &cluster, file: &file };
    let setting = find("retention.ms").unwrap();
    let told: Vec<_> =
        setting.explain(&layers).into_iter().map(|e| (e.name, e.raw, e.value, e.source)).collect();
    let row = |name, raw: &str, value: &str, source| (name, raw.to_owned(), value.to_owned(), source);
    // A value that overflows in milliseconds is passed over.
    assert_eq!(
        told,
        [
            row("log.retention.hours", "1", "3600000", Source::Broker),
            row("log.retention.ms", "-1", "-1", Source::Cluster),
            row("log.retention.minutes", "2", "120000", Source::Cluster),
            row("log.retention.ms", "5", "5", Source::File),
            row("log.retention.ms", "604800000", "604800000", Source::Default),
        ]
    );
    let topic = set(&[("retention.ms", "604800000")]);
    let told = setting.explain(&Layers { topic: &topic, ..layers });
    assert_eq!((told[0].name, told[0].source), ("retention.ms", Source::Topic));
    assert_eq!(find_synonym("log.retention.hours").unwrap().0.name, "retention.ms");
    assert_eq!(find_synonym("retention.ms"), None);
}

#[test]
fn lists_grow_and_shrink() {
    let policy = find("cleanup.policy").unwrap();
    assert_eq!(policy.append_to(None, "compact").unwrap(), "delete,compact");
    assert_eq!(policy.append_to(Some("compact"), "compact").unwrap(), "compact");
    assert_eq!(policy.subtract_from(Some("compact, delete"), "delete").unwrap(), "compact");
    assert_eq!(policy.subtract_from(None, "delete").unwrap(), "");
    let number = find("retention.ms").unwrap();
    assert_eq!(number.append_to(None, "1"), Err(SettingError::NotAList { name: "retention.ms" }));
}

proptest! {
    #[test]
    fn no_value_makes_it_panic_and_what_passes_counts(
        name in proptest::sample::select(all().iter().map(|s| s.name).collect::<Vec<_>>()),
        value in prop_oneof!["\\PC{0,20}", any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string())],
        unknown in "\\PC{0,300}",
    ) {
        let settings = resolve(&[(name, &value)]);
        if check(name, &value).is_err() {
            prop_assert_eq!(settings, resolve(&[]));
        }
        prop_assert!(check(&unknown, &value).is_err() || find(&unknown).is_ok());
        let _ = check_all([(name, value.as_str())]);
    }
}
