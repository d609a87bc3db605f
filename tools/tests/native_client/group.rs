//! Groups: sharing, moving, committing, and what each way of committing means.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use floodmark_client::{
    Assignor, Commit, Consumer, ConsumerConfig, Rebalance, RebalanceChange, Record, TopicPartition,
};

use super::{Served, in_time, numbers, receive, text, texts};

fn member(group: &str) -> ConsumerConfig {
    let heartbeat_interval = Duration::from_millis(100);
    ConsumerConfig { heartbeat_interval, ..ConsumerConfig::group(group, ["t"]).from_start() }
}

/// Reads until everybody has read so many together; the records by member.
async fn read_together(consumers: &mut [Consumer], count: usize) -> Vec<Vec<Record>> {
    let mut read: Vec<Vec<Record>> = consumers.iter().map(|_| Vec::new()).collect();
    let all = async {
        while read.iter().map(Vec::len).sum::<usize>() < count {
            for (consumer, read) in consumers.iter_mut().zip(&mut read) {
                if let Ok(record) = tokio::time::timeout(Duration::from_millis(5), consumer.recv()).await {
                    read.push(record.unwrap());
                }
            }
        }
    };
    in_time(all).await;
    read
}

async fn until_assigned(consumer: &mut Consumer, count: usize) {
    let handle = consumer.handle();
    let assigned = async {
        while handle.assignment().len() != count {
            // A member that reads nothing is asked to all the same.
            let _ = tokio::time::timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
        }
    };
    in_time(assigned).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_and_one_takes_over_what_the_other_leaves() {
    for assignors in [
        vec![Assignor::Range, Assignor::CooperativeSticky],
        vec![Assignor::RoundRobin],
        vec![Assignor::CooperativeSticky],
    ] {
        let served = Served::start().await;
        served.topic("t", 4).await;
        let config = ConsumerConfig { assignors, ..member("g") };
        let mut first = served.client.consumer(config.clone()).await.unwrap();
        until_assigned(&mut first, 4).await;
        let mut second = served.client.consumer(config).await.unwrap();
        until_assigned(&mut second, 2).await;
        until_assigned(&mut first, 2).await;
        let both: BTreeSet<TopicPartition> =
            first.handle().assignment().into_iter().chain(second.handle().assignment()).collect();
        assert_eq!(both.len(), 4);
        for partition in 0..4 {
            served.write("t", partition, numbers(0, 50)).await;
        }
        let mut consumers = [first, second];
        let read = read_together(&mut consumers, 200).await;
        assert_eq!((read[0].len(), read[1].len()), (100, 100));
        let group = served.client.admin().group("g").await.unwrap();
        assert_eq!((group.state.as_str(), group.members.len()), ("Stable", 2));
        let [mut first, second] = consumers;
        in_time(second.close()).await.unwrap();
        until_assigned(&mut first, 4).await;
        served.write("t", 3, numbers(50, 60)).await;
        // What was in hand when the partition moved may come again.
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "59") {
            seen.extend(texts(&receive(&mut first, 1).await));
        }
        assert!(seen.ends_with(&numbers(50, 60)) && seen.len() <= 11, "{seen:?}");
        in_time(first.close()).await.unwrap();
        let group = served.client.admin().group("g").await.unwrap();
        let lags: Vec<Option<i64>> = group.partitions.iter().map(|partition| partition.lag).collect();
        assert_eq!((group.state.as_str(), lags), ("Empty", vec![Some(0); 4]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_reads_again_what_was_not_done_and_at_most_once_nothing() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 100)).await;
    let mut consumer = served.client.consumer(member("least")).await.unwrap();
    receive(&mut consumer, 10).await;
    // The tenth was handed out, and nobody has asked for another: it is not done.
    drop(consumer);
    let mut consumer = served.client.consumer(member("least")).await.unwrap();
    assert_eq!(text(&in_time(consumer.recv()).await.unwrap()), "9");
    in_time(consumer.close()).await.unwrap();
    let mut consumer = served.client.consumer(member("least")).await.unwrap();
    assert_eq!(text(&in_time(consumer.recv()).await.unwrap()), "10");
    drop(consumer);

    let mut consumer = served.client.consumer(member("most").at_most_once()).await.unwrap();
    let handed_out = receive(&mut consumer, 10).await;
    assert_eq!(texts(&handed_out), numbers(0, 10));
    drop(consumer);
    let committed = served.client.admin().committed("most", &[]).await.unwrap();
    assert!(committed[0].offset.unwrap() >= 10, "{committed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_by_hand_and_by_the_clock() {
    let served = Served::start().await;
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 100)).await;
    let committed = || async {
        let committed = served.client.admin().committed("g", &[TopicPartition::new("t", 0)]).await.unwrap();
        committed[0].offset
    };
    let mut consumer = served.client.consumer(member("g").manual()).await.unwrap();
    receive(&mut consumer, 10).await;
    assert_eq!(committed().await, None);
    consumer.handle().commit().await.unwrap();
    assert_eq!(committed().await, Some(10));
    in_time(consumer.close()).await.unwrap();
    assert_eq!(committed().await, Some(10));
    let config =
        ConsumerConfig { commit: Commit::AtLeastOnce { interval: Duration::from_millis(50) }, ..member("g") };
    let mut consumer = served.client.consumer(config).await.unwrap();
    receive(&mut consumer, 11).await;
    let is_committed = async {
        while committed().await != Some(20) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(is_committed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_hear_what_comes_and_goes_and_may_seek() {
    let served = Served::start().await;
    served.topic("t", 2).await;
    for partition in 0..2 {
        served.write("t", partition, numbers(0, 10)).await;
    }
    let heard: Arc<Mutex<Vec<(RebalanceChange, usize)>>> = Arc::default();
    let config = member("g").on_rebalance({
        let heard = Arc::clone(&heard);
        move |rebalance: Rebalance| {
            heard.lock().unwrap().push((rebalance.change, rebalance.partitions.len()));
            async move {
                if rebalance.change == RebalanceChange::Assigned {
                    for partition in &rebalance.partitions {
                        rebalance.consumer.seek(partition, floodmark_client::Begin::Offset(7)).await.unwrap();
                    }
                }
            }
        }
    });
    let mut consumer = served.client.consumer(config).await.unwrap();
    let records = receive(&mut consumer, 6).await;
    assert!(records.iter().all(|record| record.offset >= 7));
    in_time(consumer.close()).await.unwrap();
    assert_eq!(*heard.lock().unwrap(), [(RebalanceChange::Assigned, 2), (RebalanceChange::Revoked, 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_comes_later_is_found_and_a_coordinator_that_restarts_keeps_the_group() {
    let mut served = Served::start().await;
    let mut consumer = served.client.consumer(member("g")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    served.topic("t", 1).await;
    served.write("t", 0, numbers(0, 10)).await;
    assert_eq!(texts(&receive(&mut consumer, 10).await), numbers(0, 10));
    tokio::task::block_in_place(|| {
        served.stop();
        served.start_again();
    });
    served.write("t", 0, numbers(10, 20)).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "19") {
        seen.extend(texts(&receive(&mut consumer, 1).await));
    }
    assert!(seen.ends_with(&numbers(10, 20)), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_comes_back_to_its_partitions_and_nobody_else_notices() {
    let served = Served::start().await;
    served.topic("t", 4).await;
    let named = |name: &str| ConsumerConfig { instance_id: Some(name.to_owned()), ..member("g") };
    let heard: Arc<Mutex<Vec<RebalanceChange>>> = Arc::default();
    let config = named("a").on_rebalance({
        let heard = Arc::clone(&heard);
        move |rebalance: Rebalance| {
            heard.lock().unwrap().push(rebalance.change);
            async {}
        }
    });
    let mut first = served.client.consumer(config).await.unwrap();
    until_assigned(&mut first, 4).await;
    let mut second = served.client.consumer(named("b")).await.unwrap();
    until_assigned(&mut second, 2).await;
    until_assigned(&mut first, 2).await;
    let of_second = second.handle().assignment();
    let of_first = first.handle().assignment();
    // All of them, taken away, and half of them: the last is told a moment after it can be seen.
    let is_told = async {
        while heard.lock().unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(is_told).await;
    heard.lock().unwrap().clear();
    for (from, to) in [(0, 20), (20, 40)] {
        for partition in &of_second {
            served.write("t", partition.partition, numbers(from, to)).await;
        }
        assert_eq!(receive(&mut second, 40).await.len(), 40);
        // It goes with a word and with none; the group keeps its place either way.
        if from == 0 {
            in_time(second.close()).await.unwrap();
        } else {
            second.handle().commit().await.unwrap();
            drop(second);
        }
        let group = served.client.admin().group("g").await.unwrap();
        let mut instances: Vec<_> = group.members.iter().filter_map(|m| m.instance_id.as_deref()).collect();
        instances.sort_unstable();
        assert_eq!((group.state.as_str(), instances), ("Stable", vec!["a", "b"]));
        second = served.client.consumer(named("b")).await.unwrap();
        until_assigned(&mut second, 2).await;
        assert_eq!(second.handle().assignment(), of_second);
    }
    for partition in &of_second {
        served.write("t", partition.partition, numbers(40, 50)).await;
    }
    let again = receive(&mut second, 20).await;
    assert!(again.iter().all(|record| record.offset >= 40), "it goes on where it stopped: {again:?}");
    assert_eq!((heard.lock().unwrap().as_slice(), first.handle().assignment()), (&[][..], of_first));

    // Two under one name: the older one is told, and reads no more.
    let mut third = served.client.consumer(named("b")).await.unwrap();
    until_assigned(&mut third, 2).await;
    assert_eq!(third.handle().assignment(), of_second);
    let error = in_time(second.recv()).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.name()), Some("FENCED_INSTANCE_ID"), "{error}");
    assert_eq!(second.handle().assignment(), []);
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_read_a_topic_that_is_deleted_is_told_and_closes() {
    let served = Served::start().await;
    for name in ["t", "other"] {
        served.topic(name, 1).await;
        served.write(name, 0, numbers(0, 1)).await;
    }
    let config = ConsumerConfig { topics: vec!["t".to_owned(), "other".to_owned()], ..member("g") };
    let mut consumer = served.client.consumer(config).await.unwrap();
    assert_eq!(receive(&mut consumer, 2).await.len(), 2);
    served.client.admin().delete_topic("t").await.unwrap();
    let handle = consumer.handle();
    // The group learns of it at some time, and then there is nothing to be refused.
    if let Err(error) = in_time(handle.commit()).await {
        assert!(matches!(error, floodmark_client::Error::Refused(_)), "{error}");
    }
    in_time(consumer.close()).await.unwrap();
    let other = TopicPartition::new("other", 0);
    let committed = served.client.admin().committed("g", std::slice::from_ref(&other)).await.unwrap();
    assert!(committed.iter().any(|of| of.partition == other && of.offset == Some(1)), "{committed:?}");
}
