//! Reads one stream, page by page, and goes on where it was when a connection is lost.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::pb::v1 as pb;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::Stream;
use tonic::Request;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::retry::Backoff;

/// Pages that are read ahead.
const PAGES_AHEAD: usize = 4;
/// Between two tries of one that has failed for long.
const FAILING_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// How a stream is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadStream {
    /// Which way.
    pub direction: Direction,
    /// First offset that may be read, or, backward, the last; none: from the respective end.
    pub from: Option<i64>,
    /// So many records at most.
    pub records_max: Option<u64>,
    /// Goes on with what is appended; forward only.
    pub follow: bool,
}

impl ReadStream {
    /// All there is, oldest first.
    #[must_use]
    pub fn forward() -> ReadStream {
        ReadStream::default()
    }

    /// All there is, newest first.
    #[must_use]
    pub fn backward() -> ReadStream {
        ReadStream { direction: Direction::Backward, ..ReadStream::default() }
    }

    /// From this offset.
    #[must_use]
    pub fn from(mut self, offset: i64) -> ReadStream {
        self.from = Some(offset);
        self
    }

    /// So many records at most.
    #[must_use]
    pub fn max(mut self, records: u64) -> ReadStream {
        self.records_max = Some(records);
        self
    }

    /// And whatever is appended, for ever.
    #[must_use]
    pub fn follow(mut self) -> ReadStream {
        self.follow = true;
        self
    }
}

/// The records of one stream. Ends where the stream does, unless it is followed; reading stops when it is dropped.
#[derive(Debug)]
pub struct EventReader {
    pages: mpsc::Receiver<Result<Vec<Record>>>,
    records: VecDeque<Record>,
}

impl EventReader {
    pub(super) fn start(
        client: Client,
        topic: Arc<str>,
        partition: i32,
        stream: &[u8],
        how: ReadStream,
    ) -> EventReader {
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        let key = Bytes::copy_from_slice(stream);
        let reading = Reading { client, topic, partition, key, how, left: how.records_max, pages: sender };
        tokio::spawn(reading.run());
        EventReader { pages, records: VecDeque::new() }
    }

    /// The next record; none at the end. Dropped before it is ready, no record is lost.
    pub async fn next(&mut self) -> Result<Option<Record>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// All that are left. Never ends where the stream is followed.
    pub async fn collect(mut self) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        while let Some(record) = self.next().await? {
            all.push(record);
        }
        Ok(all)
    }
}

/// Ends after the first error.
impl Stream for EventReader {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        loop {
            if let Some(record) = self.records.pop_front() {
                return Poll::Ready(Some(Ok(record)));
            }
            match ready!(self.pages.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    self.pages.close();
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(page)) => self.records = page.into(),
            }
        }
    }
}

/// A log that stays out of order, or a cluster that is down for long, is asked less and less often.
fn pause(next: Duration, failing_for: Duration) -> Duration {
    next.max((failing_for / 10).min(FAILING_PAUSE_MAX))
}

/// The task behind a reader.
struct Reading {
    client: Client,
    topic: Arc<str>,
    partition: i32,
    key: Bytes,
    how: ReadStream,
    left: Option<u64>,
    pages: mpsc::Sender<Result<Vec<Record>>>,
}

impl Reading {
    async fn run(mut self) {
        let pages = self.pages.clone();
        let mut backoff = Backoff::new(self.client.config());
        let limit = self.client.config().operation_timeout;
        let mut failing_since = None;
        loop {
            let (before, began) = ((self.how.from, self.left), tokio::time::Instant::now());
            let outcome = tokio::select! {
                outcome = self.read() => outcome,
                () = pages.closed() => return,
            };
            // Where nothing comes for long, following it went well.
            let went_well = self.how.follow && began.elapsed() > limit;
            if went_well || before != (self.how.from, self.left) {
                failing_since = None;
                backoff.reset();
            }
            let Err(error) = outcome else { return };
            let since = *failing_since.get_or_insert_with(tokio::time::Instant::now);
            if !error.is_retryable() || (!self.how.follow && since.elapsed() > limit) {
                let _ = pages.send(Err(error)).await;
                return;
            }
            if error.is_misdirected() {
                self.client.forget_topic(&self.topic);
            }
            sleep(pause(backoff.next(), since.elapsed())).await;
        }
    }

    /// Ends well at the end of the stream, or where nobody wants more.
    async fn read(&mut self) -> Result<()> {
        let (_, peer) = self.client.leader(&self.topic, self.partition).await?;
        let direction = match self.how.direction {
            Direction::Forward => pb::read_stream_request::Direction::Forward,
            Direction::Backward => pb::read_stream_request::Direction::Backward,
        };
        let asked = pb::ReadStreamRequest {
            topic: self.topic.to_string(),
            partition: Some(self.partition),
            key: self.key.clone(),
            direction: direction.into(),
            from: self.how.from,
            records_max: self.left.unwrap_or(0),
            follow: self.how.follow,
        };
        let failed = |status: tonic::Status| Error::from_status(&peer.address, &status);
        let limit = self.client.request_timeout();
        let what = "reading a stream";
        // No deadline for the call as a whole: a stream that is followed has none, and a long one takes long.
        let mut events = peer.events();
        let mut pages = peer.answer(what, events.read_stream(Request::new(asked))).await?;
        loop {
            let next = pages.message();
            let page = if self.how.follow {
                next.await
            } else {
                let elapsed = |_elapsed| Error::Deadline { what, limit, last: None };
                timeout(limit, next).await.map_err(elapsed)?
            };
            let Some(page) = page.map_err(failed)? else { return Ok(()) };
            self.how.from = Some(page.next_offset);
            self.left = self.left.map(|left| left.saturating_sub(page.records.len() as u64));
            let is_last = (page.is_end && !self.how.follow) || self.left == Some(0);
            let (topic, partition) = (&self.topic, self.partition);
            let records: Vec<Record> = page
                .records
                .into_iter()
                .map(|record| Record::from_message(record, topic, partition))
                .collect();
            let nobody_reads = !records.is_empty() && self.pages.send(Ok(records)).await.is_err();
            if is_last || nobody_reads {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_for_long_asks_less_often_and_never_gives_up_asking() {
        let next = Duration::from_millis(200);
        for (failing_ms, pause_ms) in
            [(0, 200), (1_000, 200), (10_000, 1_000), (50_000, 5_000), (u64::MAX, 5_000)]
        {
            assert_eq!(pause(next, Duration::from_millis(failing_ms)), Duration::from_millis(pause_ms));
        }
    }
}
