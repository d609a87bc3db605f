//! What the broker's log says of a partition whose disk fails: a program of its own, as the lines of all threads are collected.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_proto::ids::{BrokerId, LeaderEpoch, Offset, TopicId};
use floodmark_replication::cluster::settings::{Layers, SyncPolicy, TopicSettings};
use floodmark_replication::partition::{
    AppendOptions, Duty, Isolation, PartitionError, PartitionHandle, PartitionId, Role,
};
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::SimDisk;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::group_commit::DiskThreads;
use floodmark_storage::log::{Log, LogContext};
use floodmark_storage::random::Random;
use floodmark_storage::{LogConfig, TailBudget};
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Keeps the lines of errors, each with all its fields.
#[derive(Default, Clone)]
struct Errors(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn open(disk: &SimDisk) -> PartitionHandle {
    let nothing = BTreeMap::new();
    let layers = Layers { topic: &nothing, broker: &nothing, cluster: &nothing, file: &nothing };
    let log = LogConfig { segment_bytes: 2_000, prewrite_bytes: 0, ..LogConfig::default() };
    let settings = TopicSettings {
        sync: SyncPolicy::Ack,
        log,
        ..TopicSettings::resolve(&layers, &LogConfig::default())
    };
    let duty = Duty {
        node: BrokerId(1),
        role: Role::Leader { epoch: LeaderEpoch(0) },
        replicas: Arc::new([BrokerId(1)]),
        isr: Arc::new([BrokerId(1)]),
        partition_epoch: 0,
        settings: Arc::new(settings),
    };
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::System,
        random: Random::seeded(1),
        tail_budget: TailBudget::new(1_000),
    };
    let log = Log::open(context, Path::new("logs/t-0"), duty.settings.log.clone()).unwrap().0;
    let topic_id = TopicId::from_bytes([7; 16]).unwrap();
    let name = PartitionId { topic_id, topic: "t".into(), index: 0 };
    PartitionHandle::new(name, log, &DiskThreads::start(2).unwrap(), duty)
}

fn append(partition: &PartitionHandle) -> Result<(), PartitionError> {
    let value = "x".repeat(700);
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: 1, key: None, value: Some(value.as_bytes()), headers: &[] };
    builder.push(&record).unwrap();
    let batch: RecordBatch = builder.build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let append = async {
            let appended = partition.append(vec![batch], AppendOptions::CLIENT).await?;
            partition.committed(appended.end, appended.epoch).await
        };
        tokio::time::timeout(Duration::from_secs(60), append).await.unwrap()
    })
}

#[test]
fn a_log_that_stops_is_told_once_and_reads_that_fail_are_told_with_what_failed() {
    let errors = Errors::default();
    tracing::subscriber::set_global_default(errors.clone()).unwrap();
    let take = || std::mem::take(&mut *errors.0.lock());
    let disk = SimDisk::new();
    let partition = open(&disk);
    for _ in 0..8 {
        append(&partition).unwrap();
    }
    assert_eq!(take(), [""; 0]);
    let fault = |on| {
        disk.inject(Fault { on, path_ends: ".log".into(), after: 0, times: 1_000, kind: FaultKind::Eio })
    };

    fault(FaultOn::Read);
    fault(FaultOn::Open);
    for _ in 0..5 {
        let read = partition.read(Offset(0), 1_000, Isolation::Uncommitted);
        assert!(matches!(read, Err(PartitionError::Storage(_))), "{read:?}");
    }
    partition.read(Offset(900), 1_000, Isolation::Uncommitted).unwrap_err();
    let [line] = &take()[..] else { panic!("one line of five reads") };
    for part in ["partition=t-0", "from=0", "logs/t-0/00000000000000000000.log"] {
        assert!(line.contains(part), "{line}");
    }

    fault(FaultOn::Sync);
    for _ in 0..3 {
        append(&partition).unwrap_err();
    }
    let [line] = &take()[..] else { panic!("one line of three appends") };
    for part in ["partition=t-0", "dir=logs/t-0", "failed", ".log", "restarted"] {
        assert!(line.contains(part), "{line}");
    }
}
