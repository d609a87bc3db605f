//! Events: appends under a condition, streams read in both directions and as they grow.

use std::time::Duration;

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::murmur2::partition_of_key;
use floodmark_proto::pb::v1 as pb;
use pb::expected::{Last, Special};
use pb::read_stream_request::Direction;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::generated::events_client::EventsClient;
use crate::kafka::Client;
use crate::setup::{self, batch, broker, channel, data, reason, record, records, stop, topic};

const STORE: &[(&str, &str)] = &[("floodmark.key.index", "true")];

fn append(stream: &str, expected: Last, values: &[&str]) -> pb::AppendIfRequest {
    pb::AppendIfRequest {
        topic: "store".to_owned(),
        key: stream.to_owned().into(),
        expected: Some(pb::Expected { last: Some(expected) }),
        records: values.iter().map(|value| record(None, value)).collect(),
        ..Default::default()
    }
}

fn special(special: Special) -> Last {
    Last::Special(special.into())
}

fn read(stream: &str) -> pb::ReadStreamRequest {
    pb::ReadStreamRequest { topic: "store".to_owned(), key: stream.to_owned().into(), ..Default::default() }
}

/// All records of a read that ends, and its last part.
async fn all(
    client: &mut EventsClient<Channel>,
    request: pb::ReadStreamRequest,
) -> (Vec<String>, pb::ReadStreamReply) {
    let mut parts = client.read_stream(request).await.unwrap().into_inner();
    let (mut values, mut last) = (Vec::new(), pb::ReadStreamReply::default());
    while let Some(part) = setup::next(&mut parts).await.unwrap() {
        values.extend(texts(&part));
        last = part;
    }
    (values, last)
}

fn texts(part: &pb::ReadStreamReply) -> Vec<String> {
    let text = |record: &pb::Record| String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap();
    part.records.iter().map(text).collect()
}

fn conflict(status: &Status) -> Option<String> {
    assert_eq!(reason(status), (Code::FailedPrecondition, "STREAM_CONFLICT".to_owned(), false));
    status.get_error_details().error_info().unwrap().metadata.get("last_offset").cloned()
}

#[tokio::test]
async fn a_stream_grows_only_as_expected() {
    let broker = broker(&[]);
    topic(&broker, "store", 3, STORE).await;
    let mut client = EventsClient::new(channel(&broker).await);
    let lost = client.append_if(append("a", special(Special::StreamExists), &["x"])).await.unwrap_err();
    assert_eq!(conflict(&lost), None);
    let first =
        client.append_if(append("a", special(Special::NoStream), &["1", "2"])).await.unwrap().into_inner();
    assert_eq!(u32::try_from(first.partition).unwrap(), partition_of_key(b"a", 3));
    assert_eq!((first.base_offset, first.last_offset, first.is_repeat), (0, 1, false));
    assert_eq!(first.durability(), pb::Durability::SyncedInSyncSet);
    for expected in [special(Special::NoStream), Last::Offset(0)] {
        let lost = client.append_if(append("a", expected, &["lost"])).await.unwrap_err();
        assert_eq!(conflict(&lost).as_deref(), Some("1"));
    }
    let second = client.append_if(append("a", Last::Offset(1), &["3"])).await.unwrap().into_inner();
    assert_eq!(second.base_offset, 2);
    client.append_if(append("a", special(Special::Any), &["4"])).await.unwrap();
    client.append_if(append("b", special(Special::Any), &["other"])).await.unwrap();

    // A retry of what was appended is told where it is.
    let with_id = |id: u8| pb::AppendIfRequest {
        append_id: vec![id; 16].into(),
        ..append("a", Last::Offset(3), &["5"])
    };
    for is_repeat in [false, true] {
        let reply = client.append_if(with_id(1)).await.unwrap().into_inner();
        assert_eq!((reply.base_offset, reply.is_repeat), (4, is_repeat));
    }
    assert_eq!(conflict(&client.append_if(with_id(2)).await.unwrap_err()).as_deref(), Some("4"));
    // A record that has a key of its own would lose it.
    let with_key = |key: &str| {
        let mut request = append("a", Last::Offset(3), &["lost"]);
        request.records[0].key = Some(key.as_bytes().to_vec().into());
        request
    };
    let status = client.append_if(with_key("b")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("another key"), "{}", status.message());
    assert_eq!(conflict(&client.append_if(with_key("a")).await.unwrap_err()).as_deref(), Some("4"));
    // The other door sees ordinary records.
    let values: Vec<_> = Client::connect(&broker)
        .fetch("store", first.partition)
        .into_iter()
        .filter(|record| record.key.as_deref() == Some(b"a"))
        .map(|record| record.value.unwrap())
        .collect();
    assert_eq!(values, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn a_kafka_producer_asks_with_a_header() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    let mut kafka = Client::connect(&broker);
    let expecting = |expected: &str| {
        let mut builder = BatchBuilder::new();
        let headers: [(&[u8], Option<&[u8]>); 1] =
            [(b"floodmark-expected-offset", Some(expected.as_bytes()))];
        let event =
            NewRecord { key: Some(b"a"), value: Some(expected.as_bytes()), timestamp: 1, headers: &headers };
        builder.push(&event).unwrap();
        builder.build().unwrap().freeze()
    };
    let refused = Err(ErrorCode::InvalidRecord.code());
    let code = |outcome: Result<i64, (i16, String)>| outcome.map_err(|(code, _message)| code);
    assert_eq!(code(kafka.try_produce("store", 0, expecting("stream-exists"))), refused);
    assert_eq!(kafka.try_produce("store", 0, expecting("no-stream")), Ok(0));
    let (error, message) = kafka.try_produce("store", 0, expecting("no-stream")).unwrap_err();
    assert_eq!(Err(error), refused);
    assert!(message.contains("last offset is 0"), "{message}");
    assert_eq!(kafka.try_produce("store", 0, expecting("0")), Ok(1));
    assert_eq!(code(kafka.try_produce("store", 0, expecting("0"))), refused);
    assert_eq!(code(kafka.try_produce("store", 0, expecting("soon"))), refused);
    assert_eq!(kafka.try_produce("store", 0, expecting("any")), Ok(2));
    // One stream for both doors.
    let mut client = EventsClient::new(channel(&broker).await);
    client.append_if(append("a", Last::Offset(2), &["grpc"])).await.unwrap();
    assert_eq!(kafka.try_produce("store", 0, expecting("3")), Ok(4));
    assert_eq!(all(&mut client, read("a")).await.0, ["no-stream", "0", "any", "grpc", "3"]);
}

/// It was refused, since its stream ends elsewhere in the topic that it is copied to.
#[tokio::test]
async fn what_a_record_once_asked_is_not_asked_of_its_copy() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    let mut data = data(&broker).await;
    let header = |value: &'static str| pb::Header {
        key: "floodmark-expected-offset".to_owned(),
        value: Some(value.into()),
    };
    let asking =
        |value: &'static str| pb::Record { headers: vec![header(value)], ..record(Some("a"), value) };
    let given = vec![asking("7"), asking("no-stream"), asking("soon")];
    let as_records =
        |are_copies| pb::ProduceRequest { are_copies, ..records("store", Some(0), given.clone()) };
    let status = data.append(as_records(false)).await.unwrap_err();
    assert_eq!(reason(&status).1, "INVALID_RECORD");
    data.append(as_records(true)).await.unwrap();
    let mut encoded = BatchBuilder::new();
    let headers: [(&[u8], Option<&[u8]>); 1] = [(b"floodmark-expected-offset", Some(b"no-stream"))];
    encoded
        .push(&NewRecord { key: Some(b"a"), value: Some(b"batch"), timestamp: 1, headers: &headers })
        .unwrap();
    let encoded = encoded.build().unwrap().freeze();
    let as_batch = |are_copies| pb::ProduceRequest { are_copies, ..batch("store", 0, encoded.clone()) };
    let mut replies =
        data.produce(tokio_stream::iter([as_batch(false), as_batch(true)])).await.unwrap().into_inner();
    let refused = setup::next(&mut replies).await.unwrap().unwrap();
    assert!(
        matches!(refused.partitions[0].outcome, Some(pb::partition_reply::Outcome::Error(_))),
        "{refused:?}"
    );
    let taken = setup::next(&mut replies).await.unwrap().unwrap();
    assert!(
        matches!(taken.partitions[0].outcome, Some(pb::partition_reply::Outcome::Produced(_))),
        "{taken:?}"
    );
    let mut events = EventsClient::new(channel(&broker).await);
    let mut parts = events.read_stream(read("a")).await.unwrap().into_inner();
    let part = setup::next(&mut parts).await.unwrap().unwrap();
    assert_eq!(texts(&part), ["7", "no-stream", "soon", "batch"]);
    let kept: Vec<_> = part.records.iter().map(|record| record.headers[0].value.clone().unwrap()).collect();
    assert_eq!(kept, ["7", "no-stream", "soon", "no-stream"]);
}

/// What was read from one stream is appended to another as it came.
#[tokio::test]
async fn what_an_event_was_appended_with_is_left_out_of_the_next_append() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    let mut client = EventsClient::new(channel(&broker).await);
    let header =
        |key: &str, value: &str| pb::Header { key: key.to_owned(), value: Some(value.to_owned().into()) };
    let headers = vec![
        header("floodmark-expected-offset", "garbage"),
        header("own", "x"),
        header("floodmark-append-id", "y"),
    ];
    let request = pb::AppendIfRequest {
        records: vec![pb::Record { headers, ..record(None, "v") }],
        append_id: vec![7; 16].into(),
        ..append("a", special(Special::NoStream), &[])
    };
    client.append_if(request).await.unwrap();
    let mut parts = client.read_stream(read("a")).await.unwrap().into_inner();
    let part = setup::next(&mut parts).await.unwrap().unwrap();
    let kept: Vec<_> = part.records[0].headers.iter().map(|header| &*header.key).collect();
    assert_eq!(kept, ["own", "floodmark-append-id"]);
    assert_eq!(part.records[0].headers[1].value.as_deref(), Some(&[7; 16][..]));
}

#[tokio::test]
async fn a_stream_is_read_in_both_directions_and_from_anywhere() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    let mut client = EventsClient::new(channel(&broker).await);
    for n in 0..10 {
        client.append_if(append("a", special(Special::Any), &[&n.to_string()])).await.unwrap();
        client.append_if(append("b", special(Special::Any), &["other"])).await.unwrap();
    }
    let numbers = |range: std::ops::Range<i32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    let (values, last) = all(&mut client, read("a")).await;
    assert_eq!(values, numbers(0..10));
    assert_eq!((last.is_end, last.last_offset, last.partition), (true, Some(18), 0));
    let backward = |from, records_max| pb::ReadStreamRequest {
        direction: Direction::Backward.into(),
        from,
        records_max,
        ..read("a")
    };
    let reversed = |mut values: Vec<String>| {
        values.reverse();
        values
    };
    let (values, last) = all(&mut client, backward(None, 0)).await;
    assert_eq!((values, last.last_offset), (reversed(numbers(0..10)), Some(18)));
    let (values, last) = all(&mut client, backward(None, 3)).await;
    assert_eq!(values, reversed(numbers(7..10)));
    let (values, _) = all(&mut client, backward(Some(last.next_offset), 3)).await;
    assert_eq!(values, reversed(numbers(4..7)));
    let (values, last) =
        all(&mut client, pb::ReadStreamRequest { from: Some(5), records_max: 2, ..read("a") }).await;
    assert_eq!((values, last.is_end), (numbers(3..5), false));
    let (values, _) =
        all(&mut client, pb::ReadStreamRequest { from: Some(last.next_offset), ..read("a") }).await;
    assert_eq!(values, numbers(5..10));
    let (values, last) = all(&mut client, read("none")).await;
    assert_eq!((values.len(), last.is_end, last.last_offset), (0, true, None));
}

#[tokio::test]
async fn a_long_stream_comes_in_parts() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    let mut client = EventsClient::new(channel(&broker).await);
    let large = "x".repeat(20_000);
    for n in 0..100 {
        client.append_if(append("a", special(Special::Any), &[&format!("{n} {large}")])).await.unwrap();
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let request = pb::ReadStreamRequest { direction: direction.into(), ..read("a") };
        let mut parts = client.read_stream(request).await.unwrap().into_inner();
        let (mut numbers, mut count) = (Vec::new(), 0);
        while let Some(part) = setup::next(&mut parts).await.unwrap() {
            numbers.extend(
                texts(&part).iter().map(|text| text.split_once(' ').unwrap().0.parse::<i32>().unwrap()),
            );
            count += 1;
        }
        if direction == Direction::Backward {
            numbers.reverse();
        }
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert!(count > 5, "{count}");
    }
}

async fn next(parts: &mut Streaming<pb::ReadStreamReply>) -> pb::ReadStreamReply {
    setup::next(parts).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_stream_is_followed_as_it_grows() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    let mut client = EventsClient::new(channel(&broker).await);
    client.append_if(append("a", special(Special::Any), &["0"])).await.unwrap();
    let request = pb::ReadStreamRequest { follow: true, ..read("a") };
    let mut parts = client.read_stream(request).await.unwrap().into_inner();
    assert_eq!(texts(&next(&mut parts).await), ["0"]);
    for n in 1..10 {
        client.append_if(append("b", special(Special::Any), &["other"])).await.unwrap();
        client.append_if(append("a", special(Special::Any), &[&n.to_string()])).await.unwrap();
        assert_eq!(texts(&next(&mut parts).await), [n.to_string()]);
    }
    // A reader of nothing is told so once.
    let request = pb::ReadStreamRequest { follow: true, ..read("none") };
    let mut nothing = client.read_stream(request).await.unwrap().into_inner();
    assert_eq!((next(&mut nothing).await.records.len(), next_is_quiet(&mut nothing).await), (0, true));
    stop(broker).await;
    let ended = setup::next(&mut parts).await.unwrap_err();
    assert_eq!(reason(&ended).0, Code::Unavailable);
}

async fn next_is_quiet(parts: &mut Streaming<pb::ReadStreamReply>) -> bool {
    tokio::time::timeout(Duration::from_millis(100), parts.message()).await.is_err()
}

#[tokio::test]
async fn what_is_no_append_and_no_read_is_told() {
    let broker = broker(&[]);
    topic(&broker, "store", 1, STORE).await;
    topic(&broker, "plain", 1, &[]).await;
    let mut client = EventsClient::new(channel(&broker).await);
    let good = || append("a", special(Special::Any), &["v"]);
    let invalid = (Code::InvalidArgument, "INVALID_REQUEST");
    for (n, (request, (code, name))) in [
        (
            pb::AppendIfRequest { topic: "missing".to_owned(), ..good() },
            (Code::NotFound, "UNKNOWN_TOPIC_OR_PARTITION"),
        ),
        (
            pb::AppendIfRequest { partition: Some(7), ..good() },
            (Code::NotFound, "UNKNOWN_TOPIC_OR_PARTITION"),
        ),
        (pb::AppendIfRequest { topic: "plain".to_owned(), ..good() }, invalid),
        (pb::AppendIfRequest { expected: None, ..good() }, invalid),
        (append("a", special(Special::Unspecified), &["v"]), invalid),
        (append("a", Last::Offset(-1), &["v"]), invalid),
        (append("a", special(Special::Any), &[]), invalid),
        (pb::AppendIfRequest { append_id: "short".into(), ..good() }, invalid),
        (append("a", special(Special::Any), &vec!["v"; 10_001]), invalid),
    ]
    .into_iter()
    .enumerate()
    {
        let status = client.append_if(request).await.unwrap_err();
        let (told_code, told, _) = reason(&status);
        assert_eq!((told_code, &*told), (code, name), "case {n}: {}", status.message());
    }
    for request in [
        pb::ReadStreamRequest { topic: "plain".to_owned(), ..read("a") },
        pb::ReadStreamRequest { direction: 7, ..read("a") },
        pb::ReadStreamRequest { direction: Direction::Backward.into(), follow: true, ..read("a") },
    ] {
        let status = match client.read_stream(request).await {
            Err(status) => status,
            Ok(reply) => setup::next(&mut reply.into_inner()).await.unwrap_err(),
        };
        assert_eq!(reason(&status).1, "INVALID_REQUEST");
    }
    // Records that come by Produce are events too.
    data(&broker).await.append(records("store", Some(0), vec![record(Some("p"), "produced")])).await.unwrap();
    assert_eq!(all(&mut client, read("p")).await.0, ["produced"]);
}
