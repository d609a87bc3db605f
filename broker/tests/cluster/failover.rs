//! A leader that goes while producers write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use floodmark_proto::batch::BatchBuilder;
use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use floodmark_storage::clock::Stopwatch;

use crate::kafka_client::{Kafka, batch_of};
use crate::setup::{PATIENCE, Three};

const PARTITIONS: i32 = 3;
/// Batches that each producer has acknowledged before the leader goes, and after.
const BEFORE: u32 = 20;
const AFTER: u32 = 40;

/// A producer of one partition that numbers its batches and sends each until it is acknowledged, to whoever leads.
struct Sending {
    addresses: Vec<std::net::SocketAddr>,
    partition: i32,
    producer: (i64, i16),
    leader: Option<Kafka>,
}

impl Sending {
    fn send(&mut self, number: u32) {
        let builder = BatchBuilder::new().producer(
            ProducerId(self.producer.0),
            self.producer.1,
            i32::try_from(number).unwrap(),
        );
        let batch = batch_of(builder, &[number.to_string().as_bytes()]);
        let since = Stopwatch::start();
        loop {
            assert!(since.elapsed() < PATIENCE, "nobody takes {number} of {}", self.partition);
            if let Some(leader) = &mut self.leader {
                match leader.produce("t", self.partition, -1, &batch) {
                    Ok(produced) if produced.error_code == 0 => return,
                    Ok(produced) => {
                        let code = ErrorCode::from_code(produced.error_code).unwrap();
                        assert!(code.is_retriable(), "{code:?}: {produced:?}");
                    }
                    // Nobody knows whether it was written: the same batch is sent again.
                    Err(_lost) => {}
                }
            }
            self.leader = self.find();
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Whoever leads by the first broker that answers.
    fn find(&self) -> Option<Kafka> {
        self.addresses.iter().find_map(|address| {
            let mut kafka = Kafka::connect(*address).ok()?;
            let topics = Some(vec![MetadataRequestTopic { name: Some("t"), ..Default::default() }]);
            let answer = kafka.ask(12, &MetadataRequest { topics, ..Default::default() }).ok()?;
            let metadata = answer.read::<MetadataResponse<'_>>();
            let partitions = &metadata.topics.first()?.partitions;
            let leader = partitions.iter().find(|p| p.partition_index == self.partition)?.leader_id;
            let at = metadata.brokers.iter().find(|broker| broker.node_id == leader)?;
            Kafka::connect(format!("{}:{}", at.host, at.port).parse().ok()?).ok()
        })
    }
}

#[test]
fn a_leader_that_goes_costs_no_acknowledged_record_doubles_none_and_keeps_their_order() {
    let mut three = Three::start();
    let leaders = three.topic(1, "t", PARTITIONS);
    let addresses: Vec<_> = (1..=3).map(|id| three.broker(id).kafka_address()).collect();
    let acknowledged: Arc<Vec<AtomicU32>> = Arc::new((0..PARTITIONS).map(|_| AtomicU32::new(0)).collect());
    let has_gone = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PARTITIONS)
        .map(|partition| {
            let producer = three.kafka(2).init_producer_id().unwrap();
            let mut sending = Sending { addresses: addresses.clone(), partition, producer, leader: None };
            let (acknowledged, has_gone) = (Arc::clone(&acknowledged), Arc::clone(&has_gone));
            thread::spawn(move || {
                let mut left = AFTER;
                let mut number = 0;
                while left > 0 {
                    let is_after = has_gone.load(Ordering::Acquire);
                    sending.send(number);
                    number += 1;
                    acknowledged[usize::try_from(partition).unwrap()].store(number, Ordering::Release);
                    left -= u32::from(is_after);
                }
                number
            })
        })
        .collect();
    let all_have = |count| acknowledged.iter().all(|n| n.load(Ordering::Acquire) >= count).then_some(());
    three.until("every producer has written", || all_have(BEFORE));
    three.drop_broker(leaders[0]);
    has_gone.store(true, Ordering::Release);
    let written: Vec<u32> = producers.into_iter().map(|producer| producer.join().unwrap()).collect();
    three.leader_after(leaders[0], "t", 0);
    let read_all = |three: &Three| -> BTreeMap<i32, Vec<(i64, Vec<u8>)>> {
        (0..PARTITIONS)
            .map(|p| (p, three.kafka(three.leader("t", p)).read_from("t", p, 0).unwrap()))
            .collect()
    };
    let read = read_all(&three);
    for (partition, written) in (0..).zip(&written) {
        let values: Vec<String> =
            read[&partition].iter().map(|(_, value)| String::from_utf8(value.clone()).unwrap()).collect();
        let expected: Vec<String> = (0..*written).map(|number| number.to_string()).collect();
        assert_eq!(values, expected, "partition {partition}: each once, in order");
    }
    // It comes back, has the same and is in sync again.
    three.start_again(leaders[0]);
    three.until("all are in sync again", || {
        let metadata = three.metadata(three.ids()[0], &["t"]);
        metadata.partitions.values().all(|p| p.isr_nodes.len() == 3).then_some(())
    });
    assert_eq!(read_all(&three), read);
}
