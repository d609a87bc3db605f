//! Membership of a group: join, share out where this member leads, take what was assigned, stay, leave. The classic protocol of Kafka's
//! groups, so that a group may have members of both doors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::kafka::ErrorCode;
use floodmark_proto::pb::v1 as pb;
use tokio::time::{Instant, sleep, timeout};

use super::assignor::{Assignor, Member};
use super::config::{Commit, Rebalance, RebalanceChange};
use super::feed::Fetched;
use super::protocol::{decode_assignment, decode_subscription, encode_assignment, encode_subscription};
use super::{ConsumerHandle, Membership, Shared};
use crate::channels::{Peer, within};
use crate::error::{Error, Result};
use crate::record::TopicPartition;
use crate::retry::Backoff;

/// What groups that read topics call themselves.
const PROTOCOL_TYPE: &str = "consumer";
/// Beyond the time that a rebalance may take, for the answer to arrive.
const SLACK: Duration = Duration::from_secs(5);
/// For the last commit of a consumer that ends, and for one that is under way by then: long enough for another coordinator to be found, and
/// no longer. What is not committed is read again.
pub(super) const LAST_COMMIT: Duration = Duration::from_secs(10);
/// How often a leader looks whether topics that are missing are there by now.
const MISSING_TOPIC_CHECK: Duration = Duration::from_secs(5);

/// A member from its first join until the consumer ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut task = Task::new(Arc::clone(&shared));
    let leaving = shared.leaving.clone();
    tokio::select! {
        () = task.stay() => {}
        () = leaving.cancelled() => {}
    }
    task.leave().await;
    shared.ending.cancel();
}

/// Commits what is done, from time to time; the last time when a consumer without a group's topics ends is its own affair.
pub(super) async fn commit_regularly(shared: Arc<Shared>, interval: Duration) {
    loop {
        tokio::select! {
            () = sleep(interval) => {}
            () = shared.leaving.cancelled() => return,
        }
        let late = async {
            shared.leaving.cancelled().await;
            sleep(LAST_COMMIT).await;
        };
        tokio::select! {
            committed = shared.commit(true) => if let Err(error) = committed {
                tracing::debug!(group = shared.config.group, %error, "a regular commit failed; the next one follows");
            },
            () = late => return,
        }
    }
}

struct Task {
    shared: Arc<Shared>,
    group: String,
    member_id: String,
    generation: i32,
    coordinator: Option<Peer>,
    /// How many partitions each topic had when this member shared them out; none where it did not.
    shared_out: Option<BTreeMap<String, i32>>,
    backoff: Backoff,
}

/// What a generation ended with.
enum Ended {
    /// Join again; what the group's protocol lets a member keep is kept.
    Rebalance,
    /// The group has given this member up.
    Lost,
}

impl Task {
    fn new(shared: Arc<Shared>) -> Task {
        let backoff = Backoff::new(shared.client.config());
        let group = shared.config.group.clone().unwrap_or_default();
        Task {
            shared,
            group,
            member_id: String::new(),
            generation: -1,
            coordinator: None,
            shared_out: None,
            backoff,
        }
    }

    /// One generation after the other. Returns only where the group refuses this member for good, which the consumer is told.
    async fn stay(&mut self) {
        loop {
            let ended = match self.generation().await {
                Ok(ended) => ended,
                Err(error) => match self.judge(&error) {
                    Some(ended) => {
                        tracing::debug!(group = self.group, %error, "a generation ended");
                        sleep(self.backoff.next()).await;
                        ended
                    }
                    None => {
                        self.lose().await;
                        let _ = self.shared.fetched.send(Fetched::Failed(error)).await;
                        return;
                    }
                },
            };
            if matches!(ended, Ended::Lost) {
                self.lose().await;
            } else if !self.is_cooperative() {
                self.give_away(self.shared.positions.assignment(), None).await;
            }
        }
    }

    /// Whether a failure is one to go on after.
    fn judge(&mut self, error: &Error) -> Option<Ended> {
        match error.code() {
            Some(ErrorCode::RebalanceInProgress) => Some(Ended::Rebalance),
            Some(ErrorCode::UnknownMemberId) => {
                self.member_id.clear();
                Some(Ended::Lost)
            }
            Some(ErrorCode::IllegalGeneration) => Some(Ended::Lost),
            _ if error.is_retryable() => {
                self.coordinator = None;
                Some(Ended::Rebalance)
            }
            _ => None,
        }
    }

    /// Partitions are kept through a rebalance only where every assignor that may be chosen plans for it.
    fn is_cooperative(&self) -> bool {
        self.shared.config.assignors.iter().all(|assignor| *assignor == Assignor::CooperativeSticky)
    }

    async fn generation(&mut self) -> Result<Ended> {
        let joined = self.join().await?;
        self.member_id.clone_from(&joined.member_id);
        self.generation = joined.generation;
        let assigned = self.sync(&joined).await?;
        *self.shared.membership.lock() = Some(Membership {
            member_id: self.member_id.clone(),
            instance_id: self.shared.config.instance_id.clone(),
            generation: self.generation,
        });
        self.backoff.reset();
        let owned = self.shared.positions.assignment();
        let gone: Vec<TopicPartition> =
            owned.iter().filter(|partition| !assigned.contains(partition)).cloned().collect();
        let gives_away = !gone.is_empty();
        self.give_away(gone, None).await;
        self.take(assigned.into_iter().filter(|partition| !owned.contains(partition)).collect()).await?;
        if gives_away && self.is_cooperative() {
            // What was given away can now be given out.
            return Ok(Ended::Rebalance);
        }
        self.heartbeats().await
    }

    async fn coordinator(&mut self) -> Result<Peer> {
        if let Some(peer) = &self.coordinator {
            return Ok(peer.clone());
        }
        let peer = self.shared.client.coordinator(&self.group).await?;
        self.coordinator = Some(peer.clone());
        Ok(peer)
    }

    async fn join(&mut self) -> Result<pb::JoinReply> {
        let peer = self.coordinator().await?;
        let config = &self.shared.config;
        let owned = self.shared.positions.assignment();
        let metadata = encode_subscription(&config.topics, &owned, self.generation)?;
        let protocol = |assignor: &Assignor| pb::GroupProtocol {
            name: assignor.name().to_owned(),
            metadata: metadata.clone(),
        };
        let limit = config.rebalance_timeout + SLACK;
        let mut asked = pb::JoinRequest {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: config.instance_id.clone(),
            client_id: self.shared.client.config().client_id.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: config.assignors.iter().map(protocol).collect(),
            session_timeout_ms: millis(config.session_timeout),
            rebalance_timeout_ms: millis(config.rebalance_timeout),
        };
        let what = "joining a group";
        let joined = peer.answer_within(what, limit, peer.groups().join(within(limit, asked.clone()))).await;
        match joined {
            Err(Error::Refused(refusal)) if refusal.code == Some(ErrorCode::MemberIdRequired) => {
                let named = refusal.details.iter().find(|(name, _)| name == "member_id");
                let missing = || Error::Protocol("a member id is required and none is given".to_owned());
                asked.member_id = named.map(|(_, id)| id.clone()).ok_or_else(missing)?;
                self.member_id.clone_from(&asked.member_id);
                peer.answer_within(what, limit, peer.groups().join(within(limit, asked))).await
            }
            joined => joined,
        }
    }

    async fn sync(&mut self, joined: &pb::JoinReply) -> Result<Vec<TopicPartition>> {
        let leads = joined.leader_id == joined.member_id && !joined.skip_assignment;
        let assignments = if leads { self.share_out(joined).await? } else { Vec::new() };
        if !leads {
            self.shared_out = None;
        }
        let peer = self.coordinator().await?;
        let limit = self.shared.config.rebalance_timeout + SLACK;
        let asked = pb::SyncRequest {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.shared.config.instance_id.clone(),
            generation: self.generation,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol: joined.protocol.clone(),
            assignments,
        };
        let mut groups = peer.groups();
        let synced = groups.sync(within(limit, asked));
        let synced = peer.answer_within("waiting for an assignment", limit, synced).await?;
        decode_assignment(&synced.assignment)
    }

    /// What each member shall read.
    async fn share_out(&mut self, joined: &pb::JoinReply) -> Result<Vec<pb::MemberAssignment>> {
        let assignor = Assignor::from_name(&joined.protocol).ok_or_else(|| {
            Error::Protocol(format!(
                "the group has chosen `{}`, which this member never offered",
                joined.protocol
            ))
        })?;
        let members = joined.members.iter().map(|member| {
            Ok(Member {
                id: member.member_id.clone(),
                instance_id: member.instance_id.clone(),
                subscription: decode_subscription(&member.metadata)?,
            })
        });
        let members = members.collect::<Result<Vec<Member>>>()?;
        let topics = members.iter().flat_map(|member| member.subscription.topics.iter());
        let mut counts: BTreeMap<String, i32> = topics.map(|topic| (topic.clone(), 0)).collect();
        self.count(&mut counts).await?;
        self.tell_missing(&counts);
        let shares = assignor.assign(&members, &counts);
        self.shared_out = Some(counts);
        let assignment = |(member, share): (&Member, Vec<TopicPartition>)| {
            Ok(pb::MemberAssignment { member_id: member.id.clone(), assignment: encode_assignment(&share)? })
        };
        members.iter().zip(shares).map(assignment).collect()
    }

    /// Says of each topic that is not there that nothing of it is read. Not again while it stays so.
    fn tell_missing(&self, counts: &BTreeMap<String, i32>) {
        let was_missing =
            |topic| self.shared_out.as_ref().is_some_and(|before| before.get(topic) == Some(&0));
        for (topic, _) in counts.iter().filter(|(topic, count)| **count == 0 && !was_missing(*topic)) {
            tracing::warn!(
                group = self.group,
                topic,
                "the topic does not exist; the group reads it once it does"
            );
        }
    }

    /// How many partitions topics have now; none for one that is not there.
    async fn count(&self, counts: &mut BTreeMap<String, i32>) -> Result<()> {
        for (topic, count) in counts {
            self.shared.client.forget_topic(topic);
            *count = match self.shared.client.partition_count(topic).await {
                Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => 0,
                count => count?,
            };
        }
        Ok(())
    }

    /// Stays in the group until it rebalances.
    async fn heartbeats(&mut self) -> Result<Ended> {
        let config = &self.shared.config;
        let (interval, session) = (config.heartbeat_interval, config.session_timeout);
        let mut heard_at = Instant::now();
        let mut counted_at = Instant::now();
        loop {
            sleep(interval).await;
            match self.heartbeat().await {
                Ok(()) => heard_at = Instant::now(),
                Err(error) if error.is_retryable() => {
                    self.coordinator = None;
                    if heard_at.elapsed() > session {
                        return Ok(Ended::Lost);
                    }
                }
                Err(error) => return Err(error),
            }
            if self.has_new_partitions(&mut counted_at).await {
                return Ok(Ended::Rebalance);
            }
        }
    }

    async fn heartbeat(&mut self) -> Result<()> {
        let peer = self.coordinator().await?;
        let limit = self.shared.config.heartbeat_interval.max(Duration::from_secs(1));
        let asked = pb::HeartbeatRequest {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.shared.config.instance_id.clone(),
            generation: self.generation,
        };
        let mut groups = peer.groups();
        peer.answer_within("a sign of life", limit, groups.heartbeat(within(limit, asked))).await?;
        Ok(())
    }

    /// Whoever has shared out looks whether there is more to share by now.
    async fn has_new_partitions(&self, counted_at: &mut Instant) -> bool {
        let Some(shared_out) = &self.shared_out else { return false };
        let is_missing = shared_out.values().any(|count| *count == 0);
        let age_max = self.shared.client.config().metadata_age_max;
        let interval = if is_missing { age_max.min(MISSING_TOPIC_CHECK) } else { age_max };
        if counted_at.elapsed() < interval {
            return false;
        }
        *counted_at = Instant::now();
        let mut counts = shared_out.clone();
        // One that cannot be counted now is counted the next time.
        self.count(&mut counts).await.is_ok() && counts != *shared_out
    }

    /// Reads these from now on, each from where the group stopped. One of which that is not known, and that nobody leads, is found later:
    /// the others do not wait for it.
    async fn take(&self, partitions: Vec<TopicPartition>) -> Result<()> {
        let shared = &self.shared;
        let begin = shared.client.committed_or_reset(&self.group, &partitions, shared.config.reset).await?;
        shared.positions.add_held(&begin);
        if begin.iter().any(|(_, offset)| offset.is_none()) {
            shared.find_lost_soon().await;
        }
        self.tell(RebalanceChange::Assigned, partitions.clone()).await;
        shared.positions.release(&partitions);
        Ok(())
    }

    /// Reads these no longer, and writes down how far they were read, for which there is so much time.
    async fn give_away(&self, partitions: Vec<TopicPartition>, limit: Option<Duration>) {
        if partitions.is_empty() {
            return;
        }
        self.tell(RebalanceChange::Revoked, partitions.clone()).await;
        if matches!(self.shared.config.commit, Commit::AtLeastOnce { .. })
            && let Err(error) = self.shared.commit_within(limit).await
        {
            tracing::debug!(group = self.group, %error, "the commit before a rebalance failed");
        }
        self.shared.positions.remove(&partitions);
    }

    /// Others may read them already.
    async fn lose(&self) {
        *self.shared.membership.lock() = None;
        let partitions = self.shared.positions.assignment();
        self.shared.positions.remove(&partitions);
        self.tell(RebalanceChange::Lost, partitions).await;
    }

    async fn tell(&self, change: RebalanceChange, partitions: Vec<TopicPartition>) {
        let config = &self.shared.config;
        let Some(listener) = config.listener.as_ref().filter(|_| !partitions.is_empty()) else { return };
        let consumer = ConsumerHandle::new(Arc::clone(&self.shared));
        let told = listener.call(Rebalance { change, partitions, consumer });
        if timeout(config.session_timeout / 2, told).await.is_err() {
            tracing::warn!(
                group = self.group,
                ?change,
                "the listener of a rebalance took too long and was dropped"
            );
        }
    }

    /// Commits, tells the listener, and leaves, so that others need not wait for the session to run out. A static member stays: it may come
    /// back.
    async fn leave(&mut self) {
        self.give_away(self.shared.positions.assignment(), Some(LAST_COMMIT)).await;
        *self.shared.membership.lock() = None;
        if self.member_id.is_empty() || self.shared.config.instance_id.is_some() {
            return;
        }
        let asked = pb::LeaveRequest {
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: None,
        };
        let Ok(Ok(peer)) = timeout(SLACK, self.coordinator()).await else { return };
        let mut groups = peer.groups();
        if let Err(error) =
            peer.answer_within("leaving a group", SLACK, groups.leave(within(SLACK, asked))).await
        {
            tracing::debug!(group = self.group, %error, "the group learns by the session's end that a member left");
        }
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
