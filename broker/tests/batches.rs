//! Batches as no honest producer sends them, by a table: what each is told, that nothing of it is in the log, how much memory it may
//! cost, and that another connection is served meanwhile. Alone in its program, since it looks at the process's memory.
#![allow(clippy::disallowed_methods, reason = "the test looks at the process from outside")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod kafka_client;
mod wire;

use floodmark_proto::batch::crc32c::batch_crc;
use floodmark_proto::batch::{BatchBuilder, CompressionType, NewRecord};
use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::produce::ProduceResponse;

use kafka_client::{Kafka, batch, batch_of, produce_request, produced};
use wire::{Client, Fate, PATIENCE, broker, frame};

/// Any topic: records are not looked at one by one (docs/adr/0008).
const PLAIN: &str = "plain";
/// A compacted topic: each record is decoded, since it must have a key.
const DECODED: &str = "decoded";
/// Its segments are smaller than the batches that it takes.
const SMALL: &str = "small";
/// Times may be off by an hour.
const TIMED: &str = "timed";

const BOMB_BYTES: usize = 96 << 20;

struct Row {
    what: &'static str,
    topic: &'static str,
    bytes: Vec<u8>,
    code: ErrorCode,
    /// What may be held beyond the request itself.
    memory_bytes_max: usize,
}

fn row(what: &'static str, topic: &'static str, bytes: Vec<u8>, code: ErrorCode) -> Row {
    Row { what, topic, bytes, code, memory_bytes_max: 8 << 20 }
}

/// A batch with some of its bytes changed and a CRC that says that they are right.
fn forged(mut bytes: Vec<u8>, at: usize, to: &[u8]) -> Vec<u8> {
    bytes[at..at + to.len()].copy_from_slice(to);
    sealed(bytes)
}

fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = batch_crc(&bytes);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// A batch that says that it holds `count` records and whose records are these bytes, as they are or in a codec.
fn with_payload(count: i32, codec: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = batch(&[b"x"]);
    bytes.truncate(61);
    bytes.extend(payload);
    let length = i32::try_from(bytes.len() - 12).unwrap();
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = codec;
    bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    bytes[57..61].copy_from_slice(&count.to_be_bytes());
    sealed(bytes)
}

fn keyed() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let timestamp = 1_700_000_000_000;
    builder.push(&NewRecord { timestamp, key: Some(b"k"), value: Some(b"v"), headers: &[] }).unwrap();
    builder.build().unwrap().as_bytes().to_vec()
}

fn bomb(codec: CompressionType) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compression(codec, None);
    let value = vec![0; BOMB_BYTES];
    let timestamp = 1_700_000_000_000;
    builder.push(&NewRecord { timestamp, key: Some(b"k"), value: Some(&value), headers: &[] }).unwrap();
    builder.build().unwrap().as_bytes().to_vec()
}

/// Rows about the bounds of a batch and of its counts.
fn header_rows() -> Vec<Row> {
    use ErrorCode::{CorruptMessage, InvalidRecord, None as Taken};
    let one = || batch(&[b"value"]);
    let three = || batch(&[b"a", b"b", b"c"]);
    let plain = |what, bytes, code| row(what, PLAIN, bytes, code);
    let cut = |len: usize| one()[..len].to_vec();
    vec![
        plain("a batch", one(), Taken),
        plain("nothing", Vec::new(), InvalidRecord),
        plain("one byte", cut(1), InvalidRecord),
        plain("half a header", cut(30), InvalidRecord),
        plain("a header alone", cut(61), InvalidRecord),
        plain("all but the last byte", cut(one().len() - 1), InvalidRecord),
        plain("a byte too many", [one(), vec![0]].concat(), InvalidRecord),
        plain("two batches", [one(), one()].concat(), InvalidRecord),
        plain("magic 0", forged(one(), 16, &[0]), InvalidRecord),
        plain("magic 1", forged(one(), 16, &[1]), InvalidRecord),
        plain("magic 3", forged(one(), 16, &[3]), InvalidRecord),
        plain("magic -1", forged(one(), 16, &[0xff]), InvalidRecord),
        plain(
            "a wrong CRC",
            {
                let mut bytes = one();
                bytes[17] ^= 1;
                bytes
            },
            CorruptMessage,
        ),
        plain(
            "a flipped bit in a value",
            {
                let mut bytes = one();
                *bytes.last_mut().unwrap() ^= 4;
                bytes
            },
            CorruptMessage,
        ),
        plain("a length of 0", forged(one(), 8, &0i32.to_be_bytes()), InvalidRecord),
        plain("a length of -1", forged(one(), 8, &(-1i32).to_be_bytes()), InvalidRecord),
        plain("a length of 2^31-1", forged(one(), 8, &i32::MAX.to_be_bytes()), ErrorCode::MessageTooLarge),
        plain(
            "a length one short",
            forged(one(), 8, &(one().len() as i32 - 13).to_be_bytes()),
            InvalidRecord,
        ),
        plain("a length one over", forged(one(), 8, &(one().len() as i32 - 11).to_be_bytes()), InvalidRecord),
        plain("offsets of its own, which mean nothing", forged(one(), 0, &i64::MAX.to_be_bytes()), Taken),
        plain("a negative offset, which means nothing", forged(one(), 0, &i64::MIN.to_be_bytes()), Taken),
        plain("a leader epoch, which means nothing", forged(one(), 12, &i32::MAX.to_be_bytes()), Taken),
        plain("a last offset below the count", forged(three(), 23, &1i32.to_be_bytes()), InvalidRecord),
        plain("a last offset above the count", forged(three(), 23, &3i32.to_be_bytes()), InvalidRecord),
        plain("a negative last offset", forged(three(), 23, &(-1i32).to_be_bytes()), InvalidRecord),
        plain("the largest last offset", forged(three(), 23, &i32::MAX.to_be_bytes()), InvalidRecord),
        plain("no records", with_payload(0, 0, b""), InvalidRecord),
        plain("a negative count", forged(three(), 57, &(-1i32).to_be_bytes()), InvalidRecord),
        plain("2^31-1 records in a few bytes", with_payload(i32::MAX, 0, &[0; 30]), InvalidRecord),
        plain("10^6 records in a few bytes", with_payload(1_000_000, 0, &[0; 30]), InvalidRecord),
        plain("2^31-1 records in a few bytes of zstd", with_payload(i32::MAX, 4, &[0; 30]), InvalidRecord),
    ]
}

/// Rows about what a header says of its records: attributes, codec, producer, times.
fn attribute_rows() -> Vec<Row> {
    use ErrorCode::{InvalidRecord, None as Taken};
    let one = || batch(&[b"value"]);
    let plain = |what, bytes, code| row(what, PLAIN, bytes, code);
    let producer = |id: i64, epoch: i16, sequence: i32| {
        let bytes = forged(one(), 43, &id.to_be_bytes());
        forged(forged(bytes, 51, &epoch.to_be_bytes()), 53, &sequence.to_be_bytes())
    };
    vec![
        plain("a control batch", forged(one(), 21, &0x20i16.to_be_bytes()), InvalidRecord),
        plain(
            "a transaction that nobody began",
            forged(producer(7, 0, 0), 21, &0x10i16.to_be_bytes()),
            ErrorCode::TransactionalIdAuthorizationFailed,
        ),
        plain("a transaction without a producer", forged(one(), 21, &0x10i16.to_be_bytes()), InvalidRecord),
        plain(
            "a control batch in a transaction",
            forged(producer(7, 0, 0), 21, &0x30i16.to_be_bytes()),
            InvalidRecord,
        ),
        plain("a delete horizon", forged(one(), 21, &0x40i16.to_be_bytes()), InvalidRecord),
        plain("the broker's time", forged(one(), 21, &0x08i16.to_be_bytes()), InvalidRecord),
        plain("a reserved bit", forged(one(), 21, &0x80i16.to_be_bytes()), InvalidRecord),
        plain("the last reserved bit", forged(one(), 21, &i16::MIN.to_be_bytes()), InvalidRecord),
        plain("codec 5", with_payload(1, 5, b"12345678"), InvalidRecord),
        plain("codec 6", with_payload(1, 6, b"12345678"), InvalidRecord),
        plain("codec 7", with_payload(1, 7, b"12345678"), InvalidRecord),
        plain("gzip of nothing", with_payload(1, 1, b""), InvalidRecord),
        plain("snappy of nothing", with_payload(1, 2, b""), InvalidRecord),
        plain("lz4 of nothing", with_payload(1, 3, b""), InvalidRecord),
        plain("zstd of nothing", with_payload(1, 4, b""), InvalidRecord),
        plain("a producer without a sequence", producer(7, 0, -1), InvalidRecord),
        plain("a producer without an epoch", producer(7, -1, 0), InvalidRecord),
        plain("a producer of id -2", producer(-2, 0, 0), InvalidRecord),
        plain("a producer of the smallest sequence", producer(7, 0, i32::MIN), InvalidRecord),
        plain("no producer, and yet an epoch and a sequence", producer(-1, 3, 9), Taken),
        plain("the largest producer id", producer(i64::MAX, i16::MAX, 0), Taken),
        plain("the smallest time", forged(one(), 27, &i64::MIN.to_be_bytes()), InvalidRecord),
        plain(
            "the largest time, where the topic allows it",
            forged(forged(one(), 35, &i64::MAX.to_be_bytes()), 27, &i64::MAX.to_be_bytes()),
            Taken,
        ),
        row(
            "the largest time",
            TIMED,
            forged(one(), 35, &i64::MAX.to_be_bytes()),
            ErrorCode::InvalidTimestamp,
        ),
        row(
            "a time long ago",
            TIMED,
            forged(forged(one(), 35, &1i64.to_be_bytes()), 27, &1i64.to_be_bytes()),
            ErrorCode::InvalidTimestamp,
        ),
        row(
            "no time",
            TIMED,
            forged(forged(one(), 35, &(-1i64).to_be_bytes()), 27, &(-1i64).to_be_bytes()),
            Taken,
        ),
    ]
}

/// Rows about records, which only some topics look at.
fn record_rows() -> Vec<Row> {
    use ErrorCode::{InvalidRecord, None as Taken};
    let mut rows = Vec::new();
    // Length, attributes, time delta, offset delta, key, value, headers.
    let records: [(&str, i32, &[u8]); 16] = [
        ("an offset delta below zero", 1, &[16, 0, 0, 1, 2, b'k', 2, b'v', 0]),
        ("an offset delta of 2^31-1", 1, &[24, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0x0f, 2, b'k', 2, b'v', 0]),
        (
            "an offset delta of six bytes",
            1,
            &[26, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 2, b'k', 2, b'v', 0],
        ),
        ("the same offset twice", 2, &[16, 0, 0, 0, 2, b'k', 2, b'v', 0, 16, 0, 0, 0, 2, b'k', 2, b'v', 0]),
        ("fewer records than the header says", 2, &[16, 0, 0, 0, 2, b'k', 2, b'v', 0]),
        (
            "more records than the header says",
            1,
            &[16, 0, 0, 0, 2, b'k', 2, b'v', 0, 16, 0, 0, 2, 2, b'k', 2, b'v', 0],
        ),
        ("a negative record length", 1, &[1, 0, 0, 0, 2, b'k', 2, b'v', 0]),
        ("a record longer than the batch", 1, &[0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 2, b'k', 2, b'v', 0]),
        ("a key longer than the record", 1, &[16, 0, 0, 0, 0x7e, b'k', 2, b'v', 0]),
        ("a key of length -2", 1, &[16, 0, 0, 0, 3, b'k', 2, b'v', 0]),
        ("2^31-1 headers", 1, &[24, 0, 0, 0, 2, b'k', 2, b'v', 0xfe, 0xff, 0xff, 0xff, 0x0f]),
        ("-1 headers", 1, &[16, 0, 0, 0, 2, b'k', 2, b'v', 1]),
        ("a header key that is null", 1, &[20, 0, 0, 0, 2, b'k', 2, b'v', 2, 1, 1]),
        ("bytes behind the headers", 1, &[18, 0, 0, 0, 2, b'k', 2, b'v', 0, 0]),
        (
            "a time delta that overflows",
            1,
            &[34, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 2, b'k', 2, b'v', 0],
        ),
        ("neither key nor value", 1, &[12, 0, 0, 0, 1, 1, 0]),
    ];
    for (what, count, payload) in records {
        rows.push(row(what, DECODED, with_payload(count, 0, payload), InvalidRecord));
    }
    // Where nobody looks, they are bytes like others: what came is what is given out.
    rows.push(row("2^31-1 headers, unseen", PLAIN, with_payload(1, 0, records[10].2), Taken));
    rows.push(row("neither key nor value, unseen", PLAIN, with_payload(1, 0, records[15].2), Taken));
    rows.push(row("a record with a key", DECODED, keyed(), Taken));
    let mut member = Vec::new();
    let payload = [16, 0, 0, 0, 2, b'k', 2, b'v', 0];
    floodmark_proto::batch::compression::compress(CompressionType::Gzip, None, &payload, &mut member)
        .unwrap();
    rows.push(row("one gzip member", DECODED, with_payload(1, 1, &member), Taken));
    rows.push(row(
        "two gzip members",
        DECODED,
        with_payload(1, 1, &[&member[..], &member].concat()),
        InvalidRecord,
    ));
    for codec in 1..=4 {
        rows.push(row(
            "bytes that are not of the codec",
            DECODED,
            with_payload(1, codec, &[0xa5; 64]),
            InvalidRecord,
        ));
    }
    rows.push(row(
        "larger than the topic takes",
        PLAIN,
        batch(&[&vec![7; 17 << 20]]),
        ErrorCode::MessageTooLarge,
    ));
    rows.push(row(
        "larger than a segment",
        SMALL,
        batch(&[&vec![7; 2 << 20]]),
        ErrorCode::RecordListTooLarge,
    ));
    rows
}

/// 96 MiB of zeros. Where records must be seen they are decoded up to a limit, for which memory is taken twice at most while it grows.
fn bomb_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for codec in [CompressionType::Gzip, CompressionType::Snappy, CompressionType::Lz4, CompressionType::Zstd]
    {
        let bytes = bomb(codec);
        rows.push(row("a bomb, unseen", PLAIN, bytes.clone(), ErrorCode::None));
        let refused =
            Row { memory_bytes_max: 144 << 20, ..row("a bomb", DECODED, bytes, ErrorCode::InvalidRecord) };
        rows.push(refused);
    }
    rows
}

fn status_bytes(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// From here on the peak counts anew.
fn forget_peak() -> usize {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status_bytes("VmRSS:")
}

fn topics(kafka: &mut Kafka) {
    let large = ("max.message.bytes", "16777216");
    let any_time = ("message.timestamp.after.max.ms", "9223372036854775807");
    assert_eq!(kafka.create_topic(PLAIN, 1, &[large, any_time]).unwrap(), 0);
    assert_eq!(kafka.create_topic(DECODED, 1, &[large, ("cleanup.policy", "compact")]).unwrap(), 0);
    assert_eq!(kafka.create_topic(SMALL, 1, &[large, ("segment.bytes", "1048576")]).unwrap(), 0);
    let hour = "3600000";
    let timed = [("message.timestamp.before.max.ms", hour), ("message.timestamp.after.max.ms", hour)];
    assert_eq!(kafka.create_topic(TIMED, 1, &timed).unwrap(), 0);
}

#[test]
fn bad_batches_are_refused_by_name_and_cost_little() {
    let broker = broker(&[]);
    let mut kafka = Kafka::connect(broker.kafka_address()).unwrap();
    let mut other = Client::connect(broker.kafka_address());
    topics(&mut kafka);
    let mut wrong = Vec::new();
    let rows = header_rows().into_iter().chain(attribute_rows()).chain(record_rows()).chain(bomb_rows());
    for (n, row) in rows.enumerate() {
        let Row { what, topic, bytes, code, memory_bytes_max } = row;
        let end = kafka.offset_at(topic, 0, -1).unwrap();
        let before = forget_peak();
        let answer = kafka.produce(topic, 0, -1, &bytes).unwrap();
        let taken = status_bytes("VmHWM:").saturating_sub(before);
        if answer.error_code != code.code() {
            wrong.push(format!("{what}: {:?}, not {code:?}", ErrorCode::from_code(answer.error_code)));
            continue;
        }
        // The request is written by this process as well, in pieces and whole, and read into another buffer.
        assert!(taken <= memory_bytes_max + 5 * bytes.len(), "{what}: {taken} bytes");
        let is_taken = code == ErrorCode::None;
        let expected_end = if is_taken {
            end + i64::from(i32::from_be_bytes(bytes[57..61].try_into().unwrap()))
        } else {
            end
        };
        assert_eq!(kafka.offset_at(topic, 0, -1).unwrap(), expected_end, "{what}");
        assert_eq!(answer.base_offset, if is_taken { end } else { -1 }, "{what}");
        assert_eq!(answer.message.is_some(), !is_taken, "{what}: {answer:?}");
        assert!(other.is_served(n as i32), "{what}: another connection suffers");
        // Without an acknowledgement the connection is what tells it.
        if !is_taken && bytes.len() < 1 << 20 {
            let (_, request) = kafka.frame(9, &produce_request(topic, 0, 0, Some(&bytes)));
            let mut unacknowledged = Client::connect(broker.kafka_address());
            unacknowledged.send(&request);
            assert_eq!(unacknowledged.fate(PATIENCE), Fate::Closed, "{what}");
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    sequences(&mut kafka);
    requests(&mut kafka);
    internal_topics(&mut kafka, &broker);
}

/// Numbers of an idempotent producer, one after the other.
fn sequences(kafka: &mut Kafka) {
    use ErrorCode::{InvalidProducerEpoch, None as Taken, OutOfOrderSequenceNumber};
    let mut send = |(epoch, sequence, count): (i16, i32, usize), code: ErrorCode| {
        let builder = BatchBuilder::new().producer(ProducerId(4711), epoch, sequence);
        let bytes = batch_of(builder, &vec![&b"v"[..]; count]);
        let answer = kafka.produce(PLAIN, 0, -1, &bytes).unwrap();
        assert_eq!(answer.error_code, code.code(), "{epoch}, {sequence}: {answer:?}");
        answer.base_offset
    };
    let first = send((3, i32::MAX, 2), Taken);
    assert_eq!(send((3, i32::MAX, 2), Taken), first, "a retry is told where it is");
    send((3, 0, 1), OutOfOrderSequenceNumber);
    send((3, i32::MAX, 1), OutOfOrderSequenceNumber);
    assert_eq!(send((3, 1, 1), Taken), first + 2, "numbers go on behind the largest one");
    send((3, 3, 1), OutOfOrderSequenceNumber);
    send((2, 2, 1), InvalidProducerEpoch);
    send((4, 2, 1), OutOfOrderSequenceNumber);
    send((4, 0, 1), Taken);
    send((3, 2, 1), InvalidProducerEpoch);
    send((i16::MAX, 0, 1), Taken);
}

/// What is wrong with the request rather than with the batch.
fn requests(kafka: &mut Kafka) {
    let one = batch(&[b"v"]);
    for (topic, partition, acks, code) in [
        (PLAIN, 1, -1, ErrorCode::UnknownTopicOrPartition),
        (PLAIN, -1, -1, ErrorCode::UnknownTopicOrPartition),
        (PLAIN, i32::MAX, -1, ErrorCode::UnknownTopicOrPartition),
        (PLAIN, i32::MIN, -1, ErrorCode::UnknownTopicOrPartition),
        ("missing", 0, -1, ErrorCode::UnknownTopicOrPartition),
        ("", 0, -1, ErrorCode::UnknownTopicOrPartition),
        ("../plain", 0, -1, ErrorCode::UnknownTopicOrPartition),
        (PLAIN, 0, 2, ErrorCode::InvalidRequiredAcks),
        (PLAIN, 0, -2, ErrorCode::InvalidRequiredAcks),
        (PLAIN, 0, i16::MAX, ErrorCode::InvalidRequiredAcks),
        (PLAIN, 0, 1, ErrorCode::None),
    ] {
        let answer = kafka.produce(topic, partition, acks, &one).unwrap();
        assert_eq!(answer.error_code, code.code(), "{topic}-{partition}, acks {acks}");
    }
    // No records at all, a name for a transaction, zstd for whom cannot know it.
    let told = |kafka: &mut Kafka, version, request: &_| {
        let answer = kafka.ask(version, request).unwrap();
        ErrorCode::from_code(produced(&answer.read::<ProduceResponse<'_>>()).error_code).unwrap()
    };
    let request = produce_request(PLAIN, 0, -1, None);
    assert_eq!(told(kafka, 9, &request), ErrorCode::InvalidRecord);
    let mut request = produce_request(PLAIN, 0, -1, Some(&one));
    request.transactional_id = Some("t");
    assert_eq!(told(kafka, 9, &request), ErrorCode::InvalidTxnState);
    let zstd = batch_of(BatchBuilder::new().compression(CompressionType::Zstd, None), &[b"v"]);
    let request = produce_request(PLAIN, 0, -1, Some(&zstd));
    assert_eq!(told(kafka, 6, &request), ErrorCode::UnsupportedCompressionType);
    assert_eq!(told(kafka, 7, &request), ErrorCode::None);
    // No topics and no partitions: an answer that says nothing.
    let mut request = produce_request(PLAIN, 0, -1, Some(&one));
    request.topic_data[0].partition_data.clear();
    let answer = kafka.ask(9, &request).unwrap();
    assert!(answer.read::<ProduceResponse<'_>>().responses[0].partition_responses.is_empty());
    request.topic_data.clear();
    assert!(kafka.ask(9, &request).unwrap().read::<ProduceResponse<'_>>().responses.is_empty());
    // The same partition twice: both, in their order.
    let mut request = produce_request(PLAIN, 0, -1, Some(&one));
    request.topic_data.extend(request.topic_data.clone());
    let answer = kafka.ask(9, &request).unwrap();
    let response = answer.read::<ProduceResponse<'_>>();
    let base_offset = |n: usize| response.responses[n].partition_responses[0].base_offset;
    assert_eq!(base_offset(1), base_offset(0) + 1);
}

/// What brokers keep about groups is written by them alone; tools that know what they do may write it too, as in Kafka.
fn internal_topics(kafka: &mut Kafka, broker: &floodmark_broker::Broker) {
    let topic = "__consumer_offsets";
    assert_eq!(kafka.commit("g", PLAIN, 0, 0).unwrap(), ErrorCode::CoordinatorNotAvailable.code());
    kafka.await_coordinator("g");
    let answer = kafka.produce(topic, 0, -1, &keyed()).unwrap();
    assert_eq!(answer.error_code, ErrorCode::InvalidTopicException.code());
    let (_, request) = kafka.frame(9, &produce_request(topic, 0, -1, Some(&keyed())));
    // Key, version, correlation id, name, and the tags that follow it in the header.
    let mut admin = Client::connect(broker.kafka_address());
    let body = &request[4 + 8 + 2 + "test".len()..];
    admin.send(&frame(0, 9, 1, b"__admin_client", body));
    let Fate::Reply(reply) = admin.fate(PATIENCE) else { panic!("no reply") };
    let name_at = reply.windows(topic.len()).position(|part| part == topic.as_bytes()).unwrap();
    // Behind the name: one partition, its index, the code.
    assert_eq!(reply[name_at + topic.len() + 5..][..2], [0, 0]);
    // Without it no group would know how far it has read.
    assert_eq!(kafka.commit("g", PLAIN, 0, 1).unwrap(), 0);
    assert_eq!(kafka.delete_topic(topic).unwrap(), ErrorCode::InvalidTopicException.code());
    assert_eq!(kafka.committed("g", PLAIN, 0).unwrap(), Ok(1));
}
