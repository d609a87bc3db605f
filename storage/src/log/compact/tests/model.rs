//! Random records, transactions, rolls, passes and crashes against a plain list.

use floodmark_proto::batch::CompressionType;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    /// Keys, with or without a value, under a codec.
    Put(Vec<(u8, bool)>, usize),
    Transact {
        producer: i64,
        keys: Vec<u8>,
        commits: bool,
    },
    Settle,
    Compact,
    Wait(i64),
    Reopen,
    DeleteHead(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u8..6;
    prop_oneof![
        6 => (prop::collection::vec((key.clone(), prop::bool::weighted(0.8)), 1..6), 0usize..5)
            .prop_map(|(records, codec)| Op::Put(records, codec)),
        3 => (1i64..3, prop::collection::vec(key, 1..4), any::<bool>())
            .prop_map(|(producer, keys, commits)| Op::Transact { producer, keys, commits }),
        3 => Just(Op::Settle),
        3 => Just(Op::Compact),
        1 => (1i64..2 * RETENTION_MS).prop_map(Op::Wait),
        1 => Just(Op::Reopen),
        1 => any::<u8>().prop_map(Op::DeleteHead),
    ]
}

struct Model {
    f: Fixture,
    /// Everything committed that was ever written, by offset.
    written: Vec<Row>,
    /// Where the head was cut off.
    start: i64,
    sequences: [i32; 3],
    serial: u32,
}

impl Model {
    fn value(&mut self) -> String {
        self.serial += 1;
        format!("{}{}", self.serial, "v".repeat(self.serial as usize % 90))
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Put(keys, codec) => {
                let records: Vec<(String, Option<String>)> = keys
                    .iter()
                    .map(|(key, has_value)| (format!("k{key}"), has_value.then(|| self.value())))
                    .collect();
                let builder = BatchBuilder::new().compression(CompressionType::ALL[*codec], None);
                self.write(builder, &records, true);
            }
            Op::Transact { producer, keys, commits } => {
                let records: Vec<_> = keys.iter().map(|k| (format!("k{k}"), Some(self.value()))).collect();
                let sequence = &mut self.sequences[*producer as usize];
                let builder =
                    BatchBuilder::new().producer(ProducerId(*producer), 0, *sequence).transactional(true);
                *sequence += records.len() as i32;
                self.write(builder, &records, *commits);
                let end = if *commits { TransactionResult::Commit } else { TransactionResult::Abort };
                self.f.append(marker(*producer, end, self.f.clock.now_ms()));
            }
            Op::Settle => self.f.settle(),
            Op::Compact => {
                let report = self.f.log.compact(CompactWhen::Asked, CompactionControl::default()).unwrap();
                assert!(
                    report
                        .is_none_or(|r| r.end == CompactionEnd::Complete && r.counts.batches_unreadable == 0)
                );
            }
            Op::Wait(ms) => self.f.clock.advance_ms(*ms),
            Op::Reopen => {
                self.f.log.sync().unwrap();
                self.f.reopen();
            }
            Op::DeleteHead(share) => {
                let (start, end) = (self.f.log.start().0, self.f.log.end().0);
                let to = start + (end - start) * i64::from(*share) / 1_024;
                self.f.log.on_high_watermark(Offset(end));
                self.f.log.delete_before(Offset(to)).unwrap();
                self.start = self.start.max(to);
            }
        }
    }

    fn write(&mut self, builder: BatchBuilder, records: &[(String, Option<String>)], is_committed: bool) {
        let now_ms = self.f.clock.now_ms();
        let borrowed: Vec<_> = records.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        let base = self.f.append(batch(builder, now_ms, &borrowed)).0;
        if is_committed {
            let rows =
                records.iter().zip(base..).map(|((k, v), offset)| (offset, k.clone(), v.clone(), now_ms));
            self.written.extend(rows);
        }
    }

    fn check(&self, when: &Op) -> Result<(), TestCaseError> {
        let rows = self.f.rows();
        prop_assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
        for row in rows.iter().filter(|r| r.0 >= self.start) {
            prop_assert!(self.written.contains(row), "{:?} was never written ({:?})", row, when);
        }
        let live =
            |rows: &[Row]| newest(&rows.iter().filter(|r| r.0 >= self.start).cloned().collect::<Vec<_>>());
        prop_assert_eq!(live(&rows), live(&self.written), "after {:?}", when);
        let dirty = self.f.log.manifest.first_dirty.0;
        let mut clean: Vec<_> =
            rows.iter().filter(|r| r.0 < dirty && r.0 >= self.start).map(|r| &r.1).collect();
        let count = clean.len();
        clean.sort_unstable();
        clean.dedup();
        prop_assert_eq!(clean.len(), count, "a key twice in the clean part");
        let next = headers(&self.f.log.reader()).last().map_or(self.f.log.start(), BatchHeader::next_offset);
        prop_assert!(next == self.f.log.end() || next <= self.f.log.start());
        prop_assert_eq!(self.f.disk.violations(), Vec::<String>::new());
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_log_answers_as_a_list_of_all_its_records_does(ops in prop::collection::vec(op(), 1..60), keys_at_once in 2usize..40) {
        let mut config = config();
        config.segment_bytes = 900;
        if let Some(compaction) = &mut config.compaction {
            compaction.map_bytes = keys_at_once * 24;
        }
        let f = Fixture::with(SimDisk::new(), config);
        let mut model = Model { f, written: Vec::new(), start: 0, sequences: [0; 3], serial: 0 };
        for op in &ops {
            model.run(op);
            model.check(op)?;
        }
    }
}
