//! Idempotent producers with acks=all: each keeps several batches on their way to each of its partitions, and sends again, in order and
//! with the same numbers, what it was not told of.

use std::collections::VecDeque;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use floodmark_proto::batch::BatchBuilder;
use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use floodmark_storage::random::SplitMix;
use floodmark_tools::history::{Op, Partition, Value};

use super::{Load, TOPIC};
use crate::kafka_client::{Asked, Kafka, batch_of, produce_request, produced};

/// As many as a broker remembers of an idempotent producer.
const IN_FLIGHT: usize = 5;
const VALUE_BYTES_MIN: usize = 12;
/// Between two batches, so that a run of half an hour stays small.
const BATCH_EVERY: Duration = Duration::from_millis(30);

/// One producer in one partition.
struct Lane {
    load: Load,
    number: u32,
    partition: Partition,
    random: SplitMix,
    /// Id and epoch, once it has one.
    identity: Option<(i64, i16)>,
    sent: u64,
    /// Oldest first; those that are on their way come before those that are not.
    pending: VecDeque<Batch>,
    on_their_way: usize,
}

struct Batch {
    first: u64,
    count: u64,
    bytes: Vec<u8>,
    /// When this attempt began, and what its answer is known by.
    attempt: Option<(u64, Asked)>,
}

/// Produces until the load is over and all of it is acknowledged.
pub(super) fn spawn(load: &Load, (number, partition): (u32, Partition), seed: u64) -> JoinHandle<()> {
    let mut lane = Lane {
        load: load.clone(),
        number,
        partition,
        random: SplitMix::new(seed),
        identity: None,
        sent: 0,
        pending: VecDeque::new(),
        on_their_way: 0,
    };
    thread::spawn(move || {
        while !lane.is_done() {
            if let Err(e) = lane.connect_and_run() {
                lane.load.set_back(&format!("producer: {:?}", e.kind()));
                lane.give_up();
                let Lane { load, random, .. } = &mut lane;
                load.pause(random);
            }
        }
    })
}

impl Lane {
    fn is_done(&self) -> bool {
        // After a complaint nothing is shown by waiting for what is left.
        self.load.is_over() && (self.pending.is_empty() || !self.load.complaints().is_empty())
    }

    fn connect_and_run(&mut self) -> io::Result<()> {
        let mut kafka = self.load.leader_of(self.partition, &mut self.random)?;
        if self.identity.is_none() {
            self.identity = Some(self.identify(&mut kafka)?);
        }
        while !self.is_done() {
            if self.pending.len() < IN_FLIGHT && !self.load.is_over() {
                let batch = self.new_batch();
                self.pending.push_back(batch);
            }
            while self.on_their_way < self.pending.len() {
                self.send_next(&mut kafka)?;
            }
            // Now and then all that is on its way is awaited, mostly some of it.
            let keep = self.random.below(IN_FLIGHT as u64) as usize;
            while self.on_their_way > keep || (self.load.is_over() && self.on_their_way > 0) {
                self.receive(&mut kafka)?;
            }
            thread::sleep(BATCH_EVERY);
        }
        Ok(())
    }

    fn identify(&self, kafka: &mut Kafka) -> io::Result<(i64, i16)> {
        let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let answer = kafka.ask(4, &request)?;
        let got = answer.read::<InitProducerIdResponse>();
        match got.error_code {
            0 => Ok((got.producer_id, got.producer_epoch)),
            code => Err(self.load.judge("a new producer", code, &[])),
        }
    }

    fn send_next(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        let batch = &mut self.pending[self.on_their_way];
        let request = produce_request(TOPIC, self.partition as i32, -1, Some(&batch.bytes));
        let (asked, frame) = kafka.frame(9, &request);
        batch.attempt = Some((self.load.recorder.begin(), asked));
        self.on_their_way += 1;
        io::Write::write_all(&mut kafka.socket, &frame)
    }

    /// The answer to the oldest.
    fn receive(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        let Some((begun, asked)) = self.pending.front().and_then(|batch| batch.attempt) else {
            return Ok(());
        };
        let answer = kafka.receive(asked)?;
        let outcome = produced(&answer.read());
        if outcome.error_code != 0 {
            // The oldest is never out of order, and nobody else has this producer's id.
            let who = format!("producer {} in partition {}: {outcome:?}", self.number, self.partition);
            return Err(self.load.judge(&who, outcome.error_code, &[ErrorCode::KafkaStorageError]));
        }
        let Some(batch) = self.pending.pop_front() else { return Ok(()) };
        self.on_their_way -= 1;
        self.record(&batch, begun, Some(outcome.base_offset));
        self.load.acked(self.partition, begun);
        Ok(())
    }

    /// Nobody will tell what became of what was on its way.
    fn give_up(&mut self) {
        for n in 0..std::mem::take(&mut self.on_their_way) {
            if let Some((begun, _)) = self.pending[n].attempt.take() {
                self.record(&self.pending[n], begun, None);
            }
        }
    }

    fn record(&self, batch: &Batch, begun: u64, acked_at: Option<i64>) {
        let (producer, partition) = (self.number, self.partition);
        let &Batch { first, count, .. } = batch;
        let op = Op::Send { producer, idempotent: true, partition, first, count, acked_at };
        self.load.recorder.end(begun, op);
    }

    fn new_batch(&mut self) -> Batch {
        let (first, count) = (self.sent, 1 + self.random.below(4));
        self.sent += count;
        let mut builder = BatchBuilder::new();
        if let Some((id, epoch)) = self.identity {
            builder = builder.producer(ProducerId(id), epoch, i32::try_from(first).unwrap());
        }
        let values: Vec<Vec<u8>> = (first..first + count)
            .map(|n| value_of(self.number, n, self.random.below(400) as usize))
            .collect();
        let bytes = batch_of(builder, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Batch { first, count, bytes, attempt: None }
    }
}

/// A value, and so many bytes more.
pub(crate) fn value_of(producer: u32, n: u64, more: usize) -> Vec<u8> {
    let mut bytes = [&producer.to_be_bytes()[..], &n.to_be_bytes()].concat();
    bytes.resize(VALUE_BYTES_MIN + more, b'.');
    bytes
}

/// What a record holds.
pub(crate) fn value_in(bytes: &[u8]) -> Value {
    let producer = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    Value { producer, n: u64::from_be_bytes(bytes[4..VALUE_BYTES_MIN].try_into().unwrap()) }
}
