//! Answers that wait while the log is cut beneath them, and others come to lie in their place.

use std::path::Path;
use std::sync::Arc;

use floodmark_proto::batch::{BatchBuilder, NewRecord, RecordBatch};
use floodmark_proto::ids::LeaderEpoch;

use super::*;
use crate::clock::Clock;
use crate::config::LogConfig;
use crate::fs::sim::{Fault, FaultKind, FaultOn};
use crate::fs::{Disk, SimDisk};
use crate::log::LogContext;
use crate::log::append::AppendAs;
use crate::log::tail_cache::TailBudget;
use crate::producers::Origin;
use crate::random::Random;

type Said = Vec<(&'static str, &'static str)>;

struct Waits {
    disk: SimDisk,
    log: Log,
    receipts: Receipts,
    said: Arc<Mutex<Said>>,
}

impl Waits {
    /// A log in which what is appended waits.
    fn new() -> Waits {
        let disk = SimDisk::new();
        disk.create_dir_all(Path::new("logs")).unwrap();
        let context = LogContext {
            disk: Arc::new(disk.clone()),
            clock: Clock::manual(1_000),
            random: Random::seeded(1),
            tail_budget: TailBudget::new(0),
        };
        let mut log = Log::open(context, Path::new("logs/t-0"), LogConfig::default()).unwrap().0;
        assert!(log.begin_staging().unwrap());
        Waits { disk, log, receipts: Receipts::default(), said: Arc::default() }
    }

    fn append(&mut self) -> Receipt {
        let leader = AppendAs::Leader { epoch: LeaderEpoch(0), origin: Origin::Client };
        super::super::receipt_of(self.log.append([batch()], leader).unwrap())
    }

    /// One that is told by this name.
    fn append_as(&mut self, name: &'static str) {
        let receipt = self.append();
        let said = Arc::clone(&self.said);
        let then: Then<Receipt> = Box::new(move |outcome| said.lock().push((name, word_for(outcome))));
        self.receipts.keep(&self.log, receipt, Answer::new(then));
    }

    fn look(&mut self) {
        self.receipts.look_through(&mut self.log);
    }

    /// What was said since it was last asked, in the order of the names.
    fn said(&mut self) -> Said {
        self.receipts.tell();
        let mut said = std::mem::take(&mut *self.said.lock());
        said.sort_by_key(|(name, _)| *name);
        said
    }
}

fn word_for(outcome: Result<Receipt, LogError>) -> &'static str {
    match outcome {
        Ok(_) => "kept",
        Err(LogError::Full { .. }) => "no space",
        Err(LogError::Abandoned) => "gone",
        Err(LogError::Closed) => "closed",
        Err(_) => "another reason",
    }
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(b"value"), headers: &[] }).unwrap();
    builder.build().unwrap()
}

#[test]
fn who_is_taken_back_behind_one_that_still_waits_is_told_so_before_others_lie_there() {
    let mut waits = Waits::new();
    waits.append_as("first");
    // Its piece is written, and the rest of it takes its time.
    let checkpoint = waits.log.begin_checkpoint().unwrap();
    let slow = checkpoint.run();
    waits.append_as("second");
    waits.append_as("third");
    let fault = Fault {
        on: FaultOn::Write,
        path_ends: ".log".to_owned(),
        after: 0,
        times: 1,
        kind: FaultKind::NoSpace,
    };
    waits.disk.inject(fault);
    assert!(matches!(waits.log.sync(), Err(LogError::Full { .. })));
    assert_eq!((waits.log.end(), waits.log.durable()), (Offset(1), Offset(0)));
    waits.look();
    assert_eq!(waits.said(), [("second", "no space"), ("third", "no space")]);
    waits.log.finish_sync(checkpoint, slow).unwrap();
    for _ in 0..5 {
        waits.append();
    }
    waits.log.sync().unwrap();
    waits.look();
    assert_eq!(waits.said(), [("first", "kept")]);
    assert!(waits.receipts.is_empty());
}

#[test]
fn who_waits_for_what_a_reset_removes_is_not_told_that_it_is_there() {
    let mut waits = Waits::new();
    waits.append_as("first");
    waits.log.reset_to(Offset(5_000)).unwrap();
    waits.append();
    waits.look();
    assert_eq!(waits.said(), [("first", "gone")]);
}

#[test]
fn who_waits_for_a_log_that_stops_is_told_why_unless_his_records_are_there() {
    let mut waits = Waits::new();
    waits.append_as("first");
    waits.log.sync().unwrap();
    waits.append_as("second");
    waits.log.end_abruptly();
    waits.look();
    assert_eq!(waits.said(), [("first", "kept"), ("second", "closed")]);
}
