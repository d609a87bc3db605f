//! What the other replicas of a partition may ask of this one, and what this one does with what its leader sends. Decides nothing: the
//! rules are in `leader` and `follower`.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use floodmark_proto::batch::{BatchHeader, RecordBatch};
use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId};
use floodmark_storage::log::Log;
use floodmark_storage::log::append::AppendAs;
use floodmark_storage::{LogError, ReadLimits};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::dirty::DirtyMark;
use super::exchange::{Fetched, FollowerPosition, LogView, ReplicaFetch, ReplicaRead};
use super::follower::{Following, Step};
use super::leader::{Agreement, Leader, ProposedIsr, ReplicaProgress};
use super::progress::Part;
use super::role::check_epoch;
use super::{PartitionError, PartitionHandle, Registration};
use crate::cluster::{Command, CommandError};

/// A replica that is far behind syncs when it has appended so many: then the disk works while more is copied, and little is left to sync when
/// it has come up.
pub(super) const BEHIND_SYNC_BYTES: u64 = 32 << 20;
/// Bytes that are written on the thread that brought them; as much as a leader sends at a time to who is far behind. Who applies more than a
/// little has a thread for it.
const QUICK_BYTES: usize = 2 << 20;

/// An in-sync set that a leader proposes for its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    /// The topic's incarnation.
    pub topic_id: TopicId,
    /// The partition's number.
    pub partition: u32,
    /// What is proposed.
    pub proposed: ProposedIsr,
}

/// What came from the leader, checked, and who waits to hear what became of it.
#[derive(Debug)]
pub(super) struct Incoming {
    fetched: Fetched,
    batches: Vec<RecordBatch>,
    /// Others have had for long what came, and even then have more.
    is_behind: bool,
    tell: oneshot::Sender<Result<FollowerPosition, PartitionError>>,
}

/// Whether the thread at hand may wait for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayWait {
    Yes,
    No,
}

impl PartitionHandle {
    /// What a follower lacks, from where it says it is; of what it says nothing is remembered. May wait for a disk: not for threads that
    /// run tasks.
    pub fn replica_fetch(
        &self,
        from: &ReplicaFetch,
        max_bytes: usize,
    ) -> Result<ReplicaRead, PartitionError> {
        let at = from.fetch_offset;
        let read = |limits| self.say(at, self.0.reader.read(at, limits)).map(Some);
        let found = self.read_for(from, max_bytes, read)?;
        found.ok_or(PartitionError::Abandoned)
    }

    /// The same from memory alone, for any thread; `None` where [`PartitionHandle::replica_fetch`] must be asked.
    pub fn replica_fetch_in_memory(
        &self,
        from: &ReplicaFetch,
        max_bytes: usize,
    ) -> Result<Option<ReplicaRead>, PartitionError> {
        self.read_for(from, max_bytes, |limits| self.0.reader.read_in_memory(from.fetch_offset, limits))
    }

    fn read_for(
        &self,
        from: &ReplicaFetch,
        max_bytes: usize,
        read: impl FnOnce(ReadLimits) -> Result<Option<Vec<Bytes>>, LogError>,
    ) -> Result<Option<ReplicaRead>, PartitionError> {
        let progress = &self.0.progress;
        let judge = |leader: &mut Leader| {
            let judged = |log: &LogView<'_>| (leader.judge(from, log), leader.epoch(), log.start, log.end);
            progress.with_view(judged)
        };
        let (agreement, epoch, log_start, log_end) = self.as_leader(judge)?;
        let agreement = agreement?;
        let batches = match agreement {
            Agreement::Agrees => match read(ReadLimits { max_bytes, below: log_end })? {
                Some(batches) => batches,
                None => return Ok(None),
            },
            Agreement::PartsAt(..) | Agreement::EndsBeforeStart => Vec::new(),
        };
        // Had leadership been lost meanwhile, what was read may be the next leader's, behind records that the follower has of this one.
        self.as_leader(|leader| check_epoch(epoch, leader.epoch()))??;
        let diverging = match agreement {
            Agreement::PartsAt(epoch, end) => Some((epoch, end)),
            Agreement::Agrees | Agreement::EndsBeforeStart => None,
        };
        let high_watermark = self.0.reader.high_watermark();
        Ok(Some(ReplicaRead { batches, high_watermark, log_start, log_end, diverging }))
    }

    /// A follower says where it is. This alone counts for the high watermark and the in-sync set. Waits for nothing.
    pub fn on_replica_position(&self, from: &ReplicaFetch, now_ms: u64) -> Result<(), PartitionError> {
        let progress = &self.0.progress;
        let hear = |leader: &mut Leader| progress.with_view(|log| leader.on_position(from, log, now_ms));
        let heard = self.as_leader(hear)??;
        if heard.moves_watermark {
            self.0.log.look();
        }
        if heard.could_join {
            progress.mark_copies();
        }
        Ok(())
    }

    fn as_leader<T>(&self, f: impl FnOnce(&mut Leader) -> T) -> Result<T, PartitionError> {
        match &mut *self.0.progress.part.lock() {
            Part::Leads(leader) => Ok(f(leader)),
            Part::Follows(..) | Part::Idles => Err(self.not_leader()),
        }
    }

    fn not_leader(&self) -> PartitionError {
        PartitionError::NotLeader { epoch: self.leader_epoch() }
    }

    /// Where this replica stands and whom it follows; `None` where it follows nobody now, or takes nothing more: whoever would hear that it
    /// has everything took it for one that keeps up.
    #[must_use]
    pub fn follower_position(&self) -> Option<FollowerPosition> {
        if self.0.reader.stopped().is_some() {
            return None;
        }
        match &*self.0.progress.part.lock() {
            Part::Follows(_, position) => Some(*position),
            Part::Leads(_) | Part::Idles => None,
        }
    }

    /// Does with the log what the leader's answer asks for. The call fixes the order of several, and waits for nothing; the future tells
    /// where the replica stands then, and may be dropped without undoing anything. To be called on a runtime.
    ///
    /// Done when in the log; what is synced shows in [`PartitionHandle::follower_position`]. Fails with
    /// [`PartitionError::NotTheNext`] where the answer is to something that the log is past.
    pub fn on_fetched(
        &self,
        fetched: Fetched,
    ) -> impl Future<Output = Result<FollowerPosition, PartitionError>> + Send + use<> {
        let (tell, told) = oneshot::channel();
        let duty = self.0.progress.duty.load();
        let is_in_sync = duty.isr.contains(&duty.node);
        match take_apart(&fetched, is_in_sync) {
            Err(e) => drop(tell.send(Err(e))),
            Ok((batches, is_behind)) => {
                self.0.fetched.lock().push_back(Incoming { fetched, batches, is_behind, tell });
                let here = self.clone();
                // Nobody who has the log looks at what came meanwhile, so who brought it sees to it.
                match self.0.log.try_with_log(move |log| here.copy_waiting(log, MayWait::No)) {
                    Ok(true) => {}
                    Ok(false) | Err(_) => {
                        let this = self.clone();
                        spawn_blocking(move || {
                            this.0.log.with_log(|log| this.copy_waiting(log, MayWait::Yes))
                        });
                    }
                }
            }
        }
        async move { told.await.unwrap_or(Err(PartitionError::Abandoned)) }
    }

    /// With the log: what came from the leader, in its order. False where the first that is left needs a thread that may wait.
    fn copy_waiting(&self, log: &mut Log, may_wait: MayWait) -> bool {
        loop {
            let Some(incoming) = self.0.fetched.lock().pop_front() else { return true };
            let step = self.next_step(&incoming);
            let is_quick = match step {
                Ok(Step::Append { begin_at: None }) => {
                    let bytes: usize = incoming.batches.iter().map(RecordBatch::size_bytes).sum();
                    // What an earlier leadership here has left to wait must be written first.
                    !log.is_staging() && bytes <= QUICK_BYTES && incoming.fetched.log_start <= log.start()
                }
                Err(_) => true,
                Ok(_) => false,
            };
            if !is_quick && may_wait == MayWait::No {
                self.0.fetched.lock().push_front(incoming);
                return false;
            }
            let Incoming { fetched, batches, is_behind, tell } = incoming;
            let done = step.and_then(|step| self.do_step(log, step, &fetched, batches, is_behind));
            // Who does not wait any more need not be told.
            let _ = tell.send(done);
        }
    }

    fn next_step(&self, incoming: &Incoming) -> Result<Step, PartitionError> {
        let progress = &self.0.progress;
        let fetched = &incoming.fetched;
        let first_base = incoming.batches.first().map(|batch| batch.header().base_offset);
        match &*progress.part.lock() {
            Part::Follows(following, _) => progress.with_view(|log| following.step(fetched, first_base, log)),
            Part::Leads(_) | Part::Idles => {
                check_epoch(fetched.leader_epoch, self.leader_epoch())?;
                Err(self.not_leader())
            }
        }
    }

    fn do_step(
        &self,
        log: &mut Log,
        step: Step,
        fetched: &Fetched,
        batches: Vec<RecordBatch>,
        is_behind: bool,
    ) -> Result<FollowerPosition, PartitionError> {
        match step {
            Step::Cut { to } => {
                let end = log.truncate_to(to)?;
                tracing::info!(partition = %self.0.name, %end, "cut: the leader's log goes on differently");
            }
            Step::Reset { at } => {
                log.reset_to(at)?;
                log.on_high_watermark(at);
                tracing::info!(partition = %self.0.name, start = %at, "begun again: the leader's log starts later");
            }
            Step::Append { begin_at } => {
                if let Some(base) = begin_at {
                    log.reset_to(base)?;
                }
                log.set_behind(is_behind);
                let outcomes = log.append(batches, AppendAs::Replica);
                self.0.progress.want_space(&outcomes);
                let outcomes = outcomes?;
                self.after_append(log, fetched)?;
                if let Some(e) = outcomes.into_iter().find_map(Result::err) {
                    return Err(PartitionError::BadCopy { reason: e.to_string() });
                }
            }
        }
        match &mut *self.0.progress.part.lock() {
            Part::Follows(following, position) => {
                // Kept before it is told: who is told asks on from there, and must not be shown where the log was before a cut.
                *position = self.0.progress.with_view(|log| following.position(log));
                Ok(*position)
            }
            Part::Leads(_) | Part::Idles => Err(self.not_leader()),
        }
    }

    fn after_append(&self, log: &mut Log, fetched: &Fetched) -> Result<(), PartitionError> {
        let Part::Follows(following, _) = *self.0.progress.part.lock() else { return Ok(()) };
        log.on_high_watermark(following.high_watermark_after(fetched, log.end()));
        let start = following.start_after(fetched, self.0.reader.high_watermark());
        if start > log.start() {
            log.delete_before(start)?;
        }
        Ok(())
    }

    /// Has `mark` set whenever something moves that a copy depends on: the log's ends, the high watermark, the log's start, the role, the
    /// in-sync set, a failure. Who registers first and looks then misses nothing.
    #[must_use]
    pub fn on_replica_progress(&self, mark: DirtyMark) -> Registration {
        let progress = self.0.progress.clone();
        Registration { id: progress.watch_copies(mark), progress }
    }

    /// The in-sync set to propose now, if any: without followers that have lacked something for `lag_ms_max`, with those that have caught up.
    /// Who gets one owes an answer. One is under way at a time.
    #[must_use]
    pub fn isr_proposal(&self, now_ms: u64, lag_ms_max: u64) -> Option<IsrProposal> {
        let progress = &self.0.progress;
        let propose =
            |leader: &mut Leader| progress.with_view(|log| leader.isr_proposal(log, now_ms, lag_ms_max));
        let proposed = self.as_leader(propose).ok()??;
        let partition = u32::try_from(self.0.name.index).ok()?;
        Some(IsrProposal { topic_id: self.0.name.topic_id, partition, proposed })
    }

    /// What the cluster said to the proposal under way.
    pub fn on_isr_answer(&self, answer: &Result<i32, CommandError>) {
        // Who does not lead any more has nothing under way.
        let _ = self.as_leader(|leader| leader.on_isr_answer(answer));
    }

    /// Nobody knows what became of the proposal under way; it may still be agreed to.
    pub fn on_isr_unanswered(&self) {
        let _ = self.as_leader(Leader::on_isr_unanswered);
    }

    /// True where time alone may bring [`PartitionHandle::isr_proposal`] to propose something: it must be asked again soon.
    #[must_use]
    pub fn needs_isr_watch(&self) -> bool {
        let end = self.log_end();
        self.as_leader(|leader| leader.needs_isr_watch(end)).unwrap_or(false)
    }

    /// How the other replicas are doing, as their leader knows it; nothing where this broker does not lead.
    #[must_use]
    pub fn replicas_progress(&self, now_ms: u64) -> Vec<ReplicaProgress> {
        let progress = &self.0.progress;
        let look = |leader: &mut Leader| progress.with_view(|log| leader.progress(log, now_ms));
        self.as_leader(look).unwrap_or_default()
    }
}

impl IsrProposal {
    /// The command that proposes it. `epoch_of` tells the registration of a broker that is in sync already; `None` where one is not
    /// registered.
    pub fn command(&self, epoch_of: impl Fn(BrokerId) -> Option<BrokerEpoch>) -> Option<Command> {
        let member = |(broker, epoch): &(BrokerId, Option<BrokerEpoch>)| {
            Some((*broker, epoch.or_else(|| epoch_of(*broker))?))
        };
        let isr = self.proposed.isr.iter().map(member).collect::<Option<_>>()?;
        Some(Command::ChangeIsr {
            topic: self.topic_id,
            partition: self.partition,
            leader: self.proposed.leader,
            leader_epoch: self.proposed.leader_epoch,
            partition_epoch: self.proposed.partition_epoch,
            isr,
        })
    }
}

/// The batches that a leader sent, each checked, and whether the replica is far behind with them in its log. They are in bytes of their own
/// where they may be kept in memory: a piece may be part of a much larger buffer, which the newest batches must not hold on to. Those of a
/// replica that is far behind are not kept.
fn take_apart(fetched: &Fetched, is_in_sync: bool) -> Result<(Vec<RecordBatch>, bool), PartitionError> {
    let bad = |reason: String| PartitionError::BadCopy { reason };
    let mut found = Vec::with_capacity(fetched.batches.len());
    let mut end = fetched.fetch_offset;
    for piece in &fetched.batches {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).map_err(|e| bad(e.to_string()))?;
            if header.size_bytes() > rest.len() {
                return Err(bad(format!("the batch at offset {} is cut short", header.base_offset)));
            }
            found.push(rest.split_to(header.size_bytes()));
            end = header.next_offset();
        }
    }
    let is_behind = !is_in_sync && Following::is_behind(fetched, end);
    let mut batches: Vec<RecordBatch> = Vec::with_capacity(found.len());
    for bytes in found {
        let batch = match is_behind {
            true => RecordBatch::from_stored_within(bytes),
            false => RecordBatch::from_stored(BytesMut::from(&bytes[..])),
        };
        let batch = batch.map_err(|e| bad(e.to_string()))?;
        check_follows(&batch, batches.last(), fetched.leader_epoch).map_err(bad)?;
        batches.push(batch);
    }
    Ok((batches, is_behind))
}

fn check_follows(
    batch: &RecordBatch,
    before: Option<&RecordBatch>,
    leader_epoch: LeaderEpoch,
) -> Result<(), String> {
    let header = batch.header();
    if header.leader_epoch > leader_epoch {
        let (of, base) = (header.leader_epoch, header.base_offset);
        return Err(format!(
            "at offset {base} it is of epoch {of}, after that of its leader, {leader_epoch}"
        ));
    }
    let end = before.map_or(Offset::ZERO, |before| before.header().next_offset());
    if header.base_offset < end {
        return Err(format!(
            "it begins at offset {}, before {end}, where the one before it ends",
            header.base_offset
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
