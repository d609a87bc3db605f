//! A reader of many partitions that is told what comes, as it comes: fair between partitions, each from where it was left. Must never
//! know wire types.

use std::sync::Arc;

use floodmark_proto::ids::Offset;
use floodmark_proto::kafka::ErrorCode;
use floodmark_replication::lease::Lease;
use floodmark_replication::partition::{
    Isolation, PartitionError, PartitionHandle, PartitionId, Registration, Role,
};
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::error::code_of_partition;
use super::fetch::{Part, Position, ReadFrom, Wanted, read};

/// What a reader is given before others of its core have a turn. Most reads answer from memory, without a wait in which others would have one,
/// and where a filter lets nothing through nothing is sent either. After each message it would cost a third of the rate.
const BYTES_A_TURN: usize = 1 << 20;

/// Partitions that are read, and how far.
#[derive(Debug)]
pub(crate) struct Subscription {
    parts: Vec<Reading>,
    /// Whose turn it is.
    turn: usize,
    /// Read since others of this core had a turn.
    bytes_in_a_row: usize,
    isolation: Isolation,
    moved: Arc<Notify>,
    /// Without it others may lead already what is read here, and nothing more would come.
    lease: Lease,
}

#[derive(Debug)]
struct Reading {
    partition: PartitionHandle,
    at: Offset,
    /// Its reader knows where it stands.
    is_told: bool,
    _registration: Registration,
}

/// What there is to tell of one partition.
#[derive(Debug)]
pub(crate) enum Event {
    /// Batches from where the reader stands, or none: then it stands at the end. To be followed by [`Subscription::stand_at`].
    Read(Chunk),
    /// It is read no longer.
    Failed(PartitionId, ErrorCode),
}

/// What was read of one partition.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) partition: PartitionId,
    pub(crate) from: Offset,
    pub(crate) part: Part,
}

impl Subscription {
    pub(crate) fn new(isolation: Isolation, lease: Lease) -> Subscription {
        Subscription {
            parts: Vec::new(),
            turn: 0,
            bytes_in_a_row: 0,
            isolation,
            moved: Arc::default(),
            lease,
        }
    }

    /// Partitions that are read.
    pub(crate) fn part_count(&self) -> usize {
        self.parts.len()
    }

    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Reads a partition from now on, or from elsewhere where it is read already.
    pub(crate) fn add(&mut self, partition: PartitionHandle, from: Offset) {
        self.remove(partition.id());
        // Registered before anything is looked at, so that nothing that comes in between is slept over.
        let _registration = partition.on_progress(Arc::clone(&self.moved));
        self.parts.push(Reading { partition, at: from, is_told: false, _registration });
    }

    /// Reads a partition no longer.
    pub(crate) fn remove(&mut self, partition: &PartitionId) {
        self.parts.retain(|part| part.partition.id() != partition);
    }

    /// The same by name.
    pub(crate) fn remove_named(&mut self, topic: &str, index: i32) {
        self.parts.retain(|part| &*part.partition.id().topic != topic || part.partition.id().index != index);
    }

    /// The reader has everything of a partition before `offset`.
    pub(crate) fn stand_at(&mut self, partition: &PartitionId, offset: Offset) {
        if let Some(part) = self.parts.iter_mut().find(|part| part.partition.id() == partition) {
            part.at = offset;
        }
    }

    /// What comes next, of so many bytes and at least one batch. May be dropped: nothing is lost then.
    pub(crate) async fn next(&mut self, max_bytes: usize) -> Event {
        if self.bytes_in_a_row >= BYTES_A_TURN {
            self.bytes_in_a_row = 0;
            yield_now().await;
        }
        loop {
            for step in 0..self.parts.len() {
                let at = (self.turn + step) % self.parts.len();
                if let Some(event) = self.look(at, max_bytes).await {
                    self.turn = at + 1;
                    return event;
                }
            }
            tokio::select! {
                () = self.moved.notified() => {}
                () = self.lease.lost(), if !self.parts.is_empty() => {}
            }
        }
    }

    async fn look(&mut self, at: usize, max_bytes: usize) -> Option<Event> {
        let (isolation, is_held) = (self.isolation, self.lease.is_held());
        let part = &mut self.parts[at];
        let id = part.partition.id().clone();
        let event = match part.verdict(isolation, is_held) {
            Ok(true) => {
                let read = part.read(max_bytes, isolation).await;
                self.bytes_in_a_row += read.size_bytes();
                match read.error {
                    Some(code) => Event::Failed(id, code),
                    // Another look is taken when it moves.
                    None if read.batches.is_empty() && part.is_told => return None,
                    None => Event::Read(Chunk { partition: id, from: part.at, part: read }),
                }
            }
            Ok(false) if part.is_told => return None,
            Ok(false) => Event::Read(Chunk { partition: id, from: part.at, part: part.ends() }),
            Err(code) => Event::Failed(id, code),
        };
        part.is_told = true;
        if let Event::Failed(id, _) = &event {
            let id = id.clone();
            self.remove(&id);
        }
        Some(event)
    }
}

impl Reading {
    /// Whether there is something to read.
    fn verdict(&self, isolation: Isolation, is_held: bool) -> Result<bool, ErrorCode> {
        let stopped = self.partition.stopped();
        // Its topic went, or its place here.
        if matches!(stopped, Some(PartitionError::Closed)) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if !is_held || !matches!(self.partition.role(), Role::Leader { .. }) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if self.at < self.partition.log_start() || self.at > self.partition.log_end() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let end = match isolation {
            Isolation::Uncommitted => self.partition.high_watermark(),
            Isolation::Committed => self.partition.last_stable_offset(),
        };
        match stopped {
            // What is committed is there to be read; nothing comes behind it any more.
            Some(stopped) if self.at >= end => Err(code_of_partition(&stopped)),
            _ => Ok(self.at < end),
        }
    }

    async fn read(&self, max_bytes: usize, isolation: Isolation) -> Part {
        let position = Position {
            partition: Ok(self.partition.clone()),
            from: self.at,
            max_bytes,
            leader_epoch: None,
            last_fetched_epoch: None,
            source: ReadFrom::Leader,
        };
        let wanted = Wanted { min_bytes: 0, max_bytes, isolation };
        let part = read(vec![position], wanted).await.into_iter().next();
        part.unwrap_or_else(|| Part { error: Some(ErrorCode::UnknownServerError), ..Part::default() })
    }

    fn ends(&self) -> Part {
        Part {
            last_stable_offset: Some(self.partition.last_stable_offset()),
            high_watermark: Some(self.partition.high_watermark()),
            log_start: Some(self.partition.log_start()),
            ..Part::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use floodmark_storage::fs::SimDisk;
    use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};

    use super::*;
    use crate::ops::events::Expected;
    use crate::ops::events::tests::{append, append_in_vain, held, now, store_in_memory, store_on};
    use crate::ops::visible::end_of;

    #[test]
    fn what_was_committed_before_a_log_stopped_is_read_and_then_it_is_told() {
        let disk = SimDisk::new();
        let partition = store_on(&disk);
        for value in ["1", "2"] {
            append(&partition, "stream", Expected::Any, &[value]).unwrap();
        }
        let (on, path_ends) = (FaultOn::Sync, ".log".into());
        disk.inject(Fault { on, path_ends, after: 0, times: 100, kind: FaultKind::Eio });
        append_in_vain(&partition, "stream", "3");
        assert!(matches!(partition.stopped(), Some(PartitionError::Offline(_))));
        let committed = partition.high_watermark();
        assert!(committed >= Offset(2));
        now(async {
            let mut reader = Subscription::new(Isolation::Uncommitted, held());
            reader.add(partition.clone(), Offset(0));
            let mut at = Offset(0);
            while at < committed {
                let Event::Read(chunk) = reader.next(10_000).await else { panic!("it is there to be read") };
                at = end_of(&chunk.part.batches, chunk.from).unwrap();
                reader.stand_at(&chunk.partition, at);
            }
            let Event::Failed(_, code) = reader.next(10_000).await else { panic!("nothing follows") };
            assert_eq!(code, ErrorCode::KafkaStorageError);
        });
    }

    #[test]
    fn who_reads_from_memory_lets_others_have_their_turn() {
        const MESSAGES: usize = 24;
        let partition = store_in_memory();
        let value = "v".repeat(BYTES_A_TURN / 4);
        for _ in 0..MESSAGES {
            append(&partition, "stream", Expected::Any, &[&value]).unwrap();
        }
        now(async {
            let turns = Arc::new(AtomicUsize::new(0));
            let other = Arc::clone(&turns);
            tokio::spawn(async move {
                loop {
                    other.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            });
            let mut reader = Subscription::new(Isolation::Uncommitted, held());
            reader.add(partition.clone(), Offset(0));
            let mut read = 0;
            while read < MESSAGES {
                let Event::Read(chunk) = reader.next(value.len() + 1000).await else { panic!("it is read") };
                let end = end_of(&chunk.part.batches, chunk.from).unwrap();
                read += chunk.part.batches.len();
                reader.stand_at(&chunk.partition, end);
            }
            let turns = turns.load(Ordering::Relaxed);
            assert!(turns >= MESSAGES / 4 - 1, "{turns} turns of others while {MESSAGES} messages were read");
        });
    }
}
