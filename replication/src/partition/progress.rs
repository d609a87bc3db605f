//! How far a partition is, and who is told when it gets further: what is called with the log after each change of it, and
//! without it after that. Must not wait for anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use arc_swap::ArcSwap;
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::log::Log;
use floodmark_storage::{LogError, LogReader};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::PartitionId;
use super::copying::BEHIND_SYNC_BYTES;
use super::dirty::DirtyMark;
use super::duty::Duty;
use super::error::PartitionError;
use super::exchange::{FollowerPosition, LogView};
use super::follower::Following;
use super::full_disk::FullDisk;
use super::high_watermark::{LeaderLog, advance};
use super::leader::{Leader, LeaderDuty};
use super::pending_acks::PendingAcks;
use super::role::Role;
use crate::cluster::settings::SyncPolicy;

/// Whether a look for what retention removes should not wait for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionDue {
    /// It can wait.
    No,
    /// The partition's settings have changed.
    Here,
    /// An append found no space: whatever goes, of any partition, makes some.
    Everywhere,
}

#[derive(Debug)]
pub(super) struct Progress {
    name: PartitionId,
    full_disk: Arc<FullDisk>,
    reader: LogReader,
    have_settings_changed: AtomicBool,
    is_disk_full: AtomicBool,
    pub(super) duty: ArcSwap<Duty>,
    /// The newest leader epoch that was heard of. It may be ahead of `duty`, which is changed with the log, and somebody may have that.
    heard: AtomicI32,
    /// What is wanted of this replica and is not so yet, because somebody has the log: whoever has it sees to that before letting go.
    wanted: Mutex<Wanted>,
    /// Looked at whenever the log moves, so that `wanted` is not.
    is_late: AtomicBool,
    /// Changed with the log held. Who has both takes the log first.
    pub(super) part: Mutex<Part>,
    told: Mutex<Told>,
}

/// What this replica is to the others.
#[derive(Debug)]
pub(super) enum Part {
    Leads(Leader),
    Follows(Following, FollowerPosition),
    Idles,
}

#[derive(Debug, Default)]
struct Wanted {
    duty: Option<Duty>,
    /// The log is to end as it is.
    ends: bool,
}

#[derive(Debug, Default)]
struct Told {
    /// What everybody here has been told of.
    last: Option<Moves>,
    /// What those have been told of who look after copies.
    last_of_copies: Option<CopyMoves>,
    pending: PendingAcks,
    watchers: BTreeMap<u64, Arc<Notify>>,
    marks: BTreeMap<u64, DirtyMark>,
    next_watcher: u64,
}

/// What a waiting consumer cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moves {
    high_watermark: Offset,
    last_stable: Offset,
    start: Offset,
    is_stopped: bool,
    role: Role,
}

/// What copying cares for beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CopyMoves {
    moves: Moves,
    end: Offset,
    /// Of a follower: what its leader waits for.
    durable: Option<Offset>,
    partition_epoch: i32,
}

impl Progress {
    /// Takes the log of a replica over, which does as `duty` says from then on.
    pub(super) fn new(log: &mut Log, name: PartitionId, duty: Duty, full_disk: Arc<FullDisk>) -> Progress {
        let progress = Progress {
            name,
            full_disk,
            reader: log.reader(),
            have_settings_changed: AtomicBool::new(false),
            is_disk_full: AtomicBool::new(false),
            part: Mutex::new(Part::Idles),
            duty: ArcSwap::from_pointee(duty.clone()),
            heard: AtomicI32::new(duty.role.epoch().0),
            wanted: Mutex::default(),
            is_late: AtomicBool::new(false),
            told: Mutex::default(),
        };
        progress.begin(log, &duty);
        progress
    }

    /// An append has ended so; the log tells of it where there was no space.
    pub(super) fn note_space<T>(&self, outcome: &Result<T, LogError>) {
        self.full_disk.note(&self.name, outcome);
        self.want_space(outcome);
    }

    /// Has whoever has the log next do as `duty` says. Of several the last one counts, as of images that came together.
    pub(super) fn want(&self, duty: Duty) {
        let mut wanted = self.wanted.lock();
        if !wanted.duty.as_ref().is_some_and(|newer| duty.is_older_than(newer)) {
            wanted.duty = Some(duty);
        }
        self.is_late.store(true, Ordering::Release);
    }

    /// Has whoever has the log next end it.
    pub(super) fn want_end(&self) {
        self.wanted.lock().ends = true;
        self.is_late.store(true, Ordering::Release);
    }

    /// Whether something is wanted of this replica that it does not do yet.
    pub(super) fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Acquire)
    }

    /// With the log: does what is wanted.
    fn catch_up(&self, log: &mut Log) {
        loop {
            let wanted = {
                let mut wanted = self.wanted.lock();
                if !wanted.ends && wanted.duty.is_none() {
                    // Said when it is done: whoever finds it so relies on that.
                    return self.is_late.store(false, Ordering::Release);
                }
                std::mem::take(&mut *wanted)
            };
            if wanted.ends {
                log.end_abruptly();
            } else if let Some(duty) = wanted.duty {
                self.take_up(log, duty);
            }
        }
    }

    /// With the log: does as `duty` says from then on. One that was overtaken by the present one is passed over.
    fn take_up(&self, log: &mut Log, duty: Duty) {
        let present = self.duty.load_full();
        if duty.is_older_than(&present) {
            return;
        }
        if *log.config() != duty.settings.log {
            log.set_config(duty.settings.log.clone());
            self.have_settings_changed.store(true, Ordering::Release);
        }
        let is_same_role = present.role == duty.role;
        if is_same_role {
            match &mut *self.part.lock() {
                Part::Leads(leader) => leader.on_duty(&leader_duty(&duty)),
                Part::Follows(following, _) => following.partition_epoch = duty.partition_epoch,
                Part::Idles => {}
            }
        } else {
            self.begin(log, &duty);
        }
        self.duty.store(Arc::new(duty));
        if !is_same_role {
            self.end_waits();
        }
    }

    /// After an append, which retention makes space for where there was none.
    pub(super) fn want_space<T>(&self, outcome: &Result<T, LogError>) {
        if matches!(outcome, Err(LogError::Full { .. })) {
            self.is_disk_full.store(true, Ordering::Release);
        }
    }

    /// Told once of each reason.
    pub(super) fn take_retention_due(&self) -> RetentionDue {
        // Looked at often and of all partitions, so that nothing is written where there is nothing.
        let take = |flag: &AtomicBool| flag.load(Ordering::Acquire) && flag.swap(false, Ordering::AcqRel);
        let (is_full, have_changed) = (take(&self.is_disk_full), take(&self.have_settings_changed));
        match (is_full, have_changed) {
            (true, _) => RetentionDue::Everywhere,
            (false, true) => RetentionDue::Here,
            (false, false) => RetentionDue::No,
        }
    }

    /// There is a leader of this epoch. Whoever waits for an earlier one is answered at once, without the log.
    pub(super) fn hear_of(&self, epoch: LeaderEpoch) {
        if self.heard.fetch_max(epoch.0, Ordering::AcqRel) < epoch.0 {
            self.announce();
        }
    }

    /// What this replica may do by all that is known here.
    pub(super) fn role(&self) -> Role {
        self.duty.load().role.under(self.heard())
    }

    pub(super) fn heard(&self) -> LeaderEpoch {
        LeaderEpoch(self.heard.load(Ordering::Acquire))
    }

    /// Fails where this broker does not lead in `epoch`, or not any more.
    pub(super) fn check_leads(&self, epoch: LeaderEpoch) -> Result<(), PartitionError> {
        let role = self.role();
        let leads = role == Role::Leader { epoch };
        if leads { Ok(()) } else { Err(PartitionError::NotLeader { epoch: role.epoch() }) }
    }

    /// First offset of the log.
    pub(super) fn log_start(&self) -> Offset {
        self.reader.start()
    }

    /// Answers whoever waits for an earlier leadership, while the log is as that one left it: the next may put something else where
    /// their records were, and commit that.
    fn end_waits(&self) {
        let waiters = self.told.lock().pending.take_all();
        let epoch = self.duty.load().role.epoch();
        for waiter in waiters {
            // Who does not wait any more need not be told.
            let _ = waiter.send(Err(PartitionError::NotLeader { epoch }));
        }
    }

    fn begin(&self, log: &mut Log, duty: &Duty) {
        let part = match duty.role {
            Role::Leader { epoch } => {
                log.begin_epoch(epoch);
                Part::Leads(self.with_view(|view| Leader::new(&leader_duty(duty), view)))
            }
            Role::Follower { epoch, leader } => {
                log.follow_epoch(epoch);
                let following = Following { leader, epoch, partition_epoch: duty.partition_epoch };
                Part::Follows(following, self.with_view(|view| following.position(view)))
            }
            Role::NotLeader { epoch } => {
                log.follow_epoch(epoch);
                Part::Idles
            }
        };
        *self.part.lock() = part;
        // Whatever an earlier leader had told.
        log.set_behind(false);
    }

    /// The log as it is published now. Complete for who holds the log; for others its parts may be of different moments, each later than
    /// the one before it in the order of `start`, `durable`, `end`, epochs.
    pub(super) fn with_view<T>(&self, look: impl FnOnce(&LogView<'_>) -> T) -> T {
        let (start, high_watermark) = (self.reader.start(), self.reader.high_watermark());
        let durable = self.reader.durable();
        let end = self.reader.end();
        let epochs = self.reader.leader_epochs();
        look(&LogView { start, end, durable, high_watermark, epochs: &epochs })
    }

    /// With the log, after it moved: the high watermark follows. Says true where a sync should.
    pub(super) fn on_moved(&self, log: &mut Log) -> bool {
        if self.is_late() {
            self.catch_up(log);
        }
        let duty = self.duty.load();
        let own = LeaderLog { end: self.reader.end(), durable: self.reader.durable() };
        let sync = duty.settings.sync;
        let is_alone = matches!(duty.role, Role::Leader { .. }) && duty.is_alone();
        // Nobody copies from here, and consumers see no more than what is durable.
        log.set_hidden_until_durable(is_alone && sync == SyncPolicy::Ack);
        if is_alone {
            log.on_high_watermark(advance(self.reader.high_watermark(), sync, own, []));
        } else {
            match &mut *self.part.lock() {
                Part::Leads(leader) => {
                    let high_watermark = self.with_view(|view| leader.advance(view));
                    log.on_high_watermark(high_watermark);
                }
                Part::Follows(following, position) => {
                    *position = self.with_view(|view| following.position(view));
                }
                Part::Idles => {}
            }
        }
        // Consumers see nothing above the high watermark, so what nobody waits for must get there too.
        let is_wanted = match log.is_behind() {
            false => sync == SyncPolicy::Ack,
            // Beyond that only so that the disk has something to do: of what is synced there, nothing is said that was not.
            true => log.bytes_to_sync() >= BEHIND_SYNC_BYTES,
        };
        own.durable < own.end && (is_wanted || log.is_flush_due())
    }

    /// Without the log, after that: tells those who wait for what has moved.
    pub(super) fn announce(&self) {
        let mut told = self.told.lock();
        let now = self.moves();
        if !told.marks.is_empty() {
            let copies = self.copy_moves(now);
            if told.last_of_copies != Some(copies) {
                told.last_of_copies = Some(copies);
                told.marks.values().for_each(DirtyMark::mark);
            }
        }
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
        let duty = self.duty.load();
        // A watermark that moved meanwhile was moved in the name of a leader of the past.
        let enough = match duty.role.under(self.heard()) {
            role if role != duty.role => Err(PartitionError::NotLeader { epoch: role.epoch() }),
            _ => duty.in_sync().check_before_acknowledgement(),
        };
        for waiter in committed {
            // Who does not wait any more need not be told.
            let _ = waiter.send(enough.clone());
        }
        for (waiter, end) in others.into_iter().zip(std::iter::repeat(end).flatten()) {
            let _ = waiter.send(Err(end));
        }
    }

    /// Has `waiter` told when everything before `end` is committed, or never will be by the leader of `epoch`.
    pub(super) fn when_committed(
        &self,
        end: Offset,
        epoch: LeaderEpoch,
        waiter: oneshot::Sender<Result<(), PartitionError>>,
    ) {
        let mut told = self.told.lock();
        // Looked at behind the lock: what moves from now on is announced behind it as well. The role last: whatever the watermark has
        // passed by then, this leader has seen to it.
        let (high_watermark, stopped) = (self.reader.high_watermark(), self.reader.stopped());
        let fate = if let Err(e) = self.check_leads(epoch) {
            Err(e)
        } else if high_watermark >= end {
            self.duty.load().in_sync().check_before_acknowledgement()
        } else if let Some(stopped) = stopped {
            Err(stopped.into())
        } else {
            return told.pending.push(end, waiter);
        };
        drop(told);
        let _ = waiter.send(fate);
    }

    pub(super) fn is_watched(&self) -> bool {
        !self.told.lock().watchers.is_empty()
    }

    pub(super) fn watch(&self, notify: Arc<Notify>) -> u64 {
        let mut told = self.told.lock();
        let id = told.new_id();
        told.watchers.insert(id, notify);
        id
    }

    pub(super) fn watch_copies(&self, mark: DirtyMark) -> u64 {
        let mut told = self.told.lock();
        let id = told.new_id();
        told.marks.insert(id, mark);
        id
    }

    /// Tells those who look after copies, though the log has not moved.
    pub(super) fn mark_copies(&self) {
        self.told.lock().marks.values().for_each(DirtyMark::mark);
    }

    pub(super) fn unwatch(&self, id: u64) {
        let mut told = self.told.lock();
        told.watchers.remove(&id);
        told.marks.remove(&id);
    }

    fn moves(&self) -> Moves {
        Moves {
            high_watermark: self.reader.high_watermark(),
            last_stable: self.reader.last_stable_offset(),
            start: self.reader.start(),
            is_stopped: self.reader.stopped().is_some(),
            role: self.role(),
        }
    }

    fn copy_moves(&self, moves: Moves) -> CopyMoves {
        let follows = matches!(moves.role, Role::Follower { .. });
        CopyMoves {
            moves,
            end: self.reader.end(),
            durable: follows.then(|| self.reader.durable()),
            partition_epoch: self.duty.load().partition_epoch,
        }
    }

    /// Why nothing more will be committed by this leader, if so.
    fn end(&self) -> Option<PartitionError> {
        let stopped = self.reader.stopped().map(PartitionError::from);
        stopped.or_else(|| self.role().lead(None).err())
    }
}

impl Told {
    fn new_id(&mut self) -> u64 {
        let id = self.next_watcher;
        self.next_watcher += 1;
        id
    }
}

fn leader_duty(duty: &Duty) -> LeaderDuty<'_> {
    LeaderDuty {
        node: duty.node,
        epoch: duty.role.epoch(),
        replicas: &duty.replicas,
        isr: &duty.isr,
        partition_epoch: duty.partition_epoch,
        sync: duty.settings.sync,
    }
}
