//! Producers that keep several batches on their way. One with idempotence sends again, in order and with the same numbers, what it was
//! not told of; one without never does, so that everything it sends must be there once at most as well.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use floodmark_proto::batch::BatchBuilder;
use floodmark_proto::ids::ProducerId;
use floodmark_proto::kafka::ErrorCode;
use floodmark_tools::history::{Op, Partition, Value};

use crate::kafka_client::{Asked, Kafka, batch_of, produce_request, produced};
use crate::{Load, Numbers, PARTITIONS, TOPIC};

/// As many as a broker remembers of an idempotent producer.
const IN_FLIGHT: usize = 5;
const VALUE_BYTES_MIN: usize = 12;

struct Producer {
    load: Load,
    number: u32,
    idempotent: bool,
    /// Id and epoch, once it has one.
    identity: Option<(i64, i16)>,
    numbers: Numbers,
    /// How many values each partition has been sent.
    sent: BTreeMap<Partition, u64>,
    /// Oldest first; those that are on their way come before those that are not.
    pending: VecDeque<Batch>,
    on_their_way: usize,
}

struct Batch {
    partition: Partition,
    first: u64,
    count: u64,
    bytes: Vec<u8>,
    /// When this attempt began, and what its answer is known by.
    attempt: Option<(u64, Asked)>,
}

/// Produces until the load is over.
pub(crate) fn spawn(load: &Load, number: u32, idempotent: bool) -> JoinHandle<()> {
    let mut producer = Producer {
        load: load.clone(),
        number,
        idempotent,
        identity: None,
        numbers: Numbers(u64::from(number)),
        sent: BTreeMap::new(),
        pending: VecDeque::new(),
        on_their_way: 0,
    };
    thread::spawn(move || {
        while !producer.is_done() {
            let mut kafka = producer.load.connect();
            // The broker was killed; what was on its way is unknown from now on.
            let _ = producer.run(&mut kafka);
            producer.give_up();
        }
    })
}

impl Producer {
    fn is_done(&self) -> bool {
        self.load.is_over() && self.pending.is_empty()
    }

    fn run(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        if self.idempotent && self.identity.is_none() {
            self.identity = Some(kafka.init_producer_id()?);
        }
        while !self.is_done() {
            if self.pending.len() < IN_FLIGHT && !self.load.is_over() {
                let batch = self.new_batch();
                self.pending.push_back(batch);
            }
            while self.on_their_way < self.pending.len() {
                let batch = &mut self.pending[self.on_their_way];
                let request = produce_request(TOPIC, batch.partition as i32, -1, Some(&batch.bytes));
                let (asked, frame) = kafka.frame(9, &request);
                batch.attempt = Some((self.load.recorder.begin(), asked));
                self.on_their_way += 1;
                io::Write::write_all(&mut kafka.socket, &frame)?;
            }
            if self.pending.len() == IN_FLIGHT || self.load.is_over() {
                self.receive(kafka)?;
            }
        }
        Ok(())
    }

    /// The answer to the oldest.
    fn receive(&mut self, kafka: &mut Kafka) -> io::Result<()> {
        let Some((begun, asked)) = self.pending.front().and_then(|batch| batch.attempt) else {
            return Ok(());
        };
        let answer = kafka.receive(asked)?;
        let outcome = produced(&answer.read());
        if outcome.error_code != 0 {
            let code = ErrorCode::from_code(outcome.error_code).unwrap();
            if !code.is_retriable() {
                // The oldest is never out of order, and nobody else has this producer's id.
                self.load.complain(format!("producer {} is told {code:?}: {outcome:?}", self.number));
            }
            return Err(io::Error::other(code.name()));
        }
        let Some(batch) = self.pending.pop_front() else { return Ok(()) };
        self.on_their_way -= 1;
        self.record(&batch, begun, Some(outcome.base_offset));
        self.load.acks.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Nobody will tell what became of what was on its way.
    fn give_up(&mut self) {
        for n in 0..std::mem::take(&mut self.on_their_way) {
            let attempt = self.pending[n].attempt.take();
            if let Some((begun, _)) = attempt {
                self.record(&self.pending[n], begun, None);
            }
        }
        let is_refused = !self.load.complaints.lock().unwrap().is_empty();
        if !self.idempotent || is_refused {
            self.pending.clear();
        }
    }

    fn record(&self, batch: &Batch, begun: u64, acked_at: Option<i64>) {
        let &Batch { partition, first, count, .. } = batch;
        let (producer, idempotent) = (self.number, self.idempotent);
        self.load.recorder.end(begun, Op::Send { producer, idempotent, partition, first, count, acked_at });
    }

    fn new_batch(&mut self) -> Batch {
        let partition = self.numbers.below(u64::from(PARTITIONS)) as Partition;
        let count = 1 + self.numbers.below(5);
        let sent = self.sent.entry(partition).or_default();
        let first = *sent;
        *sent += count;
        let mut builder = BatchBuilder::new();
        if let Some((id, epoch)) = self.identity {
            builder = builder.producer(ProducerId(id), epoch, i32::try_from(first).unwrap());
        }
        let values: Vec<Vec<u8>> = (first..first + count)
            .map(|n| {
                let mut bytes = [&self.number.to_be_bytes()[..], &n.to_be_bytes()].concat();
                bytes.resize(VALUE_BYTES_MIN + self.numbers.below(500) as usize, b'.');
                bytes
            })
            .collect();
        let bytes = batch_of(builder, &values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        Batch { partition, first, count, bytes, attempt: None }
    }
}

/// What a record holds.
pub(crate) fn value_in(bytes: &[u8]) -> Value {
    let producer = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    Value { producer, n: u64::from_be_bytes(bytes[4..VALUE_BYTES_MIN].try_into().unwrap()) }
}
