//! Reads the copy while it grows, and notes how far in the original's time it is, and when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use floodmark_client::{Begin, Client, Consumer, ConsumerConfig};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::pace::Arrival;

/// Arrivals closer to each other than this are one.
const NOTED_EVERY: Duration = Duration::from_millis(5);

/// Dropped, it stops.
pub(crate) struct Watch {
    began: Instant,
    seen: Arc<Seen>,
    records: u64,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    count: AtomicU64,
    /// When the last record came, in milliseconds since it began.
    newest_at_ms: AtomicU64,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Watch {
    /// Watches a topic that is to get so many records.
    pub(crate) fn start(runtime: &Runtime, client: &Client, topic: &str, records: u64) -> Watch {
        let consumer = runtime.block_on(async {
            let consumer = client.consumer(ConsumerConfig::assigned()).await.unwrap();
            consumer.assign_topic(topic, Begin::Start).await.unwrap();
            consumer
        });
        let (began, seen) = (Instant::now(), Arc::new(Seen::default()));
        let task = runtime.spawn(read(consumer, began, Arc::clone(&seen)));
        Watch { began, seen, records, task }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn count(&self) -> u64 {
        self.seen.count.load(Ordering::Acquire)
    }

    /// More than there should be is for others to find.
    pub(crate) fn has_all(&self) -> bool {
        assert!(!self.task.is_finished(), "the copy cannot be watched any more");
        self.count() >= self.records
    }

    pub(crate) fn stands_still_for(&self) -> Duration {
        let newest = Duration::from_millis(self.seen.newest_at_ms.load(Ordering::Acquire));
        self.elapsed().saturating_sub(newest)
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.seen.arrivals.lock().unwrap().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(mut consumer: Consumer, began: Instant, seen: Arc<Seen>) {
    let mut newest_ms = i64::MIN;
    loop {
        let records = consumer.recv_batch().await.unwrap();
        let at = began.elapsed();
        let newest = records.iter().map(|record| record.timestamp_ms).max();
        newest_ms = newest_ms.max(newest.unwrap_or(i64::MIN));
        seen.count.fetch_add(records.len() as u64, Ordering::AcqRel);
        seen.newest_at_ms.store(u64::try_from(at.as_millis()).unwrap(), Ordering::Release);
        let mut arrivals = seen.arrivals.lock().unwrap();
        if arrivals.last().is_none_or(|last| at - last.at >= NOTED_EVERY) {
            arrivals.push(Arrival { at, newest_ms });
        }
    }
}
