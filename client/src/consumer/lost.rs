//! Where to read on in partitions whose offset is gone, or whose group has committed none. Apart from the feeds, which have others to
//! fetch meanwhile.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::feed::Fetched;
use crate::error::{Error, Result};
use crate::record::TopicPartition;
use crate::retry::Backoff;

/// Partitions that are asked for at a time. One whose leader hangs takes its place for [`crate::ClientConfig::connect_timeout`].
const FINDING_MAX: usize = 32;

/// Finds what is lost until the consumer ends.
pub(super) async fn find(shared: Arc<Shared>) {
    let mut backoff = Backoff::new(shared.client.config());
    loop {
        let again = tokio::select! {
            again = shared.find_lost() => again,
            () = shared.ending.cancelled() => return,
        };
        if !again {
            backoff.reset();
        }
        tokio::select! {
            () = shared.positions.has_lost.notified() => {}
            () = sleep(backoff.next()), if again => {}
            () = shared.ending.cancelled() => return,
        }
    }
}

impl Shared {
    /// One round, which ends by itself where it takes too long to be waited for. What it did not find is looked for again.
    pub(super) async fn find_lost_soon(self: &Arc<Shared>) {
        let shared = Arc::clone(self);
        let round = self.tasks.spawn(async move {
            tokio::select! {
                again = shared.find_lost() => if again {
                    shared.positions.has_lost.notify_one();
                },
                () = shared.ending.cancelled() => {}
            }
        });
        // The coordinator hears nothing meanwhile.
        let limit = self.client.config().connect_timeout.min(self.config.session_timeout / 2);
        let _ = timeout(limit, round).await;
    }

    /// Asks once for the place of each partition that has none. True where that has to be tried again.
    pub(super) async fn find_lost(self: &Arc<Shared>) -> bool {
        let (mut finding, mut again) = (JoinSet::new(), false);
        for (partition, epoch) in self.positions.lost() {
            if finding.len() >= FINDING_MAX {
                again |= finding.join_next().await.is_some_and(|found| !matches!(found, Ok(true)));
            }
            let shared = Arc::clone(self);
            finding.spawn(async move { shared.find_one(&partition, epoch).await });
        }
        while let Some(found) = finding.join_next().await {
            again |= !matches!(found, Ok(true));
        }
        again
    }

    /// False where it has to be tried again, also because it was paused or moved meanwhile.
    async fn find_one(&self, partition: &TopicPartition, epoch: u64) -> bool {
        match self.place_of(partition).await {
            Ok(offset) => self.positions.find(partition, epoch, offset),
            // An outage passes, and nobody would seek because of one.
            Err(error) if error.is_retryable() => false,
            Err(error) => {
                let has_failed = self.positions.fail(partition, epoch);
                if has_failed {
                    let _ = self.fetched.send(Fetched::Failed(error)).await;
                }
                has_failed
            }
        }
    }

    async fn place_of(&self, partition: &TopicPartition) -> Result<i64> {
        let reason = || "the offset is not there any more, or not yet".to_owned();
        let from = self.config.reset.from(partition, reason)?;
        // Without a leader, or of one that cannot be reached, it would be asked for long.
        let limit = self.client.config().connect_timeout;
        let found = async {
            self.client.leader(&partition.topic, partition.partition).await?;
            self.client.resolve(partition, from, self.config.isolation).await
        };
        let late = |_elapsed| Error::Deadline { what: "finding where to read on", limit, last: None };
        timeout(limit, found).await.map_err(late)?
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::client::Client;
    use crate::config::ClientConfig;
    use crate::consumer::{Consumer, ConsumerConfig};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_that_cannot_be_found_now_is_looked_for_again() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut config = ClientConfig::new([listener.local_addr().unwrap().to_string()]);
        config.operation_timeout = Duration::from_secs(1);
        let consuming = ConsumerConfig::assigned().from_start();
        let mut consumer = Consumer::start(Client::lazy(config).unwrap(), consuming).await.unwrap();
        let (shared, at) = (Arc::clone(&consumer.shared), TopicPartition::new("t", 0));
        shared.positions.add(&[(at.clone(), 5)]);
        let (wanted, _) = shared.positions.wanted(tokio::time::Instant::now());
        shared.positions.lose(&at, wanted[0].epoch);
        assert!(shared.find_lost().await, "nobody answers");
        assert_eq!(shared.positions.lost().len(), 1);
        assert!(consumer.fetched.try_recv().is_err(), "an outage is no failure for good");
    }
}
