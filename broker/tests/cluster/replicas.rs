//! Consumers that read from the replica next to them.

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::fetch::{FetchRequest, FetchResponse};

use crate::kafka_client::{FetchOf, Fetched, Kafka, batch};
use crate::setup::Three;

/// What Fetch says of the one partition, and which replica it prefers.
fn fetch(kafka: &mut Kafka, request: &FetchRequest<'_>) -> (Fetched, i32) {
    let answer = kafka.ask(12, request).unwrap();
    let response = answer.read::<FetchResponse<'_>>();
    (Fetched::of(&response), response.responses[0].partitions[0].preferred_read_replica)
}

#[test]
fn a_consumer_is_sent_to_the_replica_in_its_rack_which_gives_what_is_committed() {
    let three = Three::start_with(|id, config| config.set("broker.rack", &format!("r{id}")).unwrap());
    let leader = three.topic(1, "t", 1)[0];
    let follower = leader % 3 + 1;
    let racks = ["", "r1", "r2", "r3"];
    let mut at_leader = three.kafka(leader);
    let produced = at_leader.produce("t", 0, -1, &batch(&[b"a", b"b"])).unwrap();
    assert_eq!(produced.error_code, 0, "{produced:?}");
    let near = racks[usize::try_from(follower).unwrap()];
    let in_rack =
        |rack: &'static str, from| FetchRequest { rack_id: rack, ..FetchOf::new("t", 0, from).request() };
    // The leader gives nothing itself where another is nearer: the answer says who.
    let (told, preferred) = three.until("the follower has it", || {
        let (told, preferred) = fetch(&mut at_leader, &in_rack(near, 2));
        (preferred != -1).then_some((told, preferred))
    });
    assert_eq!((told.error_code, told.bytes.len(), preferred), (0, 0, follower));
    assert_eq!(told.high_watermark, 2);
    // Readers of its own rack, of none and of an unknown one it serves itself.
    for rack in ["", racks[usize::try_from(leader).unwrap()], "elsewhere"] {
        let (told, preferred) = fetch(&mut at_leader, &in_rack(rack, 0));
        assert_eq!((told.records().len(), preferred), (2, -1), "{rack:?}");
    }
    // A place that the follower has not reached is not sent there.
    let (_, preferred) = fetch(&mut at_leader, &in_rack(near, 1_000));
    assert_eq!(preferred, -1);
    let mut at_follower = three.kafka(follower);
    let records = three.until("what is committed gets to the follower", || {
        let (told, preferred) = fetch(&mut at_follower, &in_rack(near, 0));
        assert_eq!((told.error_code, preferred), (0, -1));
        (told.records().len() == 2).then(|| told.records())
    });
    assert_eq!(records, [(0, b"a".to_vec()), (1, b"b".to_vec())]);
    // It waits for what comes, as the leader does.
    let waiting = std::thread::spawn(move || {
        let request = FetchRequest { max_wait_ms: 30_000, ..in_rack(near, 2) };
        fetch(&mut at_follower, &request).0.records()
    });
    assert_eq!(at_leader.produce("t", 0, -1, &batch(&[b"c"])).unwrap().error_code, 0);
    assert_eq!(waiting.join().unwrap(), [(2, b"c".to_vec())]);
    // What it does not have it says so of, and the consumer asks the leader again. Not that it is out of range, which a consumer that
    // takes this broker for the leader would believe.
    let (told, _) = fetch(&mut three.kafka(follower), &in_rack(near, 1_000));
    assert_eq!(told.error_code, ErrorCode::OffsetNotAvailable.code());
    let (told, _) = fetch(&mut at_leader, &in_rack("", 1_000));
    assert_eq!(told.error_code, ErrorCode::OffsetOutOfRange.code());
    // Whoever does not know of followers is not answered by one.
    let answer = three.kafka(follower).ask(10, &FetchOf::new("t", 0, 0).request()).unwrap();
    let refused = answer.read::<FetchResponse<'_>>().responses[0].partitions[0].error_code;
    assert_eq!(refused, ErrorCode::NotLeaderOrFollower.code());
    // Where the latest is, only the leader says.
    let lists_latest = |kafka: &mut Kafka| {
        use floodmark_proto::kafka::messages::list_offsets::*;
        let partitions = vec![ListOffsetsPartition { timestamp: -1, ..Default::default() }];
        let topics = vec![ListOffsetsTopic { name: "t", partitions }];
        let answer =
            kafka.ask(8, &ListOffsetsRequest { replica_id: -1, topics, ..Default::default() }).unwrap();
        let found = answer.read::<ListOffsetsResponse<'_>>();
        (found.topics[0].partitions[0].error_code, found.topics[0].partitions[0].offset)
    };
    assert_eq!(lists_latest(&mut at_leader), (0, 3));
    assert_eq!(lists_latest(&mut three.kafka(follower)).0, ErrorCode::NotLeaderOrFollower.code());
}
