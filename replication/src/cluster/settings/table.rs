//! The table of topic settings: every one that Kafka 4.3 lists, so that its tools find what they expect, and ours. Data only;
//! names, defaults and bounds are Kafka's.

use super::{Kind, Setting, Synonym};

const fn ms(name: &'static str) -> Synonym {
    Synonym { name, times: 1 }
}

const fn minutes(name: &'static str) -> Synonym {
    Synonym { name, times: 60 * 1000 }
}

const fn hours(name: &'static str) -> Synonym {
    Synonym { name, times: 60 * 60 * 1000 }
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, times: 1 }
}

/// Every topic setting, by name.
pub(super) const TABLE: [Setting; 35] = [
    Setting {
        name: "cleanup.policy",
        kind: Kind::Choices(&["compact", "delete"]),
        default: "delete",
        synonyms: &[same("log.cleanup.policy")],
        documentation: "What happens to old records. \"delete\" removes whole segments by retention.ms and retention.bytes; \
            \"compact\" keeps the last record of each key; both may be named, and with neither nothing is removed.",
    },
    Setting {
        name: "compression.gzip.level",
        kind: Kind::Int { min: 1, max: 9, also: Some(-1) },
        default: "-1",
        synonyms: &[same("compression.gzip.level")],
        documentation: "Level used where compression.type is \"gzip\" and a batch comes in another codec; -1 is gzip's own default.",
    },
    Setting {
        name: "compression.lz4.level",
        kind: Kind::Int { min: 1, max: 17, also: None },
        default: "9",
        synonyms: &[same("compression.lz4.level")],
        documentation: "Accepted for Kafka's sake and without effect: batches that the broker compresses with lz4 use the one \
            level that its lz4 has. Producers choose their own.",
    },
    Setting {
        name: "compression.type",
        kind: Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        default: "producer",
        synonyms: &[same("compression.type")],
        documentation: "Codec in which batches are kept. \"producer\" keeps each as it came; any other name makes the broker \
            compress anew what comes in another codec.",
    },
    Setting {
        name: "compression.zstd.level",
        kind: Kind::Int { min: -131_072, max: 22, also: None },
        default: "3",
        synonyms: &[same("compression.zstd.level")],
        documentation: "Level used where compression.type is \"zstd\" and a batch comes in another codec.",
    },
    Setting {
        name: "delete.retention.ms",
        kind: Kind::Long { min: 0 },
        default: "86400000",
        synonyms: &[ms("log.cleaner.delete.retention.ms")],
        documentation: "How long compaction leaves a tombstone or a transaction marker standing after what it removes is gone, so \
            that a reader who is under way still meets it.",
    },
    Setting {
        name: "file.delete.delay.ms",
        kind: Kind::Long { min: 0 },
        default: "60000",
        synonyms: &[ms("log.segment.delete.delay.ms")],
        documentation: "Accepted for Kafka's sake and without effect: a segment's file is removed at once, and readers that hold \
            its bytes keep them.",
    },
    Setting {
        name: "floodmark.key.index",
        kind: Kind::Boolean,
        default: "false",
        synonyms: &[same("floodmark.key.index")],
        documentation: "Makes the topic an event store: a record's key is its stream, streams are read without reading the rest, and \
            appends may depend on where their stream ends. Turned on later, the index of what is there is built when it is first \
            needed; turned off, its files go.",
    },
    Setting {
        name: "floodmark.sync",
        kind: Kind::Choice(&["ack", "interval", "none"]),
        default: "ack",
        synonyms: &[same("floodmark.sync")],
        documentation: "When records reach the disk. \"ack\": before they are acknowledged to acks=all, so that a power cut of \
            every broker loses nothing acknowledged. \"interval\": every flush.ms, or every second where that is not set; \
            \"none\": when the system sees fit, as Kafka does. The last two acknowledge what a power cut may take.",
    },
    Setting {
        name: "flush.messages",
        kind: Kind::Long { min: 1 },
        default: "9223372036854775807",
        synonyms: &[same("log.flush.interval.messages")],
        documentation: "Sync once this many records are not synced, whether or not anybody waits for it.",
    },
    Setting {
        name: "flush.ms",
        kind: Kind::Long { min: 0 },
        default: "9223372036854775807",
        synonyms: &[ms("log.flush.interval.ms"), ms("log.flush.scheduler.interval.ms")],
        documentation: "Sync once the oldest unsynced record is this old, whether or not anybody waits for it.",
    },
    Setting {
        name: "follower.replication.throttled.replicas",
        kind: Kind::Replicas,
        default: "",
        synonyms: &[],
        documentation: "Accepted for Kafka's sake and without effect: no replica's fetching is held back.",
    },
    Setting {
        name: "index.interval.bytes",
        kind: Kind::Int { min: 0, max: i32::MAX, also: None },
        default: "4096",
        synonyms: &[same("log.index.interval.bytes")],
        documentation: "Bytes of the log between two entries of its offset index. Fewer find an offset with less reading, in larger \
            indexes.",
    },
    Setting {
        name: "leader.replication.throttled.replicas",
        kind: Kind::Replicas,
        default: "",
        synonyms: &[],
        documentation: "Accepted for Kafka's sake and without effect: no replica's serving is held back.",
    },
    Setting {
        name: "local.retention.bytes",
        kind: Kind::Long { min: -2 },
        default: "-2",
        synonyms: &[same("log.local.retention.bytes")],
        documentation: "Accepted for Kafka's sake and without effect: there is no remote storage that would hold older segments.",
    },
    Setting {
        name: "local.retention.ms",
        kind: Kind::Long { min: -2 },
        default: "-2",
        synonyms: &[ms("log.local.retention.ms")],
        documentation: "Accepted for Kafka's sake and without effect: there is no remote storage that would hold older segments.",
    },
    Setting {
        name: "max.compaction.lag.ms",
        kind: Kind::Long { min: 1 },
        default: "9223372036854775807",
        synonyms: &[ms("log.cleaner.max.compaction.lag.ms")],
        documentation: "A record older than this is compacted however little there is to gain. Not below min.compaction.lag.ms.",
    },
    Setting {
        name: "max.message.bytes",
        kind: Kind::Int { min: 0, max: i32::MAX, also: None },
        default: "1048588",
        synonyms: &[same("message.max.bytes")],
        documentation: "Largest batch of records taken from a producer, as it comes, compressed.",
    },
    Setting {
        name: "message.timestamp.after.max.ms",
        kind: Kind::Long { min: 0 },
        default: "3600000",
        synonyms: &[ms("log.message.timestamp.after.max.ms")],
        documentation: "How far ahead of the broker's clock a record's timestamp may be. Without effect under LogAppendTime.",
    },
    Setting {
        name: "message.timestamp.before.max.ms",
        kind: Kind::Long { min: 0 },
        default: "9223372036854775807",
        synonyms: &[ms("log.message.timestamp.before.max.ms")],
        documentation: "How far behind the broker's clock a record's timestamp may be. Without effect under LogAppendTime.",
    },
    Setting {
        name: "message.timestamp.type",
        kind: Kind::Choice(&["CreateTime", "LogAppendTime"]),
        default: "CreateTime",
        synonyms: &[same("log.message.timestamp.type")],
        documentation: "Whose time records carry: their producer's, or the broker's at the moment of the append.",
    },
    Setting {
        name: "min.cleanable.dirty.ratio",
        kind: Kind::Double { min: 0.0, max: 1.0 },
        default: "0.5",
        synonyms: &[same("log.cleaner.min.cleanable.ratio")],
        documentation: "Share of the log that must be uncompacted before compaction runs: how much disk may go to superseded \
            records against how often everything is read again.",
    },
    Setting {
        name: "min.compaction.lag.ms",
        kind: Kind::Long { min: 0 },
        default: "0",
        synonyms: &[ms("log.cleaner.min.compaction.lag.ms")],
        documentation: "A record younger than this is left alone by compaction.",
    },
    Setting {
        name: "min.insync.replicas",
        kind: Kind::Int { min: 1, max: i32::MAX, also: None },
        default: "1",
        synonyms: &[same("min.insync.replicas")],
        documentation: "Replicas that must be in sync for a write with acks=all to be taken. With fewer, producers are told so and \
            try again.",
    },
    Setting {
        name: "preallocate",
        kind: Kind::Boolean,
        default: "false",
        synonyms: &[same("log.preallocate")],
        documentation: "Accepted for Kafka's sake and without effect: how far files are written ahead follows from floodmark.sync.",
    },
    Setting {
        name: "remote.log.copy.disable",
        kind: Kind::Boolean,
        default: "false",
        synonyms: &[],
        documentation: "Accepted for Kafka's sake and without effect: there is no remote storage.",
    },
    Setting {
        name: "remote.log.delete.on.disable",
        kind: Kind::Boolean,
        default: "false",
        synonyms: &[],
        documentation: "Accepted for Kafka's sake and without effect: there is no remote storage.",
    },
    Setting {
        name: "remote.storage.enable",
        kind: Kind::OnlyFalse { because: "this broker has no remote storage" },
        default: "false",
        synonyms: &[],
        documentation: "Only \"false\" is taken: there is no remote storage.",
    },
    Setting {
        name: "retention.bytes",
        kind: Kind::Long { min: i64::MIN },
        default: "-1",
        synonyms: &[same("log.retention.bytes")],
        documentation: "Size of a partition beyond which its oldest segments are removed, where cleanup.policy names \"delete\". \
            Below 0: no limit.",
    },
    Setting {
        name: "retention.ms",
        kind: Kind::Long { min: -1 },
        default: "604800000",
        synonyms: &[ms("log.retention.ms"), minutes("log.retention.minutes"), hours("log.retention.hours")],
        documentation: "Age beyond which segments are removed, where cleanup.policy names \"delete\". -1: no limit.",
    },
    Setting {
        name: "segment.bytes",
        kind: Kind::Int { min: 1 << 20, max: i32::MAX, also: None },
        default: "1073741824",
        synonyms: &[same("log.segment.bytes")],
        documentation: "Size at which a partition's file is closed and the next one begun. Retention and compaction work by whole files.",
    },
    Setting {
        name: "segment.index.bytes",
        kind: Kind::Int { min: 4, max: i32::MAX, also: None },
        default: "10485760",
        synonyms: &[same("log.index.size.max.bytes")],
        documentation: "Size of an index, the key index among them, at which its segment is closed, whatever segment.bytes says.",
    },
    Setting {
        name: "segment.jitter.ms",
        kind: Kind::Long { min: 0 },
        default: "0",
        synonyms: &[ms("log.roll.jitter.ms"), hours("log.roll.jitter.hours")],
        documentation: "Up to this much is taken off segment.ms by chance, so that many partitions do not close their files at one moment.",
    },
    Setting {
        name: "segment.ms",
        kind: Kind::Long { min: 1 },
        default: "604800000",
        synonyms: &[ms("log.roll.ms"), hours("log.roll.hours")],
        documentation: "Age at which a partition's file is closed and the next one begun, however small it is.",
    },
    Setting {
        name: "unclean.leader.election.enable",
        kind: Kind::Boolean,
        default: "false",
        synonyms: &[same("unclean.leader.election.enable")],
        documentation: "Accepted for Kafka's sake and without effect: a replica that lacks acknowledged records is never elected by \
            itself. An operator may order it for one partition.",
    },
];
