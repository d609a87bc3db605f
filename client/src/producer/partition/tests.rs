//! Worked cases of what may be sent next, and what becomes of batches that come back.

use floodmark_proto::batch::check_from_client;
use floodmark_proto::pb::v1 as pb;

use super::*;
use crate::config::ClientConfig;
use crate::record::Durability;

const SIZE: usize = 100;

fn config() -> ProducerConfig {
    ProducerConfig { batch_bytes: 1000, ..ProducerConfig::default() }
}

fn partition() -> Partition {
    Partition::new(
        Arc::from("t"),
        0,
        Arc::new(Buffer::new(1 << 20)),
        Backoff::new(&ClientConfig::new(["a:1"])),
    )
}

fn identity() -> Option<Identity> {
    Some(Identity { id: ProducerId(7), epoch: 0 })
}

fn append(partition: &Partition, config: &ProducerConfig) -> Delivery {
    let record = BatchRecord { value: Some(&[b'v'; 50]), ..BatchRecord::default() };
    partition.state.lock().buffer.try_take(SIZE).unwrap();
    partition.append(config, &record, SIZE).unwrap().0
}

fn buffered(partition: &Partition) -> usize {
    partition.state.lock().buffer.used_bytes()
}

/// Appends enough for `batches` batches of ten records each but for the last.
fn fill(partition: &Partition, config: &ProducerConfig, batches: usize) -> Vec<Delivery> {
    (0..batches * 14).map(|_| append(partition, config)).collect()
}

fn refusal(code: ErrorCode, retryable: bool) -> Error {
    Error::from(&pb::Error {
        reason: code.name().to_owned(),
        code: i32::from(code.code()),
        message: "no".to_owned(),
        retryable,
        leader: None,
    })
}

fn placed(base_offset: i64) -> Result<BatchPlaced> {
    Ok(BatchPlaced { base_offset, log_append_time_ms: None, durability: Durability::SyncedHere })
}

/// What is sent, as its order and header; panics where nothing is.
fn sent(partition: &Partition, config: &ProducerConfig) -> (u64, BatchHeader) {
    match partition.next(config, identity(), Instant::now()) {
        Step::Send { order, bytes } => (order, check_from_client(&bytes, usize::MAX).unwrap()),
        step => panic!("nothing is sent but {step:?}"),
    }
}

fn is_blocked(partition: &Partition, config: &ProducerConfig) -> bool {
    matches!(partition.next(config, identity(), Instant::now()), Step::Blocked)
}

async fn wait_over(partition: &Partition, config: &ProducerConfig) {
    match partition.next(config, identity(), Instant::now()) {
        Step::Wait(until) => tokio::time::sleep_until(until).await,
        step => panic!("no wait but {step:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn without_linger_the_first_goes_at_once_and_the_rest_when_it_is_back() {
    let (partition, config) = (partition(), config());
    let first = append(&partition, &config);
    let (order, header) = sent(&partition, &config);
    assert_eq!((header.record_count, header.base_sequence), (1, 0));
    let more: Vec<Delivery> = (0..3).map(|_| append(&partition, &config)).collect();
    assert!(is_blocked(&partition, &config));
    partition.on_reply(&config, order, placed(40), Instant::now());
    assert_eq!(buffered(&partition), 3 * SIZE);
    assert_eq!(first.await.unwrap().offset, 40);
    let (order, header) = sent(&partition, &config);
    assert_eq!((header.record_count, header.base_sequence), (3, 1));
    partition.on_reply(&config, order, placed(41), Instant::now());
    for (offset, delivery) in (41..).zip(more) {
        assert_eq!(delivery.await.unwrap().offset, offset);
    }
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Idle));
}

#[tokio::test(start_paused = true)]
async fn linger_holds_a_batch_until_its_time_or_a_flush() {
    let partition = partition();
    let config = ProducerConfig { linger: Duration::from_millis(5), ..config() };
    let _one = append(&partition, &config);
    let Step::Wait(until) = partition.next(&config, identity(), Instant::now()) else { panic!("it lingers") };
    tokio::time::sleep_until(until).await;
    sent(&partition, &config);
    let _two = append(&partition, &config);
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Wait(_)));
    assert_eq!(partition.flush().len(), 2);
    sent(&partition, &config);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_five_are_under_way_and_sequences_follow_each_other() {
    let (partition, config) = (partition(), config());
    let _kept = fill(&partition, &config, 8);
    let mut next_sequence = 0;
    for _ in 0..5 {
        let (_, header) = sent(&partition, &config);
        assert_eq!(header.base_sequence, next_sequence);
        next_sequence += header.record_count;
    }
    assert!(is_blocked(&partition, &config));
}

#[tokio::test(start_paused = true)]
async fn what_comes_back_is_sent_again_in_order_under_its_numbers() {
    let (partition, config) = (partition(), config());
    let _kept = fill(&partition, &config, 4);
    let flights: Vec<(u64, BatchHeader)> = (0..3).map(|_| sent(&partition, &config)).collect();
    let now = Instant::now();
    partition.on_reply(&config, flights[0].0, Err(refusal(ErrorCode::NotEnoughReplicas, true)), now);
    // Nothing overtakes it.
    assert!(is_blocked(&partition, &config));
    for flight in &flights[1..] {
        partition.on_reply(&config, flight.0, Err(refusal(ErrorCode::OutOfOrderSequenceNumber, false)), now);
    }
    wait_over(&partition, &config).await;
    for flight in &flights {
        assert_eq!(sent(&partition, &config), *flight);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_brings_back_everything_and_another_leader_is_looked_for() {
    let (partition, config) = (partition(), config());
    let _kept = fill(&partition, &config, 3);
    let flights: Vec<(u64, BatchHeader)> = (0..2).map(|_| sent(&partition, &config)).collect();
    let lost = Error::Unreachable { address: "a:1".to_owned(), reason: "reset".to_owned() };
    partition.on_lost(&lost, Instant::now());
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Rehome));
    partition.state.lock().is_misdirected = false;
    wait_over(&partition, &config).await;
    for flight in &flights {
        assert_eq!(sent(&partition, &config), *flight);
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_batch_that_is_refused_for_good_the_others_get_a_new_identity() {
    let (partition, config) = (partition(), config());
    let mut deliveries = fill(&partition, &config, 4);
    let (first, second) = (sent(&partition, &config), sent(&partition, &config));
    let now = Instant::now();
    let before = buffered(&partition);
    partition.on_reply(&config, first.0, Err(refusal(ErrorCode::MessageTooLarge, false)), now);
    assert_eq!(buffered(&partition), before - SIZE * first.1.record_count as usize);
    let refused = deliveries.remove(0).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::MessageTooLarge));
    partition.on_reply(&config, second.0, Err(refusal(ErrorCode::OutOfOrderSequenceNumber, false)), now);
    wait_over(&partition, &config).await;
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Identify));
    partition.identify(Identity { id: ProducerId(8), epoch: 2 });
    let (order, header) = sent(&partition, &config);
    assert_eq!(order, second.0);
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (ProducerId(8), 2, 0));
    let (_, header) = sent(&partition, &config);
    assert_eq!((header.producer_id, header.base_sequence), (ProducerId(8), second.1.record_count));
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_written_keeps_its_identity_until_that_is_cleared_up() {
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..config() };
    let partition = partition();
    let mut deliveries = fill(&partition, &config, 1);
    let first = sent(&partition, &config);
    tokio::time::sleep(Duration::from_secs(6)).await;
    deliveries.extend(fill(&partition, &config, 1));
    partition.flush();
    let second = sent(&partition, &config);
    let lost = Error::Unreachable { address: "a:1".to_owned(), reason: "reset".to_owned() };
    partition.on_lost(&lost, Instant::now());
    partition.state.lock().is_misdirected = false;
    // The first one's time is over; whether it was written is not known, nor of the second.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let again = sent(&partition, &config);
    assert!(matches!(deliveries.remove(0).await, Err(Error::Deadline { last: Some(_), .. })));
    assert_eq!((again.0, again.1.producer_id), (second.0, first.1.producer_id));
    assert!(is_blocked(&partition, &config));
    partition.on_reply(
        &config,
        again.0,
        Err(refusal(ErrorCode::OutOfOrderSequenceNumber, false)),
        Instant::now(),
    );
    wait_over(&partition, &config).await;
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Identify));
}

/// A leader says that it leads no more of what it has written and handed on, too.
#[tokio::test(start_paused = true)]
async fn what_a_leader_that_was_replaced_may_have_kept_is_cleared_up_first_too() {
    for code in [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch, ErrorCode::KafkaStorageError] {
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..config() };
        let partition = partition();
        let mut deliveries = fill(&partition, &config, 1);
        let first = sent(&partition, &config);
        tokio::time::sleep(Duration::from_secs(6)).await;
        deliveries.extend(fill(&partition, &config, 1));
        partition.flush();
        let second = sent(&partition, &config);
        for flight in [first, second] {
            partition.on_reply(&config, flight.0, Err(refusal(code, true)), Instant::now());
        }
        partition.state.lock().is_misdirected = false;
        // The first one's time is over.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let again = sent(&partition, &config);
        assert!(matches!(deliveries.remove(0).await, Err(Error::Deadline { last: Some(_), .. })));
        assert_eq!((again.0, again.1), (second.0, second.1), "the log knows it by this if it has it");
        partition.on_reply(&config, again.0, placed(7), Instant::now());
        let _next = append(&partition, &config);
        assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Identify));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_forgot_the_producer_is_met_with_a_new_identity() {
    let (partition, config) = (partition(), config());
    let _kept = append(&partition, &config);
    let (order, _) = sent(&partition, &config);
    partition.on_reply(&config, order, Err(refusal(ErrorCode::UnknownProducerId, false)), Instant::now());
    wait_over(&partition, &config).await;
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Identify));
}

#[tokio::test(start_paused = true)]
async fn every_codec_makes_a_batch_that_a_broker_takes() {
    for compression in super::super::Compression::ALL {
        let config = ProducerConfig { compression, ..config() };
        let partition = partition();
        let _kept = fill(&partition, &config, 2);
        let (_, header) = sent(&partition, &config);
        assert_eq!(header.attributes.compression(), Some(compression));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_cannot_be_encoded_fails_alone_and_gives_its_bytes_back() {
    let partition = partition();
    let config = ProducerConfig {
        compression: super::super::Compression::Gzip,
        compression_level: Some(77),
        ..config()
    };
    let delivery = append(&partition, &config);
    let step = partition.next(&config, identity(), Instant::now());
    assert!(matches!(step, Step::Wait(_)), "{step:?}");
    assert_eq!(buffered(&partition), 0);
    assert!(matches!(delivery.await, Err(Error::Batch(_))));
}

#[tokio::test(start_paused = true)]
async fn sequences_wrap_to_zero() {
    let (partition, config) = (partition(), config());
    partition.state.lock().next_sequence = i32::MAX;
    let _kept: Vec<Delivery> = (0..2).map(|_| append(&partition, &config)).collect();
    sent(&partition, &config);
    assert_eq!(partition.state.lock().next_sequence, 1);
}

#[tokio::test(start_paused = true)]
async fn a_batch_grows_while_as_many_are_under_way_as_may_be() {
    const LARGE: usize = 50_000;
    let config = ProducerConfig::default();
    let backoff = Backoff::new(&ClientConfig::new(["a:1"]));
    let partition = Partition::new(Arc::from("t"), 0, Arc::new(Buffer::new(8 << 20)), backoff);
    let append = || {
        let record = BatchRecord { value: Some(&[b'v'; LARGE - 100]), ..BatchRecord::default() };
        partition.state.lock().buffer.try_take(LARGE).unwrap();
        drop(partition.append(&config, &record, LARGE).unwrap());
    };
    let mut orders = Vec::new();
    while orders.len() < config.in_flight_max {
        append();
        if let Step::Send { order, bytes } = partition.next(&config, identity(), Instant::now()) {
            assert!(bytes.len() <= config.sent_at_bytes());
            orders.push(order);
        }
    }
    (0..12).for_each(|_| append());
    assert!(is_blocked(&partition, &config));
    partition.on_reply(&config, orders[0], placed(0), Instant::now());
    let (_, header) = sent(&partition, &config);
    assert!(header.record_count >= 12, "{header:?}");
    // And no further than it may.
    (0..25).for_each(|_| append());
    partition.on_reply(&config, orders[1], placed(1), Instant::now());
    let (_, header) = sent(&partition, &config);
    assert!(header.size_bytes() <= config.batch_bytes && header.size_bytes() > config.batch_bytes - LARGE);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_in_time_though_no_answer_comes_and_nothing_more_is_sent_meanwhile() {
    let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..config() };
    let partition = partition();
    let mut deliveries = fill(&partition, &config, 2);
    let last = deliveries.pop().unwrap();
    let first = sent(&partition, &config);
    assert!(partition.tell_overdue(&config, Instant::now()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!partition.tell_overdue(&config, Instant::now()), "nobody waits on");
    for delivery in [deliveries.remove(0), last] {
        let Err(Error::Deadline { last: Some(last), .. }) = delivery.await else { panic!("not told") };
        assert!(last.to_string().contains("the leader of t-0"), "{last}");
    }
    assert!(buffered(&partition) > 0, "what is under way has its memory");
    assert!(is_blocked(&partition, &config), "what has failed is not sent");
    // The answer finds its batch, and what comes later goes on behind it.
    partition.on_reply(&config, first.0, placed(0), Instant::now());
    assert!(matches!(partition.next(&config, identity(), Instant::now()), Step::Idle));
    assert_eq!(buffered(&partition), 0);
    let _next = append(&partition, &config);
    assert_eq!(sent(&partition, &config).1.base_sequence, first.1.record_count);
}
