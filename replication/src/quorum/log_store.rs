//! The Raft log as openraft wants it: a thread owns the log and does one request after the other, so that votes and entries
//! reach the disk in the order they were asked for, and no runtime thread ever waits for a disk.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError};
use tokio::sync::{mpsc, oneshot};

use super::disk_pressure::DiskPressure;
use super::error::QuorumError;
use super::raft_log::RaftLog;
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};

/// Requests that wait at most; openraft makes few at a time and waits for each.
const REQUESTS_MAX: usize = 64;
/// Bytes of entries that are sent to a follower at a time, which has a heartbeat's time for them.
const ENTRIES_BYTES_MAX: usize = 1 << 20;

type Reply<T> = oneshot::Sender<Result<T, QuorumError>>;

enum Request {
    State(Reply<LogState<TypeConfig>>),
    Read { from: u64, to: u64, max_bytes: usize, reply: Reply<Vec<Entry>> },
    Append { entries: Vec<Entry>, flushed: LogFlushed<TypeConfig> },
    Truncate { since: u64, reply: Reply<()> },
    Purge { upto: LogId, reply: Reply<()> },
    SaveVote { vote: Vote, reply: Reply<()> },
    ReadVote(Reply<Option<Vote>>),
    SaveCommitted { committed: Option<LogId>, reply: Reply<()> },
    ReadCommitted(Reply<Option<LogId>>),
}

/// Asks the log's thread. The thread closes the log and ends when the last of these is dropped.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    requests: mpsc::Sender<Request>,
}

/// Tells how the log was closed.
pub(crate) type Closed = oneshot::Receiver<Result<(), QuorumError>>;

impl LogStore {
    /// Starts the thread.
    pub(crate) fn spawn(log: RaftLog, pressure: Arc<DiskPressure>) -> io::Result<(LogStore, Closed)> {
        let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
        let (closed, is_closed) = oneshot::channel();
        std::thread::Builder::new().name("metadata-log".to_owned()).spawn(move || {
            // Nobody may be left to hear it.
            let _ = closed.send(serve_all(log, inbox, &pressure));
        })?;
        Ok((LogStore { requests }, is_closed))
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, QuorumError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| thread_is_gone())?
    }

    async fn send(&self, request: Request) -> Result<(), QuorumError> {
        self.requests.send(request).await.map_err(|_| thread_is_gone())
    }

    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let read = |reply| Request::Read { from, to, max_bytes, reply };
        self.ask(read).await.map_err(|e| StorageIOError::read_logs(AnyError::new(&e)).into())
    }
}

fn thread_is_gone() -> QuorumError {
    QuorumError::Stopped { reason: "the thread of the metadata log has ended".to_owned() }
}

fn serve_all(
    mut log: RaftLog,
    mut inbox: mpsc::Receiver<Request>,
    pressure: &DiskPressure,
) -> Result<(), QuorumError> {
    while let Some(request) = inbox.blocking_recv() {
        serve(&mut log, request, pressure);
        if inbox.is_empty()
            && let Some(outcome) = log.checkpoint_if_due()
        {
            pressure.on_checkpoint(outcome);
        }
    }
    log.close()
}

/// Does one request. Whoever asked may have gone: a reply that nobody takes is no failure.
fn serve(log: &mut RaftLog, request: Request, pressure: &DiskPressure) {
    match request {
        Request::State(reply) => {
            let state = LogState { last_purged_log_id: log.purged(), last_log_id: log.last() };
            let _ = reply.send(Ok(state));
        }
        Request::Read { from, to, max_bytes, reply } => {
            let _ = reply.send(log.read(from, to, max_bytes));
        }
        Request::Append { entries, flushed } => {
            let outcome = pressure.until_space(|| log.append(&entries));
            flushed.log_io_completed(outcome.map_err(io::Error::other));
        }
        Request::Truncate { since, reply } => {
            let _ = reply.send(pressure.until_space(|| log.truncate(since)));
        }
        Request::Purge { upto, reply } => {
            let _ = reply.send(pressure.until_space(|| log.purge(upto)));
        }
        Request::SaveVote { vote, reply } => {
            let _ = reply.send(pressure.until_space(|| log.save_vote(vote)));
        }
        Request::ReadVote(reply) => {
            let _ = reply.send(Ok(log.vote()));
        }
        Request::SaveCommitted { committed, reply } => {
            log.note_committed(committed);
            let _ = reply.send(Ok(()));
        }
        Request::ReadCommitted(reply) => {
            let _ = reply.send(Ok(log.committed()));
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, ENTRIES_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.ask(Request::State).await.map_err(|e| StorageIOError::read_logs(AnyError::new(&e)).into())
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let save = |reply| Request::SaveVote { vote, reply };
        self.ask(save).await.map_err(|e| StorageIOError::write_vote(AnyError::new(&e)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        self.ask(Request::ReadVote).await.map_err(|e| StorageIOError::read_vote(AnyError::new(&e)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let save = |reply| Request::SaveCommitted { committed, reply };
        self.ask(save).await.map_err(|e| StorageIOError::write(AnyError::new(&e)).into())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.ask(Request::ReadCommitted).await.map_err(|e| StorageIOError::read(AnyError::new(&e)).into())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        // Whoever reads stands behind this in the same queue, so the entries are readable from here on.
        let append = Request::Append { entries: entries.into_iter().collect(), flushed: callback };
        self.send(append).await.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let truncate = |reply| Request::Truncate { since: log_id.index, reply };
        self.ask(truncate).await.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let purge = |reply| Request::Purge { upto: log_id, reply };
        self.ask(purge).await.map_err(|e| StorageIOError::write_logs(AnyError::new(&e)).into())
    }
}
