//! Reads, decides, writes: what a filter, a translator and a router have in common.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::next_readable;
use crate::consumer::Consumer;
use crate::error::Result;
use crate::message::Message;
use crate::producer::{Delivery, Producer};
use crate::record::Record;

/// Records whose outcome is not known at most, between two commits.
const UNDER_WAY_MAX: usize = 10_000;
/// Time between two commits.
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// Carries records from a consumer to a producer, each **at least once**: what is written is acknowledged before the group's progress is.
/// The consumer's commits are to be manual.
///
/// ```no_run
/// # async fn example(client: floodmark_client::Client) -> floodmark_client::Result<()> {
/// use floodmark_client::patterns::Pipe;
/// use floodmark_client::{Commit, ConsumerConfig, Message, ProducerConfig};
///
/// let mut config = ConsumerConfig::group("router", ["orders"]);
/// config.commit = Commit::Manual;
/// let mut pipe = Pipe::new(client.consumer(config).await?, client.producer(ProducerConfig::default())?);
/// // A router: the content decides on the topic. A filter would give no message for some.
/// pipe.run(std::future::pending::<()>(), |record| {
///     let is_urgent = record.header_str("priority") == Some("urgent");
///     vec![Message::forward(record, if is_urgent { "urgent-orders" } else { "other-orders" })]
/// })
/// .await
/// # }
/// ```
#[derive(Debug)]
pub struct Pipe {
    consumer: Consumer,
    producer: Producer,
    under_way: Vec<Delivery>,
}

impl Pipe {
    /// From there to there.
    #[must_use]
    pub fn new(consumer: Consumer, producer: Producer) -> Pipe {
        Pipe { consumer, producer, under_way: Vec::new() }
    }

    /// Writes what `decide` makes of each record, and commits every second, until `stop` is done and everything is committed. Fails where a
    /// record could not be written; whoever takes over then begins at the last commit, as after a crash.
    pub async fn run(
        &mut self,
        stop: impl Future<Output = ()>,
        mut decide: impl FnMut(&Record) -> Vec<Message>,
    ) -> Result<()> {
        let mut stop = pin!(stop);
        let mut commit_at = None;
        loop {
            let due = commit_at.unwrap_or_else(Instant::now);
            tokio::select! {
                // Nothing is in hand while this waits, so nothing is lost when it ends.
                () = &mut stop => return self.commit().await,
                () = sleep_until(due), if commit_at.is_some() => {
                    self.commit().await?;
                    commit_at = None;
                }
                record = next_readable(&mut self.consumer) => {
                    self.write(decide(&record?)).await?;
                    commit_at.get_or_insert_with(|| Instant::now() + COMMIT_INTERVAL);
                }
            }
        }
    }

    async fn write(&mut self, messages: Vec<Message>) -> Result<()> {
        for message in messages {
            self.under_way.push(message.send(&self.producer).await?);
        }
        if self.under_way.len() < UNDER_WAY_MAX {
            return Ok(());
        }
        self.finish().await
    }

    async fn commit(&mut self) -> Result<()> {
        self.finish().await?;
        self.consumer.handle().commit().await
    }

    async fn finish(&mut self) -> Result<()> {
        self.producer.flush().await?;
        for delivery in self.under_way.drain(..) {
            delivery.await?;
        }
        Ok(())
    }
}
