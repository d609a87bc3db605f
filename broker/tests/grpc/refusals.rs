//! What is wrong is told by status, reason and whether to retry; and health, reflection, deadlines.

use bytes::Bytes;
use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::pb::v1 as pb;
use tokio::sync::mpsc;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::setup::{
    Subscribed, batch, broker, channel, data, from_start, next, part, reason, record, records, start, stop,
    topic,
};

fn good() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.push(&NewRecord { value: Some(b"v"), timestamp: 1, ..NewRecord::default() }).unwrap();
    builder.build().unwrap().freeze().to_vec()
}

fn changed(at: usize, to: u8) -> Bytes {
    let mut bytes = good();
    bytes[at] = to;
    bytes.into()
}

#[tokio::test]
async fn what_cannot_be_appended_is_told() {
    let broker = broker(&[("grpc.message.max.bytes", "2MiB")]);
    topic(&broker, "t", 2, &[]).await;
    topic(&broker, "small", 1, &[("max.message.bytes", "200")]).await;
    topic(&broker, "compacted", 1, &[("cleanup.policy", "compact")]).await;
    let mut client = data(&broker).await;
    let with_acks = |acks| pb::ProduceRequest { acks, ..records("t", Some(0), vec![record(None, "v")]) };
    let nothing = pb::ProduceRequest { topic: "t".to_owned(), partition: Some(0), ..Default::default() };
    let many = (0..10_001).map(|_| pb::Header::default()).collect();
    let many_headers = pb::Record { headers: many, ..Default::default() };
    let two = Bytes::from([good(), good()].concat());
    let cases = [
        (
            records("missing", Some(0), vec![record(None, "v")]),
            Code::NotFound,
            "UNKNOWN_TOPIC_OR_PARTITION",
            true,
        ),
        (
            records("missing", None, vec![record(None, "v")]),
            Code::NotFound,
            "UNKNOWN_TOPIC_OR_PARTITION",
            true,
        ),
        (records("t", Some(2), vec![record(None, "v")]), Code::NotFound, "UNKNOWN_TOPIC_OR_PARTITION", true),
        (records("t", Some(-1), vec![record(None, "v")]), Code::NotFound, "UNKNOWN_TOPIC_OR_PARTITION", true),
        (
            records("__consumer_offsets", Some(0), vec![record(None, "v")]),
            Code::InvalidArgument,
            "INVALID_TOPIC_EXCEPTION",
            false,
        ),
        (records("t", Some(0), vec![]), Code::InvalidArgument, "INVALID_RECORD", false),
        (records("t", Some(0), vec![many_headers]), Code::InvalidArgument, "INVALID_RECORD", false),
        (with_acks(7), Code::InvalidArgument, "INVALID_REQUIRED_ACKS", false),
        (nothing, Code::InvalidArgument, "INVALID_REQUEST", false),
        (
            pb::ProduceRequest { partition: None, ..batch("t", 0, good()) },
            Code::InvalidArgument,
            "INVALID_REQUEST",
            false,
        ),
        (batch("t", 0, Bytes::new()), Code::InvalidArgument, "INVALID_RECORD", false),
        (batch("t", 0, "no batch"), Code::InvalidArgument, "INVALID_RECORD", false),
        (batch("t", 0, changed(16, 1)), Code::InvalidArgument, "INVALID_RECORD", false),
        (batch("t", 0, changed(65, 9)), Code::InvalidArgument, "CORRUPT_MESSAGE", true),
        (batch("t", 0, good()[..60].to_vec()), Code::InvalidArgument, "INVALID_RECORD", false),
        (batch("t", 0, two), Code::InvalidArgument, "INVALID_RECORD", false),
        (
            records("small", Some(0), vec![record(None, &"v".repeat(500))]),
            Code::InvalidArgument,
            "MESSAGE_TOO_LARGE",
            false,
        ),
        (
            records("compacted", Some(0), vec![record(None, "v")]),
            Code::InvalidArgument,
            "INVALID_RECORD",
            false,
        ),
        (
            records("t", Some(0), vec![record(None, &"v".repeat(3 << 20))]),
            Code::InvalidArgument,
            "MESSAGE_TOO_LARGE",
            false,
        ),
    ];
    for (n, (request, code, name, is_retryable)) in cases.into_iter().enumerate() {
        let status = client.append(request).await.unwrap_err();
        assert_eq!(reason(&status), (code, name.to_owned(), is_retryable), "case {n}: {}", status.message());
        assert!(!status.message().is_empty());
    }
    let status = client.append(records("t", Some(2), vec![record(None, "v")])).await.unwrap_err();
    assert_eq!(status.message(), "topic 't' has no partition 2; it has 2, from 0 on");
    // The connection has not suffered.
    client.append(records("t", Some(0), vec![record(None, "v")])).await.unwrap();
}

#[tokio::test]
async fn bytes_that_are_no_message_are_the_callers_fault() {
    let broker = broker(&[]);
    let mut client = tonic::client::Grpc::new(channel(&broker).await);
    // The first field of the one is a text, that of the other a number.
    let other = || pb::AppendIfRequest { topic: "t".to_owned(), ..Default::default() };
    let path = |path| tonic::codegen::http::uri::PathAndQuery::from_static(path);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::AppendIfRequest, pb::ProduceReply>::default();
    let append = path("/floodmark.v1.Data/Append");
    let status = client.unary(Request::new(other()), append, codec.clone()).await.unwrap_err();
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), false));
    assert!(status.message().contains("no message of this call"), "{}", status.message());
    client.ready().await.unwrap();
    let produce = path("/floodmark.v1.Data/Produce");
    let sent = Request::new(tokio_stream::once(other()));
    let mut replies = client.streaming(sent, produce, codec).await.unwrap().into_inner();
    let status = replies.message().await.unwrap_err();
    assert_eq!(reason(&status), (Code::InvalidArgument, "INVALID_REQUEST".to_owned(), false));
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_told() {
    let broker = broker(&[]);
    topic(&broker, "t", 1, &[]).await;
    let mut client = data(&broker).await;
    let parts = || vec![from_start("t", None)];
    let no_position = pb::SubscribePart { topic: "t".to_owned(), ..Default::default() };
    let unspecified = part("t", None, pb::position::At::Special(0));
    for (begin, name) in [
        (pb::SubscribeStart { filter: "key ==".to_owned(), ..start(parts()) }, "INVALID_FILTER"),
        (pb::SubscribeStart { filter: "(".repeat(4000), ..start(parts()) }, "INVALID_FILTER"),
        (pb::SubscribeStart { filter: "x".repeat(5000), ..start(parts()) }, "INVALID_FILTER"),
        (pb::SubscribeStart { filter: "true".to_owned(), encoding: 1, ..start(parts()) }, "INVALID_REQUEST"),
        (pb::SubscribeStart { encoding: 9, ..start(parts()) }, "INVALID_REQUEST"),
        (pb::SubscribeStart { isolation: 9, ..start(parts()) }, "INVALID_REQUEST"),
    ] {
        let mut reading = Subscribed::open(&mut client, begin).await;
        let status = reading.next().await.unwrap_err();
        assert_eq!(reason(&status), (Code::InvalidArgument, name.to_owned(), false));
    }
    for bad in [no_position, unspecified] {
        let mut reading = Subscribed::open(&mut client, start(vec![bad])).await;
        assert_eq!(reading.failure().await.error.unwrap().reason, "INVALID_REQUEST");
    }
    let behind = part("t", Some(0), pb::position::At::Offset(5));
    let mut reading = Subscribed::open(&mut client, start(vec![behind])).await;
    let error = reading.failure().await.error.unwrap();
    assert_eq!(error.reason, "OFFSET_OUT_OF_RANGE");
    assert_eq!(error.message, "the offset is not in t-0, which begins at 0 and ends before 0");
    let mut reading = Subscribed::open(&mut client, start(parts())).await;
    reading.send(pb::subscribe_request::Request::Start(start(parts()))).await;
    let ended = loop {
        match reading.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&ended).0, Code::InvalidArgument);
}

#[tokio::test]
async fn deadlines_are_kept() {
    let broker = broker(&[]);
    topic(&broker, "t", 1, &[]).await;
    let mut client = data(&broker).await;
    for deadline in ["100m", "1000m", "30S"] {
        let (_requests, receiver): (mpsc::Sender<pb::ProduceRequest>, _) = mpsc::channel(1);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        // As another client may write it.
        request.metadata_mut().insert("grpc-timeout", deadline.parse().unwrap());
        // Ours ends the call by itself, but only where the broker has not begun to answer by then.
        let Ok(replies) = client.produce(request).await else { continue };
        let status = next(&mut replies.into_inner()).await.unwrap_err();
        assert_eq!(reason(&status), (Code::DeadlineExceeded, "REQUEST_TIMED_OUT".to_owned(), true));
        return;
    }
    panic!("the broker does not begin to answer");
}

#[tokio::test]
async fn health_is_told_until_the_broker_stops() {
    let broker = broker(&[]);
    let mut client = HealthClient::new(channel(&broker).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in
        ["", "floodmark.v1.Data", "floodmark.v1.Events", "floodmark.v1.Groups", "floodmark.v1.Admin"]
    {
        let reply = client.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(reply.status, 1, "{service}");
    }
    let unknown = reason(&client.check(ask("other")).await.unwrap_err());
    assert_eq!(unknown, (Code::NotFound, "RESOURCE_NOT_FOUND".to_owned(), false));
    let mut watched = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(next(&mut watched).await.unwrap().unwrap().status, 1);
    let stopping = tokio::spawn(stop(broker));
    assert_eq!(next(&mut watched).await.unwrap().unwrap().status, 2);
    assert_eq!(next(&mut watched).await.unwrap(), None);
    stopping.await.unwrap();
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_a_reason() {
    let broker = broker(&[]);
    let ask = async |path: &'static str, encoding: Option<&'static str>| {
        let mut client = tonic::client::Grpc::new(channel(&broker).await);
        client.ready().await.unwrap();
        let mut request = Request::new(pb::DescribeTopicsRequest::default());
        if let Some(encoding) = encoding {
            request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        }
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let codec = tonic_prost::ProstCodec::<_, pb::DescribeTopicsReply>::default();
        client.unary(request, path, codec).await
    };
    for (path, encoding, said) in [
        ("/floodmark.v1.Admin/Nothing", None, "/floodmark.v1.Admin/Nothing"),
        ("/floodmark.v9.Admin/DescribeTopics", None, "/floodmark.v9.Admin/DescribeTopics"),
        ("/floodmark.v1.Admin/DescribeTopics", Some("gzip"), "gzip"),
    ] {
        let status = ask(path, encoding).await.unwrap_err();
        let expected = (Code::Unimplemented, "UNSUPPORTED_VERSION".to_owned(), false);
        assert_eq!(reason(&status), expected, "{path}");
        assert!(status.message().contains(said), "{path}: {}", status.message());
    }
    assert!(ask("/floodmark.v1.Admin/DescribeTopics", None).await.is_ok());
}

#[tokio::test]
async fn reflection_tells_what_is_served_and_nothing_else() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let broker = broker(&[]);
    let mut client = ServerReflectionClient::new(channel(&broker).await);
    let ask = |question| ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("floodmark.v1.Data".to_owned())),
    ];
    let mut answers =
        client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
    let mut answer = async || next(&mut answers).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(listed) = answer().await else { panic!("no list") };
    let mut names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    names.retain(|name| !name.starts_with("grpc.reflection."));
    names.sort();
    let ours = ["Admin", "Data", "Events", "Groups"].map(|name| format!("floodmark.v1.{name}"));
    assert_eq!(names, [&ours[..], &["grpc.health.v1.Health".to_owned()]].concat());
    let MessageResponse::FileDescriptorResponse(file) = answer().await else { panic!("no file") };
    assert!(!file.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn calls_that_stream_end_with_the_broker_and_say_so() {
    // Were they waited for, nobody would see the end.
    let broker = broker(&[("shutdown.timeout.ms", "1h")]);
    topic(&broker, "t", 1, &[]).await;
    let mut client = data(&broker).await;
    let mut reading = Subscribed::open(&mut client, start(vec![from_start("t", None)])).await;
    reading.delivery().await;
    let (requests, receiver) = mpsc::channel(4);
    requests.send(records("t", Some(0), vec![record(None, "v")])).await.unwrap();
    let mut replies =
        client.produce(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert!(next(&mut replies).await.unwrap().is_some());
    stop(broker).await;
    let ended = |status: tonic::Status| assert_eq!(reason(&status).0, Code::Unavailable);
    ended(next(&mut replies).await.unwrap_err());
    loop {
        match reading.next().await {
            Ok(_) => {}
            Err(status) => break ended(status),
        }
    }
}
