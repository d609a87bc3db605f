//! A leader against a follower that the test plays: who may copy, what is told when, and what a slow one costs.

use std::time::Duration;

use floodmark_proto::ids::{Offset, TopicId};
use floodmark_proto::pb::replica::{FetchReply, FetchRequest, Hello, Position, Refusal};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::nodes::{Cluster, Node, PATIENCE, Setup, append, run, until, value};
use crate::fetcher::part::bytes_of;
use crate::rpc::incoming::Replies;
use crate::rpc::{Peers, replica_client};

/// Broker 2, as far as the leader sees.
struct Follower {
    requests: mpsc::Sender<FetchRequest>,
    replies: Replies,
}

async fn call(node: &Node, cluster: &Cluster) -> Follower {
    let peers = Peers::new(cluster.identity(2), std::collections::BTreeMap::new());
    peers.follow(cluster.images());
    let (requests, taken) = mpsc::channel(8);
    let replies = replica_client::fetch(&peers, node.id, taken).await.unwrap();
    Follower { requests, replies }
}

fn hello(wait_ms_max: u32) -> Hello {
    Hello { broker: 2, broker_epoch: 1, reply_bytes_max: 256 << 10, wait_ms_max }
}

fn position(slot: u32, topic: Option<TopicId>, end: i64) -> Position {
    Position {
        slot,
        topic_id: topic.map_or_else(Default::default, |topic| topic.to_bytes().to_vec().into()),
        fetch_offset: end,
        synced_end: end,
        last_fetched_epoch: (end > 0).then_some(0),
        ..Position::default()
    }
}

impl Follower {
    async fn say(&self, request: FetchRequest) {
        self.requests.send(request).await.unwrap();
    }

    async fn ask(&self) {
        self.say(FetchRequest { wants_reply: true, ..FetchRequest::default() }).await;
    }

    async fn hear(&mut self) -> Result<FetchReply, Status> {
        let next = tokio::time::timeout(PATIENCE, self.replies.message()).await;
        next.expect("the leader says nothing").map(|reply| reply.expect("the leader ended the call"))
    }

    async fn hears_nothing(&mut self, for_ms: u64) {
        let heard = tokio::time::timeout(Duration::from_millis(for_ms), self.replies.message()).await;
        let parts = heard.map(|heard| heard.map(|reply| reply.map(|reply| reply.parts.len())));
        assert!(parts.is_err(), "nobody asked for {parts:?}");
    }
}

#[test]
fn who_says_that_it_is_another_than_it_calls_as_is_refused() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        let first = |hello| FetchRequest { hello, wants_reply: true, ..FetchRequest::default() };
        for (hello, code) in
            [(Some(Hello { broker: 3, ..hello(100) }), Code::PermissionDenied), (None, Code::InvalidArgument)]
        {
            let mut follower = call(&leading, &cluster).await;
            follower.say(first(hello)).await;
            assert_eq!(follower.hear().await.unwrap_err().code(), code);
        }
        let mut follower = call(&leading, &cluster).await;
        follower.say(first(Some(hello(100)))).await;
        assert!(follower.hear().await.unwrap().parts.is_empty());
        follower.say(first(Some(hello(100)))).await;
        assert_eq!(follower.hear().await.unwrap_err().code(), Code::InvalidArgument, "a second hello");
    });
}

#[test]
fn what_a_broker_says_of_partitions_that_it_holds_no_part_of_counts_for_nothing() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        cluster.register(2, 1);
        cluster.register(3, 1);
        let topic = cluster.create("t", 1, 1, &[1, 3]);
        let leader = leading.partition(&cluster, topic, 0).await;
        append(&leader, b"a").await;
        let mut follower = call(&leading, &cluster).await;
        let positions = vec![position(1, Some(topic), 1)];
        follower
            .say(FetchRequest { hello: Some(hello(50)), positions, wants_reply: true, ..Default::default() })
            .await;
        assert!(follower.hear().await.unwrap().parts.iter().all(|part| part.batches.is_empty()));
        until("synced", || leader.reader().durable() == Offset(1)).await;
        assert_eq!(leader.high_watermark(), Offset(0), "broker 3 has not said that it has it");
    });
}

#[test]
fn idle_partitions_cost_one_empty_reply_for_each_time_that_is_waited() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        cluster.register(2, 1);
        let topic = cluster.create("t", 1, 1000, &[1, 2]);
        leading.partition(&cluster, topic, 0).await;
        let mut follower = call(&leading, &cluster).await;
        let of = |index: u32| Position { partition: index, ..position(index, Some(topic), 0) };
        let positions = (0..1000).map(of).collect();
        follower.say(FetchRequest { hello: Some(hello(200)), positions, ..Default::default() }).await;
        follower.hears_nothing(100).await;
        // The watermarks and starts, once.
        let mut told = std::collections::BTreeSet::new();
        while told.len() < 1000 {
            follower.ask().await;
            for part in follower.hear().await.unwrap().parts {
                assert!(part.batches.is_empty() && told.insert(part.slot), "{part:?}");
            }
        }
        for _ in 0..3 {
            follower.ask().await;
            assert!(follower.hear().await.unwrap().parts.is_empty());
        }
        // One of them moves, and it alone is told, as long as nobody says that it has it: once.
        append(&leading.partition(&cluster, topic, 7).await, b"a").await;
        follower.ask().await;
        let parts = follower.hear().await.unwrap().parts;
        assert_eq!((parts.len(), parts[0].slot, parts[0].batches.len()), (1, 7, 1));
        follower.ask().await;
        assert!(follower.hear().await.unwrap().parts.is_empty());
        follower.hears_nothing(300).await;
    });
}

#[test]
fn a_slow_follower_is_sent_no_more_than_it_asks_for() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup { tail_bytes: 100 << 10, ..Setup::default() }).await;
        cluster.register(2, 1);
        let topics = [1, 2].map(|id| cluster.create(&format!("t{id}"), id, 1, &[1, 2]));
        for topic in topics {
            let leader = leading.partition(&cluster, topic, 0).await;
            for seed in 0..100 {
                append(&leader, &value(seed, 20_000)).await;
            }
        }
        let mut follower = call(&leading, &cluster).await;
        let positions = vec![position(1, Some(topics[0]), 0), position(2, Some(topics[1]), 0)];
        let first = FetchRequest { hello: Some(hello(100)), positions, ..Default::default() };
        follower.say(first).await;
        follower.hears_nothing(100).await;
        follower.ask().await;
        let mut bytes = 0;
        let mut replies = 0;
        while bytes < 200 * 20_000 {
            let reply = follower.hear().await.unwrap();
            let of_reply: usize = reply.parts.iter().map(bytes_of).sum();
            // What comes from memory has half a reply to itself, also beside a disk that filled one.
            assert!(of_reply <= (256 << 10) * 3 / 2 + 2 * 21_000, "{of_reply}");
            bytes += of_reply;
            replies += 1;
            if replies == 1 {
                follower.hears_nothing(100).await;
            }
            follower.ask().await;
        }
        assert!(replies > 12, "{replies}");
    });
}

#[test]
fn a_partition_far_behind_stops_where_its_grant_ends() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup { tail_bytes: 50 << 10, ..Setup::default() }).await;
        cluster.register(2, 1);
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        cluster.change_isr(topic, &[1]);
        let leader = leading.partition(&cluster, topic, 0).await;
        for seed in 0..40 {
            append(&leader, &value(seed, 20_000)).await;
        }
        let mut follower = call(&leading, &cluster).await;
        let first = FetchRequest {
            hello: Some(hello(50)),
            positions: vec![position(1, Some(topic), 0)],
            catchup_bytes_granted: Some(0),
            ..FetchRequest::default()
        };
        follower.say(first).await;
        let mut got = 0;
        for granted in [0, 30_000, 100_000, 400_000] {
            follower
                .say(FetchRequest { catchup_bytes_granted: Some(granted), ..FetchRequest::default() })
                .await;
            loop {
                follower.ask().await;
                let reply = follower.hear().await.unwrap();
                assert!(reply.parts.iter().all(|part| part.is_catchup || part.batches.is_empty()));
                let bytes: usize = reply.parts.iter().map(bytes_of).sum();
                got += bytes as u64;
                // An answer may also be empty because a disk was slow.
                if bytes == 0 && got + 21_000 >= granted {
                    break;
                }
            }
            assert!(got <= granted + 21_000, "{got} of {granted}");
        }
    });
}

#[test]
fn what_is_not_here_or_not_led_here_is_refused_and_what_is_not_known_yet_waits() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        cluster.register(2, 1);
        let [led, followed] = [(1, [1, 2]), (2, [2, 1])]
            .map(|(id, replicas)| cluster.create(&format!("t{id}"), id, 1, &replicas));
        let leader = leading.partition(&cluster, led, 0).await;
        append(&leader, b"a").await;
        append(&leader, b"b").await;
        let mut follower = call(&leading, &cluster).await;
        let nobody = TopicId::from_bytes([9; 16]).unwrap();
        let ahead = Position { leader_epoch: 2, ..position(4, Some(led), 1) };
        let positions = vec![position(2, Some(nobody), 0), position(3, Some(followed), 0), ahead];
        follower
            .say(FetchRequest { hello: Some(hello(200)), positions, wants_reply: true, ..Default::default() })
            .await;
        let mut refused: Vec<_> =
            follower.hear().await.unwrap().parts.iter().map(|part| (part.slot, part.refusal())).collect();
        refused.sort();
        assert_eq!(refused, [(2, Refusal::UnknownPartition), (3, Refusal::NotLeader)]);
        // The leader learns of its epoch later than the follower; what was said before counts then.
        follower.ask().await;
        assert!(follower.hear().await.unwrap().parts.is_empty());
        cluster.change_isr(led, &[1]);
        cluster.lead_anew(1);
        assert_eq!(cluster.leader_epoch(led).0, 2, "that nobody led was an epoch, too");
        // Replies are empty until it has.
        let parts = loop {
            follower.ask().await;
            let parts = follower.hear().await.unwrap().parts;
            if !parts.is_empty() {
                break parts;
            }
        };
        assert_eq!((parts[0].slot, parts[0].batches.len()), (4, 1));
        let heard = || leader.replicas_progress(0).iter().any(|replica| replica.log_end == Some(Offset(1)));
        until("what was said is heard", heard).await;
        // And now its own epoch is the older one.
        cluster.lead_anew(1);
        let refused = loop {
            follower.ask().await;
            // The watermark may move first.
            let parts = follower.hear().await.unwrap().parts;
            if let Some(part) = parts.into_iter().find(|part| part.refusal() != Refusal::None) {
                break part;
            }
        };
        // Between the two nobody led.
        assert!(matches!((refused.slot, refused.refusal()), (4, Refusal::FencedEpoch | Refusal::NotLeader)));
    });
}
