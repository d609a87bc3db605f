//! How far a partition is, and who is told when it gets further: what is called with the log after each change of it, and
//! without it after that. Must not wait for anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use floodmark_proto::ids::Offset;
use floodmark_storage::LogReader;
use floodmark_storage::log::Log;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::error::PartitionError;
use super::high_watermark::{LeaderLog, advance};
use super::isr::InSync;
use super::pending_acks::PendingAcks;
use super::role::Role;
use crate::cluster::settings::{SyncPolicy, TopicSettings};

/// What the cluster wants of this replica.
#[derive(Debug, Clone)]
pub struct Duty {
    /// The part it plays.
    pub role: Role,
    /// Replicas in sync, this one among them.
    pub replicas_in_sync: u32,
    /// The topic's.
    pub settings: Arc<TopicSettings>,
}

impl Duty {
    pub(super) fn in_sync(&self) -> InSync {
        InSync { replicas: self.replicas_in_sync, min: self.settings.min_insync_replicas }
    }
}

#[derive(Debug)]
pub(super) struct Progress {
    reader: LogReader,
    pub(super) duty: ArcSwap<Duty>,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// What everybody here has been told of.
    last: Option<Moves>,
    pending: PendingAcks,
    watchers: BTreeMap<u64, Arc<Notify>>,
    next_watcher: u64,
}

/// What a waiting consumer, or a replica that copies, cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moves {
    high_watermark: Offset,
    last_stable: Offset,
    start: Offset,
    is_stopped: bool,
    role: Role,
}

impl Progress {
    pub(super) fn new(reader: LogReader, duty: Duty) -> Progress {
        Progress { reader, duty: ArcSwap::from_pointee(duty), told: Mutex::default() }
    }

    /// With the log, after it moved: the high watermark follows. Says true where a sync should.
    pub(super) fn on_moved(&self, log: &mut Log) -> bool {
        let duty = self.duty.load();
        let own = LeaderLog { end: self.reader.end(), durable: self.reader.durable() };
        if let Role::Leader { .. } = duty.role {
            let sync = duty.settings.sync;
            // This replica is the only one so far; the ends that others report come in here.
            let high_watermark = advance(self.reader.high_watermark(), sync, own, []);
            log.on_high_watermark(high_watermark);
        }
        // Consumers see nothing above the high watermark, so what nobody waits for must get there too.
        own.durable < own.end && (duty.settings.sync == SyncPolicy::Ack || log.is_flush_due())
    }

    /// Without the log, after that: tells those who wait for what has moved.
    pub(super) fn announce(&self) {
        let mut told = self.told.lock();
        let now = self.moves();
        if told.last == Some(now) {
            return;
        }
        told.last = Some(now);
        let committed = told.pending.take_up_to(now.high_watermark);
        let end = self.end();
        let others = if end.is_some() { told.pending.take_all() } else { Vec::new() };
        for watcher in told.watchers.values() {
            watcher.notify_one();
        }
        drop(told);
        let enough = self.duty.load().in_sync().check_before_acknowledgement();
        for waiter in committed {
            // Who does not wait any more need not be told.
            let _ = waiter.send(enough.clone());
        }
        for (waiter, end) in others.into_iter().zip(std::iter::repeat(end).flatten()) {
            let _ = waiter.send(Err(end));
        }
    }

    /// Has `waiter` told when everything before `end` is committed, or never will be by this leader.
    pub(super) fn when_committed(&self, end: Offset, waiter: oneshot::Sender<Result<(), PartitionError>>) {
        let mut told = self.told.lock();
        // Looked at behind the lock: what moves from now on is announced behind it as well.
        let fate = if self.reader.high_watermark() >= end {
            self.duty.load().in_sync().check_before_acknowledgement()
        } else if let Some(end) = self.end() {
            Err(end)
        } else {
            return told.pending.push(end, waiter);
        };
        drop(told);
        let _ = waiter.send(fate);
    }

    pub(super) fn watch(&self, notify: Arc<Notify>) -> u64 {
        let mut told = self.told.lock();
        let id = told.next_watcher;
        told.next_watcher += 1;
        told.watchers.insert(id, notify);
        id
    }

    pub(super) fn unwatch(&self, id: u64) {
        self.told.lock().watchers.remove(&id);
    }

    fn moves(&self) -> Moves {
        Moves {
            high_watermark: self.reader.high_watermark(),
            last_stable: self.reader.last_stable_offset(),
            start: self.reader.start(),
            is_stopped: self.reader.stopped().is_some(),
            role: self.duty.load().role,
        }
    }

    /// Why nothing more will be committed by this leader, if so.
    fn end(&self) -> Option<PartitionError> {
        let stopped = self.reader.stopped().map(PartitionError::from);
        stopped.or_else(|| self.duty.load().role.lead(None).err())
    }
}
