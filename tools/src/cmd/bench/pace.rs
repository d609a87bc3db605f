//! Writes records when they are due. Each carries its number, from which whoever reads it knows when that was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use floodmark_client::{Delivery, Error, NewRecord, Producer};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::figures::Latencies;

/// A run's own number, then the record's.
pub(super) const STAMP_LENGTH: usize = 16;

/// Records whose acknowledgement nobody has looked at yet.
const DELIVERIES_MAX: usize = 1 << 16;

/// When which record is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) run_id: u64,
    pub(super) start: Instant,
    pub(super) per_second: u64,
    pub(super) records: u64,
}

impl Schedule {
    /// As many as fit into the time and the bytes.
    pub(super) fn new(run_id: u64, per_second: u64, within: Duration, records_max: u64) -> Schedule {
        let in_time = (within.as_secs_f64() * per_second as f64) as u64;
        Schedule { run_id, start: Instant::now(), per_second, records: in_time.clamp(1, records_max.max(1)) }
    }

    /// When a record is due.
    pub(super) fn due(&self, number: u64) -> Instant {
        let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(self.per_second.max(1));
        self.start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }

    /// A value of so many bytes.
    pub(super) fn stamp(&self, number: u64, value: &mut [u8]) {
        let stamp = u128::from(self.run_id) << 64 | u128::from(number);
        if let Some(head) = value.first_chunk_mut::<STAMP_LENGTH>() {
            *head = stamp.to_be_bytes();
        }
    }

    /// The number that a value carries; `None` for one of another run.
    pub(super) fn number(&self, value: &[u8]) -> Option<u64> {
        let stamp = u128::from_be_bytes(*value.first_chunk::<STAMP_LENGTH>()?);
        let number = stamp as u64;
        ((stamp >> 64) as u64 == self.run_id && number < self.records).then_some(number)
    }
}

/// A record on its way.
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) delivery: Delivery,
}

/// Bytes that no codec makes much smaller, so that a figure does not depend on how well nothing compresses.
pub(super) fn filler(size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut chance = floodmark_storage::random::SplitMix::new(seed);
    let mut bytes: Vec<u8> = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        bytes.extend_from_slice(&chance.next_u64().to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

/// A thread that writes records when they are due: a thread's sleep ends within a tenth of a millisecond, a timer's within a whole one.
pub(super) struct Pacer {
    pub(super) sent: mpsc::Receiver<Sent>,
    thread: JoinHandle<anyhow::Result<Latencies>>,
    is_stopped: Arc<AtomicBool>,
}

impl Pacer {
    pub(super) fn start(
        producer: Producer,
        topic: String,
        schedule: Schedule,
        mut value: Vec<u8>,
    ) -> anyhow::Result<Pacer> {
        let (sender, sent) = mpsc::channel(DELIVERIES_MAX);
        let runtime = Handle::current();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let thread = thread::Builder::new().name("fm-pace".to_owned()).spawn(move || {
            let mut lateness = Latencies::new()?;
            for number in 0..schedule.records {
                let due = schedule.due(number);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                lateness.add(due.elapsed());
                schedule.stamp(number, &mut value);
                let record = NewRecord::to(&topic).value(&value);
                // Where there is no room the record is late, and its time, counted from when it was due, says so.
                let delivery = match producer.try_send(record) {
                    Err(Error::BufferFull { .. }) => runtime.block_on(producer.send(record))?,
                    taken => taken?,
                };
                if sender.blocking_send(Sent { number, delivery }).is_err() {
                    break;
                }
            }
            Ok(lateness)
        })?;
        Ok(Pacer { sent, thread, is_stopped })
    }

    /// How late records were written, by the fault of this program alone.
    pub(super) fn finish(self) -> anyhow::Result<Latencies> {
        self.is_stopped.store(true, Ordering::Relaxed);
        drop(self.sent);
        let lateness =
            self.thread.join().map_err(|_| anyhow::anyhow!("the thread that writes has failed"))?;
        lateness.context("records cannot be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_fixed_times_and_known_again() {
        let schedule = Schedule::new(7, 4, Duration::from_secs(10), 1_000);
        assert_eq!(schedule.records, 40);
        assert_eq!(schedule.due(0), schedule.start);
        assert_eq!(schedule.due(6) - schedule.start, Duration::from_millis(1_500));
        let mut value = filler(20, 1);
        let filled = value[STAMP_LENGTH..].to_vec();
        schedule.stamp(39, &mut value);
        assert_eq!((schedule.number(&value), &value[STAMP_LENGTH..]), (Some(39), &filled[..]));
        let other = Schedule { run_id: 8, ..schedule };
        assert_eq!((other.number(&value), schedule.number(b"short")), (None, None));
        schedule.stamp(40, &mut value);
        assert_eq!(schedule.number(&value), None, "it was never sent");
        assert_eq!(Schedule::new(7, 1_000, Duration::from_secs(60), 5).records, 5);
    }
}
