//! What is taken, what is changed, and what is refused, batch by batch.

use floodmark_proto::batch::NewRecord;
use floodmark_proto::ids::ProducerId;

use super::*;

const NOW: TimestampMs = 1_700_000_000_000;
const PLAIN: SentWith = SentWith { may_use_zstd: true, in_transaction: false, are_copies: false };

fn rules() -> IntakeRules {
    IntakeRules {
        max_batch_bytes: 1 << 20,
        is_compacted: false,
        is_event_store: false,
        is_log_append_time: false,
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        compression: None,
    }
}

fn builder(keys: &[Option<&[u8]>]) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    for (n, key) in (0..).zip(keys) {
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
        builder.push(&NewRecord { timestamp: NOW + n, key: *key, value: Some(b"value"), headers }).unwrap();
    }
    builder
}

fn bytes(builder: BatchBuilder) -> Option<BytesMut> {
    Some(BytesMut::from(builder.build().unwrap().as_bytes()))
}

fn taken(bytes: Option<BytesMut>, rules: &IntakeRules) -> Result<RecordBatch, Refusal> {
    take_in(bytes, PLAIN, rules, NOW, &mut Vec::new())
}

/// Key, value, time and headers of every record.
type Content = Vec<(Option<Vec<u8>>, Option<Vec<u8>>, TimestampMs, usize)>;

fn content(batch: &RecordBatch) -> Content {
    let mut scratch = Vec::new();
    let records = batch.records(&DecompressLimits::DEFAULT, &mut scratch).unwrap();
    let own = |r: floodmark_proto::batch::Record<'_>| {
        (r.key.map(<[u8]>::to_vec), r.value.map(<[u8]>::to_vec), r.timestamp, r.headers.len())
    };
    records.map(|r| own(r.unwrap())).collect()
}

#[test]
fn a_good_batch_keeps_its_bytes() {
    let sent = bytes(builder(&[Some(b"a"), None])).unwrap();
    let mut expected = sent.clone();
    expected[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    assert_eq!(taken(Some(sent), &rules()).unwrap().as_bytes(), &expected[..]);
}

#[test]
fn what_is_no_single_batch_is_refused() {
    let one = bytes(builder(&[None])).unwrap();
    let mut two = one.clone();
    two.extend_from_slice(&one);
    let mut old = one.clone();
    old[16] = 1;
    let mut short = one.clone();
    short.truncate(one.len() - 1);
    for (name, bad) in [
        ("null", None),
        ("empty", Some(BytesMut::new())),
        ("two", Some(two)),
        ("magic 1", Some(old)),
        ("short", Some(short)),
    ] {
        assert!(matches!(taken(bad, &rules()), Err(Refusal::Invalid(_))), "{name}");
    }
    let mut flipped = one;
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    assert!(matches!(taken(Some(flipped), &rules()), Err(Refusal::Corrupt(_))));
}

#[test]
fn the_limit_counts_the_batch_as_it_came() {
    let sent = bytes(builder(&[Some(b"a")])).unwrap();
    let limit = sent.len();
    assert!(taken(Some(sent.clone()), &IntakeRules { max_batch_bytes: limit, ..rules() }).is_ok());
    let refused = taken(Some(sent), &IntakeRules { max_batch_bytes: limit - 1, ..rules() });
    assert!(matches!(refused, Err(Refusal::TooLarge(_))), "{refused:?}");
}

#[test]
fn zstd_needs_a_request_that_knows_it() {
    let sent = || bytes(builder(&[Some(b"a")]).compression(CompressionType::Zstd, None));
    let old = SentWith { may_use_zstd: false, ..PLAIN };
    assert_eq!(take_in(sent(), old, &rules(), NOW, &mut Vec::new()), Err(Refusal::UnsupportedCompression));
    assert!(taken(sent(), &rules()).is_ok());
}

#[test]
fn a_transaction_is_named_by_request_and_batch_or_by_neither() {
    let in_transaction = || bytes(builder(&[None]).transactional(true).producer(ProducerId(7), 0, 0));
    assert!(matches!(taken(in_transaction(), &rules()), Err(Refusal::Transaction)));
    let named = SentWith { in_transaction: true, ..PLAIN };
    assert!(take_in(in_transaction(), named, &rules(), NOW, &mut Vec::new()).is_ok());
    let plain = bytes(builder(&[None]));
    assert!(matches!(take_in(plain, named, &rules(), NOW, &mut Vec::new()), Err(Refusal::Transaction)));
}

#[test]
fn a_compacted_topic_names_the_records_without_key() {
    let rules = IntakeRules { is_compacted: true, ..rules() };
    let refused = taken(bytes(builder(&[Some(b"a"), None, Some(b"c"), None])), &rules).unwrap_err();
    let Refusal::NoKey(named) = refused else { panic!("{refused:?}") };
    assert_eq!(named.iter().map(|n| n.index).collect::<Vec<_>>(), [1, 3]);
    assert!(taken(bytes(builder(&[Some(b"a"), Some(b"")])), &rules).is_ok());
}

#[test]
fn a_maximum_that_was_left_unset_is_found() {
    let sent = bytes(builder(&[None, None, None]).max_timestamp(-1));
    let batch = taken(sent, &rules()).unwrap();
    assert_eq!(batch.header().max_timestamp, NOW + 2);
    RecordBatch::from_stored(BytesMut::from(batch.as_bytes())).unwrap();
}

#[test]
fn log_append_time_is_the_brokers_and_keeps_the_records() {
    let rules = IntakeRules { is_log_append_time: true, ..rules() };
    let batch = taken(bytes(builder(&[None, None])), &rules).unwrap();
    assert!(batch.header().attributes.is_log_append_time());
    assert_eq!(content(&batch).iter().map(|r| r.2).collect::<Vec<_>>(), [NOW, NOW]);
    RecordBatch::from_stored(BytesMut::from(batch.as_bytes())).unwrap();
}

#[test]
fn another_codec_keeps_every_record() {
    let codecs = [
        CompressionType::None,
        CompressionType::Gzip,
        CompressionType::Snappy,
        CompressionType::Lz4,
        CompressionType::Zstd,
    ];
    for from in codecs {
        for to in codecs {
            let sent = || {
                builder(&[Some(b"a"), None, Some(b"")]).compression(from, None).producer(ProducerId(3), 1, 9)
            };
            let before = sent().build().unwrap();
            let rules = IntakeRules { compression: Some((to, None)), ..rules() };
            let after = taken(bytes(sent()), &rules).unwrap();
            assert_eq!(after.header().attributes.compression(), Some(to), "{from:?} to {to:?}");
            assert_eq!(content(&after), content(&before), "{from:?} to {to:?}");
            let kept = |b: &RecordBatch| {
                (b.header().producer_id, b.header().base_sequence, b.header().max_timestamp)
            };
            assert_eq!(kept(&after), kept(&before), "{from:?} to {to:?}");
        }
    }
}

#[test]
fn times_out_of_range_are_refused() {
    let rules = IntakeRules { before_max_ms: 1000, after_max_ms: 1000, ..rules() };
    let sent_at = |timestamp| {
        let mut builder = BatchBuilder::new();
        builder.push(&NewRecord { timestamp, key: None, value: None, headers: &[] }).unwrap();
        bytes(builder)
    };
    for (timestamp, is_good) in
        [(NOW - 1000, true), (NOW - 1001, false), (NOW + 1000, true), (NOW + 1001, false), (-1, true)]
    {
        let outcome = taken(sent_at(timestamp), &rules);
        assert_eq!(outcome.is_ok(), is_good, "{timestamp}: {outcome:?}");
    }
    let by_broker = IntakeRules { is_log_append_time: true, ..rules };
    assert!(taken(sent_at(0), &by_broker).is_ok(), "the broker's time is the one that counts");
}
