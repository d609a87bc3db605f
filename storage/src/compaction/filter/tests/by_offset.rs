//! In the part that was mapped a record's offset tells what its key would have told: the same logs put through a filter that asks for offsets
//! there, and through one that asks for keys to the end.

use proptest::prelude::*;

use super::*;

/// A batch as a log holds it.
type Stored = (BatchHeader, Vec<u8>);

#[derive(Debug, Clone)]
enum Op {
    /// Keys and whether they have a value, each so many offsets behind the one before; then offsets that nothing has, as an earlier pass leaves them.
    Put {
        records: Vec<(Option<u8>, bool, i32)>,
        codec: usize,
        end_gap: i32,
    },
    /// A part of a transaction.
    Transact {
        producer: i64,
        keys: Vec<u8>,
    },
    End {
        producer: i64,
        result: TransactionResult,
    },
    /// One whose last record cannot be read.
    Damaged {
        keys: Vec<u8>,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u8..8;
    let keys = prop::collection::vec(key.clone(), 1..5);
    let record = (prop::option::weighted(0.9, key), prop::bool::weighted(0.8), 1i32..3);
    let result = prop_oneof![Just(TransactionResult::Abort), Just(TransactionResult::Commit)];
    prop_oneof![
        8 => (prop::collection::vec(record, 1..6), 0..CompressionType::ALL.len(), 0i32..3)
            .prop_map(|(records, codec, end_gap)| Op::Put { records, codec, end_gap }),
        3 => (1i64..3, keys.clone()).prop_map(|(producer, keys)| Op::Transact { producer, keys }),
        3 => (1i64..3, result).prop_map(|(producer, result)| Op::End { producer, result }),
        1 => keys.prop_map(|keys| Op::Damaged { keys }),
    ]
}

/// The batches of a log, and its aborted transactions.
#[derive(Default)]
struct Written {
    batches: Vec<Stored>,
    end: i64,
    begun: HashMap<i64, i64>,
    aborted: Vec<AbortedTransaction>,
}

impl Written {
    fn run(&mut self, op: &Op) {
        let base = self.end;
        let put = |mut builder: BatchBuilder, records: &[(Option<u8>, bool, i32)]| {
            let mut delta = -1;
            for (key, has_value, step) in records {
                delta += step;
                let key = key.map(|key| [key]);
                let value = has_value.then_some(&b"value"[..]);
                let key = key.as_ref().map(|key| &key[..]);
                builder.push_at(delta, &NewRecord { timestamp: 1_000, key, value, headers: &[] }).unwrap();
            }
            builder
        };
        let of_keys = |keys: &[u8]| keys.iter().map(|key| (Some(*key), true, 1)).collect::<Vec<_>>();
        match op {
            Op::Put { records, codec, end_gap } => {
                let built = put(builder(base).compression(CompressionType::ALL[*codec], None), records);
                let last = records.iter().map(|(.., step)| step).sum::<i32>() - 1 + end_gap;
                self.push(&built.last_offset_delta(last).build().unwrap());
            }
            Op::Transact { producer, keys } => {
                self.begun.entry(*producer).or_insert(base);
                let begun = builder(base).producer(ProducerId(*producer), 0, base as i32).transactional(true);
                self.push(&put(begun, &of_keys(keys)).build().unwrap());
            }
            Op::End { producer, result } => {
                let Some(first) = self.begun.remove(producer) else { return };
                if *result == TransactionResult::Abort {
                    self.aborted.push(aborted(*producer, first, base));
                }
                self.push(&marker(base, *producer, *result));
            }
            Op::Damaged { keys } => {
                self.push(&put(builder(base), &of_keys(keys)).build().unwrap());
                // It claims a header.
                *self.batches.last_mut().unwrap().1.last_mut().unwrap() = 2;
            }
        }
    }

    fn push(&mut self, batch: &RecordBatch) {
        self.end = batch.header().next_offset().0;
        self.batches.push((*batch.header(), batch.as_bytes().to_vec()));
    }
}

/// As a pass maps the part from `first_dirty` on.
fn map(batches: &[Stored], first_dirty: i64, slots: usize, aborted: &AbortedTransactions) -> MappedKeys {
    let mut mapper = KeyMapper::new(OffsetMap::new(24 * slots, 100, (3, 4)), Offset(first_dirty), aborted);
    for (header, bytes) in batches {
        if header.last_offset() >= Offset(first_dirty) && mapper.add(bytes, header).is_err() {
            break;
        }
    }
    mapper.finish()
}

fn told(fate: &Fate) -> Option<(BatchHeader, Vec<u8>)> {
    match fate {
        Fate::Replace(header, bytes) => Some((*header, bytes.to_vec())),
        Fate::Keep | Fate::Drop => None,
    }
}

proptest! {
    #[test]
    fn an_offset_tells_what_a_key_tells(
        rounds in prop::collection::vec((prop::collection::vec(op(), 1..20), 1usize..14), 1..4),
        cut in 0.0f64..1.0,
        standings in prop::collection::vec((prop::bool::weighted(0.2), prop::bool::weighted(0.9)), 7),
    ) {
        let mut log = Written::default();
        let mut first_dirty = None;
        for (round, (ops, slots)) in (0i64..).zip(&rounds) {
            for op in ops {
                log.run(op);
            }
            // The first pass may begin anywhere, inside a batch too; later ones where the one before was out of memory.
            let from = *first_dirty.get_or_insert((log.end as f64 * cut) as i64);
            let transactions = AbortedTransactions::new(log.aborted.clone());
            let facts = || FilterFacts {
                keys: map(&log.batches, from, *slots, &transactions),
                aborted: transactions.clone(),
                ..super::facts(&[], 0, 400 * round)
            };
            let by_key = facts();
            first_dirty = Some(by_key.keys.covered.0);
            let mut by_key =
                BatchFilter::new(FilterFacts { keys: MappedKeys { first_dirty: Offset::MAX, ..by_key.keys }, ..by_key });
            let mut by_offset = BatchFilter::new(facts());
            let mut left = Vec::new();
            for ((header, bytes), (is_last_of_segment, may_grow)) in log.batches.iter().zip(standings.iter().cycle()) {
                let standing = Standing { is_last_of_segment: *is_last_of_segment, may_grow: *may_grow };
                let fates = [&mut by_key, &mut by_offset].map(|filter| filter.judge(bytes, header, standing));
                prop_assert_eq!(std::mem::discriminant(&fates[0]), std::mem::discriminant(&fates[1]), "{:?}", header);
                prop_assert_eq!(told(&fates[0]), told(&fates[1]));
                match &fates[1] {
                    Fate::Keep => left.push((*header, bytes.clone())),
                    Fate::Replace(header, bytes) => left.push((*header, bytes.to_vec())),
                    Fate::Drop => {}
                }
            }
            prop_assert_eq!(by_key.counts(), by_offset.counts());
            prop_assert_eq!(by_key.take_aborted(), by_offset.take_aborted());
            log.batches = left;
        }
    }
}

#[test]
fn a_key_is_asked_for_before_the_part_that_was_mapped_and_an_offset_in_it() {
    // "a" lies before that part, at 10, and in it; "b" before it alone.
    for (first_dirty, stays) in
        [(10, [false, false, true]), (11, [false, true, true]), (12, [false, true, true])]
    {
        let batch = with_records(builder(10), &[A, B, A]);
        let mut mapped = facts(&[("a", 12)], 20, 0);
        mapped.keys.first_dirty = Offset(first_dirty);
        let fate = judge(&mut BatchFilter::new(mapped), &batch, MIDDLE);
        let expected: Vec<_> =
            (10..).zip(stays).filter(|(_, stays)| *stays).map(|(at, _)| (at, 990 + at)).collect();
        assert_eq!(left(&fate), expected, "from {first_dirty}");
    }
}

#[test]
fn a_batch_whose_records_are_not_where_it_lies_is_kept_whole() {
    let none = AbortedTransactions::default();
    let mapped = |batches: &[&RecordBatch]| {
        let mut mapper = KeyMapper::new(OffsetMap::new(10_000, 100, (7, 8)), Offset(10), &none);
        for batch in batches {
            mapper.add(batch.as_bytes(), batch.header()).unwrap();
        }
        FilterFacts { keys: mapper.finish(), ..facts(&[], 0, 0) }
    };
    let good = with_records(builder(10), &[A, B, A]);
    let next = with_records(builder(13), &[(Some("c"), Some("3"))]);
    // The deltas of the first record and the second: behind the attributes and the time of each.
    let record_bytes = (good.as_bytes().len() - HEADER_LEN) / 3;
    let second = HEADER_LEN + record_bytes + 3;
    let cases = [
        ("falls", second, 0),
        ("below the batch", HEADER_LEN + 3, 1),
        ("past the batch", second + record_bytes, 2 * 9),
    ];
    for (case, at, delta) in cases {
        let mut bytes = good.as_bytes().to_vec();
        assert_eq!(bytes[at] % 2, 0);
        bytes[at] = delta;
        let mut filter = BatchFilter::new(mapped(&[&good, &next]));
        assert!(matches!(filter.judge(&bytes, good.header(), MIDDLE), Fate::Keep), "{case}");
        assert!(matches!(judge(&mut filter, &next, MIDDLE), Fate::Keep), "{case}");
        assert_eq!(filter.counts().batches_unreadable, 1, "{case}: the next one is judged as ever");
    }
    let mut filter = BatchFilter::new(mapped(&[&good, &next]));
    assert!(matches!(judge(&mut filter, &next, MIDDLE), Fate::Keep));
    assert!(matches!(judge(&mut filter, &good, MIDDLE), Fate::Keep), "after one that follows it");
    let before = with_records(builder(5), &[A]);
    assert!(matches!(judge(&mut filter, &before, MIDDLE), Fate::Keep), "after the table was given up");
    assert_eq!(filter.counts().batches_unreadable, 2);
}
