//! All groups that this broker coordinates: what the operations of a broker may ask about them. Group and offsets of one id
//! live in one shard, led where their partition of `__consumer_offsets` is led.
//!
//! Every call may be dropped before it is over: what was decided happens all the same. So it does where a call gives up waiting for the
//! log: whoever asked cannot know, as with one that is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;
use floodmark_proto::ids::{LeaderEpoch, ProducerId};
use floodmark_replication::lease::Lease;
use floodmark_replication::partition::{PartitionHandle, Role};
use floodmark_replication::vital::Vitals;
use floodmark_storage::clock::Clock;
use floodmark_storage::random::Random;
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::budget::{self, Budget};
use super::error::GroupError;
use super::group::{GroupState, JoinRefused, Joined, Synced};
use super::join::Join;
use super::leave::Leaving;
use super::offsets::CommittedOffset;
use super::records::partition_for;
use super::settings::GroupSettings;
use super::shard::{Batch, ShardState, Then, Write};
use super::shard_offsets::OffsetCommit;
use super::shard_task::{Shard, Time};
use super::sync::Sync;

/// The groups of this broker. Clones share them.
#[derive(Debug, Clone)]
pub struct Coordinator(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: Arc<GroupSettings>,
    random: Random,
    time: Arc<Time>,
    /// Without it another broker may coordinate these groups already.
    vitals: Vitals,
    lease: Lease,
    budget: Arc<Budget>,
    /// Partitions of the offsets topic; zero until it is there.
    partition_count: AtomicI32,
    shards: RwLock<Shards>,
}

/// The shards of this broker, by the partition of the offsets topic.
#[derive(Debug, Default)]
struct Shards {
    running: BTreeMap<i32, Arc<Shard>>,
    /// The newest leader epoch that was heard of, for this broker or any other.
    epochs: BTreeMap<i32, LeaderEpoch>,
}

impl Shards {
    /// False where a newer epoch is known already: what comes late is not acted upon (R30).
    fn hear_of(&mut self, index: i32, epoch: LeaderEpoch) -> bool {
        let newest = self.epochs.entry(index).or_insert(epoch);
        *newest = epoch.max(*newest);
        *newest == epoch
    }

    fn resign(&mut self, index: i32, epoch: LeaderEpoch) {
        if self.running.get(&index).is_some_and(|shard| shard.epoch <= epoch)
            && let Some(shard) = self.running.remove(&index)
        {
            shard.unload(GroupError::NotCoordinator);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for shard in self.shards.get_mut().running.values() {
            shard.unload(GroupError::NotCoordinator);
        }
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub id: Arc<str>,
    /// What kind of group it is; empty where it never had members.
    pub protocol_type: Arc<str>,
    /// Where it stands.
    pub state: GroupState,
}

/// A group with its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    /// Where it stands.
    pub state: GroupState,
    /// What kind of group it is; empty where it never had members.
    pub protocol_type: Arc<str>,
    /// The protocol of the generation; empty unless the group is stable.
    pub protocol: Arc<str>,
    /// Its members; what they brought and do is told of stable groups alone.
    pub members: Vec<DescribedMember>,
}

/// A member of a described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub id: Arc<str>,
    /// Its instance id, where it is static.
    pub instance_id: Option<Arc<str>>,
    /// What its process calls itself.
    pub client_id: Arc<str>,
    /// Where its process is.
    pub client_host: Arc<str>,
    /// What it says about itself.
    pub metadata: Bytes,
    /// What it does.
    pub assignment: Bytes,
}

/// Which offsets to fetch.
#[derive(Debug, Clone, Copy)]
pub enum WhichOffsets<'a> {
    /// All that the group has.
    All,
    /// Those of these partitions: topic, topic id (zeros where it is not known), partition.
    Of(&'a [(&'a str, [u8; 16], i32)]),
}

/// What is known of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Its offset, if it has one.
    pub offset: Result<Option<CommittedOffset>, GroupError>,
}

/// What ends a transaction for the offsets that were committed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionEnd {
    /// The producer.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: i16,
    /// Epoch of the coordinator of transactions.
    pub coordinator_epoch: i32,
    /// Whether its offsets count.
    pub is_commit: bool,
}

impl Coordinator {
    /// Coordinates nothing until it is told to.
    #[must_use]
    pub fn new(
        settings: GroupSettings,
        clock: Clock,
        random: Random,
        lease: Lease,
        vitals: Vitals,
    ) -> Coordinator {
        Coordinator(Arc::new(Shared {
            settings: Arc::new(settings),
            random,
            time: Arc::new(Time::new(clock)),
            lease,
            vitals,
            budget: Arc::default(),
            partition_count: AtomicI32::new(0),
            shards: RwLock::default(),
        }))
    }

    /// The offsets topic is there, with so many partitions.
    pub fn set_partition_count(&self, count: i32) {
        self.0.partition_count.store(count, Ordering::Release);
    }

    /// Takes over, or gives up, the groups of a partition of the offsets topic, by what its handle says of this broker's role.
    /// Roles of the past are not listened to. To be called on a runtime, on which the shard then works.
    pub fn follow(&self, partition: &PartitionHandle) {
        let (index, role) = (partition.id().index, partition.duty().role);
        let mut shards = self.0.shards.write();
        let has_it = shards.running.get(&index).is_some_and(|shard| shard.epoch >= role.epoch());
        if has_it || !shards.hear_of(index, role.epoch()) {
            return;
        }
        shards.resign(index, role.epoch());
        if let Role::Leader { epoch } = role {
            let shard = Arc::new(Shard::new(
                partition.clone(),
                epoch,
                Arc::clone(&self.0.settings),
                Arc::clone(&self.0.budget),
                Arc::clone(&self.0.time),
            ));
            shards.running.insert(index, Arc::clone(&shard));
            tokio::spawn(self.0.vitals.keep("coordinating groups", shard.run()));
        }
    }

    /// Another broker coordinates the groups of a partition since `epoch`, or the partition is gone.
    pub fn resign(&self, index: i32, epoch: LeaderEpoch) {
        let mut shards = self.0.shards.write();
        shards.hear_of(index, epoch);
        shards.resign(index, epoch);
    }

    /// Gives up all groups; everybody who waits is answered.
    pub fn stop(&self) {
        for shard in std::mem::take(&mut *self.0.shards.write()).running.into_values() {
            shard.unload(GroupError::NotCoordinator);
        }
    }

    /// The partition of the offsets topic that a group belongs to; whoever leads it coordinates the group.
    pub fn find(&self, group: &str) -> Result<i32, GroupError> {
        match self.0.partition_count.load(Ordering::Acquire) {
            0 => Err(GroupError::CoordinatorNotAvailable),
            count => Ok(partition_for(group, count)),
        }
    }

    fn shard(&self, group: &str) -> Result<Arc<Shard>, GroupError> {
        let index = self.find(group)?;
        self.shard_at(index)
    }

    /// The groups of a partition, where nobody else can have been given them: what is known of them is not old.
    fn shard_at(&self, index: i32) -> Result<Arc<Shard>, GroupError> {
        self.check_lease()?;
        let shard = self.0.shards.read().running.get(&index).cloned();
        shard.filter(|shard| shard.leads()).ok_or(GroupError::NotCoordinator)
    }

    fn check_lease(&self) -> Result<(), GroupError> {
        if self.0.lease.is_held() { Ok(()) } else { Err(GroupError::NotCoordinator) }
    }

    /// A member joins: waits until the rebalance is over. The id of a new member is made here.
    pub async fn join(&self, group: &str, join: Join) -> Result<Joined, JoinRefused> {
        let member_id = Arc::clone(&join.member_id);
        let refused = |error| JoinRefused { error, member_id };
        let told = match self.begin_join(group, join) {
            Ok(told) => told,
            Err(error) => return Err(refused(error)),
        };
        told.await.unwrap_or_else(|_| Err(refused(GroupError::CoordinatorNotAvailable)))
    }

    fn begin_join(
        &self,
        group: &str,
        join: Join,
    ) -> Result<oneshot::Receiver<Result<Joined, JoinRefused>>, GroupError> {
        check_id(group)?;
        let join = Join { fresh: self.fresh_id(), ..join };
        let (reply, told) = oneshot::channel();
        self.shard(group)?.write(|state, now| state.join(group, join, now, reply))?;
        Ok(told)
    }

    fn fresh_id(&self) -> uuid::Uuid {
        let (high, low) = (self.0.random.next_u64(), self.0.random.next_u64());
        uuid::Builder::from_random_bytes(uuid::Uuid::from_u64_pair(high, low).into_bytes()).into_uuid()
    }

    /// A member asks for its assignment: waits until the leader's is written.
    pub async fn sync(&self, group: &str, sync: Sync) -> Result<Synced, GroupError> {
        check_id(group)?;
        let (reply, told) = oneshot::channel();
        self.shard(group)?.write(|state, now| state.sync(group, sync, now, reply))?;
        told.await.unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }

    /// A member says that it is there.
    pub fn heartbeat(
        &self,
        group: &str,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        check_id(group)?;
        self.shard(group)?.act(|state, now| state.heartbeat(group, member_id, instance_id, generation, now))
    }

    /// Members leave; one answer for each.
    pub fn leave(
        &self,
        group: &str,
        leaving: &[Leaving<'_>],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_id(group)?;
        self.shard(group)?.act(|state, now| state.leave(group, leaving, now))
    }

    /// Commits offsets: waits until they are in the log for good. One answer for each.
    pub async fn commit_offsets(
        &self,
        group: &str,
        commit: &OffsetCommit<'_>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let (reply, told) = oneshot::channel();
        let verdicts = self.shard(group)?.write(|state, now| state.commit(group, commit, now, reply))?;
        self.settle(verdicts, told).await
    }

    /// Ends a transaction for the offsets of one partition of the offsets topic: waits until that is in the log for good. Markers
    /// in the offsets topic are written here and nowhere else, so that their place among commits is known.
    pub async fn end_transaction(&self, index: i32, end: TransactionEnd) -> Result<(), GroupError> {
        let shard = self.shard_at(index)?;
        let (reply, told) = oneshot::channel();
        shard.write(|state, _| {
            state.check_active()?;
            let TransactionEnd { producer, epoch, coordinator_epoch, is_commit } = end;
            let batch = Batch::EndTransaction { producer, epoch, coordinator_epoch, is_commit };
            state.outbox.push(Write { batch, then: Then::TransactionEnded { producer, is_commit, reply } });
            Ok(())
        })?;
        self.written(told).await
    }

    /// Committed offsets, in the order asked for.
    pub fn fetch_offsets(
        &self,
        group: &str,
        which: WhichOffsets<'_>,
        needs_stable: bool,
    ) -> Result<Vec<FetchedOffset>, GroupError> {
        self.shard(group)?.look(|state| fetch(state, group, which, needs_stable))
    }

    /// Forgets committed offsets: waits until that is in the log for good. One answer for each.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        check_id(group)?;
        let (reply, told) = oneshot::channel();
        let verdicts =
            self.shard(group)?.write(|state, now| state.delete_offsets(group, partitions, now, reply))?;
        self.settle(verdicts, told).await
    }

    /// What the log says, or that it has not said anything in time: what Kafka tells then, and what clients come back after.
    async fn written(&self, told: oneshot::Receiver<Result<(), GroupError>>) -> Result<(), GroupError> {
        let told = timeout(self.0.settings.commit_timeout, told).await;
        told.ok().and_then(Result::ok).unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }

    /// Those that were accepted are as good as the write of all of them.
    async fn settle(
        &self,
        verdicts: Vec<Result<(), GroupError>>,
        told: oneshot::Receiver<Result<(), GroupError>>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let written = self.written(told).await;
        Ok(verdicts.into_iter().map(|verdict| verdict.and(written)).collect())
    }

    /// All groups that are coordinated here; fails while some of them are being loaded.
    pub fn list_groups(&self) -> Result<Vec<ListedGroup>, GroupError> {
        self.check_lease()?;
        let mut all = Vec::new();
        for shard in self.shards() {
            shard.look(|state| {
                state.check_active()?;
                all.extend(state.groups.values().map(|entry| ListedGroup {
                    id: Arc::clone(entry.group.id()),
                    protocol_type: entry.group.protocol_type().cloned().unwrap_or_default(),
                    state: entry.group.state(),
                }));
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// A group with its members.
    pub fn describe_group(&self, group: &str) -> Result<DescribedGroup, GroupError> {
        self.shard(group)?.look(|state| {
            state.check_active()?;
            let entry = state.groups.get(group).ok_or(GroupError::GroupNotFound)?;
            Ok(describe(&entry.group))
        })
    }

    /// Deletes a group without members and its offsets: waits until that is in the log for good.
    pub async fn delete_group(&self, group: &str) -> Result<(), GroupError> {
        let (reply, told) = oneshot::channel();
        self.shard(group)?.write(|state, now| state.delete_group(group, now, reply))?;
        self.written(told).await
    }

    /// Forgets offsets of topics that `is_gone` says are gone, by name and id; an id of zeros is not known. False where some shard could
    /// not be asked, because it is being loaded.
    pub fn delete_orphans(&self, is_gone: &dyn Fn(&str, [u8; 16]) -> bool) -> bool {
        let mut all = true;
        for shard in self.shards() {
            all &= shard.act(|state, _| state.delete_orphans(is_gone)).is_ok();
        }
        all
    }

    /// Calls `each` with group, topic, partition and offset of everything that is committed. Groups that are being loaded are left out.
    pub fn each_committed_offset(&self, mut each: impl FnMut(&str, &str, i32, i64)) {
        for shard in self.shards() {
            shard.look(|state| {
                for (group, entry) in &state.groups {
                    for (topic, partition, kept) in entry.offsets.committed() {
                        each(group, topic, partition, kept.offset);
                    }
                }
            });
        }
    }

    /// What all groups share, and what was refused because of it.
    #[must_use]
    pub fn shared(&self) -> budget::Shared {
        self.0.budget.shared()
    }

    /// How many groups there are, and how many of them in each state.
    #[must_use]
    pub fn count_by_state(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for shard in self.shards() {
            shard.look(|state| {
                for entry in state.groups.values() {
                    *counts.entry(entry.group.state().name()).or_default() += 1;
                }
            });
        }
        counts
    }

    /// Has all shards look at the time, where a test has moved it.
    pub fn wake(&self) {
        for shard in self.shards() {
            shard.wake();
        }
    }

    fn shards(&self) -> Vec<Arc<Shard>> {
        self.0.shards.read().running.values().filter(|shard| shard.leads()).cloned().collect()
    }
}

/// Kafka's groups with an empty id may keep offsets and have no members.
fn check_id(group: &str) -> Result<(), GroupError> {
    if group.is_empty() { Err(GroupError::InvalidGroupId) } else { Ok(()) }
}

fn fetch(
    state: &ShardState,
    group: &str,
    which: WhichOffsets<'_>,
    needs_stable: bool,
) -> Result<Vec<FetchedOffset>, GroupError> {
    let offsets = state.offsets_of(group)?;
    let fetch_one = |topic: Arc<str>, topic_id, partition| {
        let found = offsets.map_or(Ok(None), |o| o.fetch(&topic, partition, topic_id, needs_stable));
        FetchedOffset { offset: found.map(|kept| kept.cloned()), topic, partition }
    };
    Ok(match which {
        WhichOffsets::Of(list) => {
            // Partitions that come one behind the other share the name of their topic, which may be long.
            let mut last: Option<(&str, Arc<str>)> = None;
            let mut fetched = Vec::with_capacity(list.len());
            for (topic, id, partition) in list {
                let (_, shared) = match last.take().filter(|(of, _)| std::ptr::eq(*of, *topic)) {
                    Some(same) => last.insert(same),
                    None => last.insert((topic, Arc::from(*topic))),
                };
                fetched.push(fetch_one(Arc::clone(shared), *id, *partition));
            }
            fetched
        }
        WhichOffsets::All => {
            let all = offsets.into_iter().flat_map(|offsets| offsets.partitions());
            all.map(|(topic, partition)| fetch_one(Arc::clone(topic), [0; 16], partition)).collect()
        }
    })
}

fn describe(group: &super::group::Group) -> DescribedGroup {
    let is_stable = group.state() == GroupState::Stable;
    let snapshot = group.snapshot();
    let shown = |bytes: Bytes| if is_stable { bytes } else { Bytes::new() };
    let members = snapshot.members.into_iter().map(|m| DescribedMember {
        id: m.id,
        instance_id: m.instance_id,
        client_id: m.client_id,
        client_host: m.client_host,
        metadata: shown(m.metadata),
        assignment: shown(m.assignment),
    });
    DescribedGroup {
        state: group.state(),
        protocol_type: snapshot.protocol_type.unwrap_or_default(),
        protocol: snapshot.protocol.filter(|_| is_stable).unwrap_or_default(),
        members: members.collect(),
    }
}
