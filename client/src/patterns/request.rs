//! Requests and their replies over topics: each requester waits at one partition of a reply topic, and correlation ids say which reply is whose.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::next_readable;
use crate::chance::random_u64;
use crate::client::Client;
use crate::consumer::{Begin, Consumer, ConsumerConfig};
use crate::error::{Error, Result};
use crate::message::{Message, ReplyAddress, names, new_id};
use crate::producer::Producer;
use crate::record::{Record, TopicPartition};

/// Sends requests and waits for replies. One serves any number of requests at once; dropped, it waits no longer.
///
/// ```no_run
/// # async fn example(client: floodmark_client::Client) -> floodmark_client::Result<()> {
/// use std::time::Duration;
/// use floodmark_client::patterns::Requester;
/// use floodmark_client::{Message, ProducerConfig};
///
/// let producer = client.producer(ProducerConfig::default())?;
/// let requester = Requester::open(&client, producer, "price-replies").await?;
/// let reply = requester.request(Message::to("price-requests").value("apples"), Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Requester {
    producer: Producer,
    address: ReplyAddress,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

/// Who waits for which correlation id.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<String, mpsc::Sender<Record>>,
    /// Why no reply comes any more.
    failed: Option<Error>,
}

impl Requester {
    /// Waits for replies at a partition of `reply_topic`, chosen by chance, from its end on.
    pub async fn open(client: &Client, producer: Producer, reply_topic: &str) -> Result<Requester> {
        let count = client.partition_count(reply_topic).await?;
        let partition = i32::try_from(random_u64() % u64::try_from(count.max(1)).unwrap_or(1)).unwrap_or(0);
        let at = TopicPartition::new(reply_topic, partition);
        let consumer = client.consumer(ConsumerConfig::assigned()).await?;
        consumer.handle().assign(&[(at, Begin::End)]).await?;
        let waiting = Waiting::default();
        let reader = tokio::spawn(waiting.clone().read(consumer));
        let address = ReplyAddress { topic: reply_topic.into(), partition: Some(partition) };
        Ok(Requester { producer, address, waiting, reader })
    }

    /// Sends a request and waits for its first reply. A request that was sent may be carried out though nobody waits for it any more.
    pub async fn request(&self, message: Message, within: Duration) -> Result<Record> {
        let replies = self.gather(message, 1, within).await?;
        replies.into_iter().next().ok_or(Error::Deadline {
            what: "waiting for a reply",
            limit: within,
            last: None,
        })
    }

    /// Sends a request that several answer, and gathers up to `replies_max` replies; those that have come when the time is over.
    pub async fn gather(
        &self,
        message: Message,
        replies_max: usize,
        within: Duration,
    ) -> Result<Vec<Record>> {
        let deadline = Instant::now() + within;
        let (id, mut replies) = self.waiting.begin(replies_max)?;
        let _end = End { waiting: &self.waiting, id: &id };
        let message = message.reply_to(&self.address).correlation_id(id.clone());
        let mut gathered = Vec::new();
        let late = |_elapsed| Error::Deadline { what: "sending a request", limit: within, last: None };
        timeout_at(deadline, async { message.send(&self.producer).await?.await }).await.map_err(late)??;
        while gathered.len() < replies_max {
            match timeout_at(deadline, replies.recv()).await {
                Ok(Some(reply)) => gathered.push(reply),
                Ok(None) => return Err(self.waiting.failure()),
                Err(_elapsed) => break,
            }
        }
        Ok(gathered)
    }
}

impl Drop for Requester {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Waiting {
    fn begin(&self, replies_max: usize) -> Result<(String, mpsc::Receiver<Record>)> {
        let (id, (reply, replies)) = (new_id(), mpsc::channel(replies_max.max(1)));
        let mut state = self.0.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        state.by_id.insert(id.clone(), reply);
        Ok((id, replies))
    }

    fn failure(&self) -> Error {
        self.0.lock().failed.clone().unwrap_or(Error::Closed("the requester"))
    }

    async fn read(self, mut consumer: Consumer) {
        loop {
            // Who waits for one that cannot be read has a deadline.
            match next_readable(&mut consumer).await {
                Ok(record) => self.tell(record),
                Err(error) => {
                    let mut state = self.0.lock();
                    state.failed = Some(error);
                    state.by_id.clear();
                    return;
                }
            }
        }
    }

    fn tell(&self, record: Record) {
        let Some(id) = record.header_str(names::CORRELATION_ID) else { return };
        let waiting = self.0.lock().by_id.get(id).cloned();
        if let Some(waiting) = waiting {
            // Who has as many as it wants is about to stop waiting.
            let _ = waiting.try_send(record);
        }
    }
}

/// Nobody waits for a request that has ended, however it did.
struct End<'a> {
    waiting: &'a Waiting,
    id: &'a str,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().by_id.remove(self.id);
    }
}

/// A reply to whoever sent `request`; `None` where nobody waits for one.
#[must_use]
pub fn reply_to(request: &Record) -> Option<Message> {
    let address = ReplyAddress::of(request)?;
    let id = request.header(names::CORRELATION_ID).or_else(|| request.header(names::MESSAGE_ID))?;
    let reply = Message::to(address.topic).correlation_id(id.to_vec());
    Some(Message { partition: address.partition, ..reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(message: &Message) -> Record {
        Record {
            topic: Arc::clone(&message.topic),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            value: None,
            headers: message.headers.clone(),
        }
    }

    #[test]
    fn a_reply_goes_to_who_asked_under_the_id_of_the_request() {
        let address = ReplyAddress { topic: "replies".into(), partition: Some(3) };
        let asked = Message::to("t").correlation_id("7").reply_to(&address);
        let reply = reply_to(&request(&asked)).unwrap();
        assert_eq!(
            (&*reply.topic, reply.partition, reply.header_str(names::CORRELATION_ID)),
            ("replies", Some(3), Some("7"))
        );
        assert_eq!(reply_to(&request(&Message::to("t").correlation_id("7"))), None);
        assert_eq!(reply_to(&request(&Message::to("t").reply_to(&address))), None);
    }

    #[tokio::test]
    async fn only_who_waits_is_told_and_nobody_is_left_behind() {
        let waiting = Waiting::default();
        let reply = |id: &str| request(&Message::to("replies").correlation_id(id.to_owned()));
        {
            let (id, mut replies) = waiting.begin(2).unwrap();
            let _end = End { waiting: &waiting, id: &id };
            waiting.tell(reply("another"));
            for _ in 0..5 {
                waiting.tell(reply(&id));
            }
            assert!(
                replies.recv().await.is_some() && replies.try_recv().is_ok() && replies.try_recv().is_err()
            );
        }
        assert!(waiting.0.lock().by_id.is_empty());
    }
}
