//! Who is asked for what, from round to round; and a feed whose partitions have gone on to another epoch before it took them up.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::mpsc::sync_channel;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::client::Client;
use crate::config::ClientConfig;
use crate::consumer::config::ConsumerConfig;
use crate::consumer::positions::Positions;

/// Nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

fn shared() -> (Arc<Shared>, mpsc::Receiver<Fetched>) {
    let (fetched, received) = mpsc::channel(16);
    let shared = Shared {
        client: Client::lazy(ClientConfig::new([NOBODY])).unwrap(),
        config: ConsumerConfig::assigned(),
        positions: Positions::default(),
        fetched,
        membership: Mutex::new(None),
        committing: tokio::sync::Mutex::default(),
        ending: CancellationToken::new(),
        leaving: CancellationToken::new(),
        tasks: TaskTracker::new(),
        members: TaskTracker::new(),
    };
    (Arc::new(shared), received)
}

async fn wait_with_nothing_to_ask_for(is_known: bool) {
    let (shared, mut received) = shared();
    if is_known {
        let (host, port) = ("127.0.0.1".to_owned(), 1);
        shared.client.learn_brokers(&[pb::Broker { broker_id: 1, host, port, ..pb::Broker::default() }]);
    }
    let partition = TopicPartition::new("t", 0);
    shared.positions.add(&[(partition.clone(), 0)]);
    let (of_yesterday, _) = shared.positions.wanted(Instant::now());
    assert!(shared.positions.move_on(&partition, of_yesterday[0].epoch));
    shared.positions.changed.notified().await;
    let (tell, told) = watch::channel(of_yesterday);
    let feed = shared.tasks.spawn(run(Arc::clone(&shared), 1, told));
    // This clock stands still while anybody has something to do.
    sleep(Duration::from_secs(3600)).await;
    assert!(!feed.is_finished());
    let is_heard = |shared: Arc<Shared>| async move {
        timeout(Duration::from_secs(600), shared.positions.changed.notified()).await.is_ok()
    };
    assert!(!is_heard(Arc::clone(&shared)).await, "it asked for a broker, and has nothing to ask it for");
    assert!(received.try_recv().is_err());
    // What is wanted now it asks for at once, and tells that nobody is there.
    tell.send_replace(shared.positions.wanted(Instant::now()).0);
    let has_tried = tokio::select! {
        is_heard = is_heard(Arc::clone(&shared)) => is_heard,
        failed = received.recv() => failed.is_some(),
    };
    assert!(has_tried);
    shared.ending.cancel();
    timeout(Duration::from_secs(600), feed).await.unwrap().unwrap();
}

#[test]
fn a_feed_with_nothing_left_to_ask_for_waits_and_lets_others_run() {
    let (tell, told) = sync_channel(1);
    // Where it turns on the spot, nobody else of its thread comes to run, not even whoever would stop it.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.unwrap().block_on(async {
            for is_known in [true, false] {
                wait_with_nothing_to_ask_for(is_known).await;
            }
        });
        tell.send(()).unwrap();
    });
    told.recv_timeout(Duration::from_secs(30)).expect("the feed waits, as nobody else could");
}

#[test]
fn a_leader_that_is_found_after_a_round_without_one_is_another_than_before() {
    let positions = Positions::default();
    positions.add(&[(TopicPartition::new("t", 0), 5)]);
    let wanted = || positions.wanted(Instant::now()).0.remove(0);
    let mut asked = Asked::default();
    let mut round = |leader: Option<i32>| {
        asked.begin_round();
        let (wanted, Some(leader)) = (wanted(), leader) else {
            asked.keep(&wanted());
            return false;
        };
        let is_of_another = asked.is_of_another(&wanted, leader);
        asked.ask(&wanted, leader);
        is_of_another
    };
    assert!(!round(Some(1)));
    assert!(!round(Some(1)));
    assert!(!round(None));
    assert!(!round(None));
    assert!(round(Some(2)), "the first one may still send");
    assert!(!round(None));
    assert!(!round(Some(2)), "the same one goes on");
    // What is fetched under a new epoch is not what was asked for before.
    let first = wanted();
    assert!(positions.move_on(&first.partition, first.epoch));
    assert!(!round(Some(1)));
}

fn storage_error() -> pb::SubscribeFailure {
    let error = pb::Error {
        reason: ErrorCode::KafkaStorageError.name().to_owned(),
        code: i32::from(ErrorCode::KafkaStorageError.code()),
        message: "its disk".to_owned(),
        retryable: true,
        leader: None,
    };
    pb::SubscribeFailure { topic: "t".to_owned(), partition: Some(0), error: Some(error) }
}

fn wanted_now(shared: &Shared, at: &TopicPartition) -> Option<Wanted> {
    let (all, _) = shared.positions.wanted(Instant::now());
    all.into_iter().find(|wanted| wanted.partition == *at)
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_its_leader_cannot_read_is_told_once_and_tried_on_and_nothing_fetched_is_dropped() {
    let (shared, mut received) = shared();
    let at = TopicPartition::new("t", 0);
    shared.positions.add(&[(at.clone(), 5), (TopicPartition::new("t", 1), 0)]);
    let credit = Arc::default();
    let delivery =
        |next_offset| pb::Delivery { topic: "t".to_owned(), next_offset, ..pb::Delivery::default() };
    let begun = Instant::now();
    let (mut told, mut tries) = (Vec::new(), 0);
    let limit = shared.client.config().operation_timeout;
    let mut fail = async |brings: Option<i64>, told: &mut Vec<i64>| {
        let wanted = wanted_now(&shared, &at).expect("it is tried again");
        let (parts, is_used) = (HashMap::from([(at.clone(), wanted.clone())]), HashMap::new());
        let pieces = Pieces::new();
        let mut feed =
            Feed { shared: &shared, broker: 1, parts, is_used, pieces, has_answered: false, heard_at: None };
        if let Some(next_offset) = brings {
            feed.on_delivery(delivery(next_offset), &credit).await;
        }
        feed.on_failure(&storage_error()).await;
        assert!(feed.parts.is_empty());
        assert_eq!(wanted_now(&shared, &at), None, "not at once");
        let (_, again) = shared.positions.wanted(Instant::now());
        while let Ok(fetched) = received.try_recv() {
            match fetched {
                Fetched::Delivery(delivered) => assert!(delivered.progress.is_current(delivered.epoch)),
                Fetched::Failed(Error::Unreadable { partition: 0, offset, last, .. }) => {
                    assert_eq!(last.code(), Some(ErrorCode::KafkaStorageError));
                    told.push(offset);
                }
                Fetched::Failed(other) => panic!("{other}"),
            }
        }
        tokio::time::sleep_until(again.unwrap()).await;
        assert_ne!(Some(&wanted), wanted_now(&shared, &at).as_ref(), "else nobody would ask anew");
    };
    fail(Some(9), &mut told).await;
    while begun.elapsed() < limit * 3 {
        assert!(told.is_empty() || begun.elapsed() >= limit);
        fail(None, &mut told).await;
        tries += 1;
    }
    assert!(tries > 100);
    assert_eq!(told, [9], "where it stands, though nothing was handed out yet");
    // It can be read again, and then once more it cannot.
    fail(Some(12), &mut told).await;
    let begun = Instant::now();
    while begun.elapsed() < limit * 2 {
        fail(None, &mut told).await;
    }
    assert_eq!(told, [9, 12]);
}
