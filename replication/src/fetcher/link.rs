//! One leader's followers on this broker: keeps a call to it, applies what it tells, tells it how far each partition got. A partition that fails
//! waits alone; a call that fails is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};
use floodmark_proto::pb::replica::{FetchReply, FetchRequest, Hello, Part, Refusal};
use floodmark_storage::random::Random;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;

use super::PartitionKey;
use super::part::bytes_of;
use super::session::{Applied, Session};
use super::throttle::Throttle;
use crate::partition::{DirtySet, Fetched, FollowerPosition, PartitionError, PartitionHandle, Registration};
use crate::registry::Registry;
use crate::rpc::incoming::Replies;
use crate::rpc::{Peers, replica_client};

/// Between two tries: of a call, and of a partition.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A leader that does not begin to answer is called again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A leader that says nothing for this much longer than it may is taken for hung.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// A call that has ended waits this long for what came by it.
const APPLY_TIME_MAX: Duration = Duration::from_secs(1);
/// Requests on their way to the socket.
const REQUESTS_MAX: usize = 4;
/// Marks taken at a time, so that replies are heard in between.
const MARKS_AT_A_TIME: usize = 4096;
/// Checking and writing more than this takes longer than others on the same thread should wait.
const BYTES_HERE_MAX: usize = 256 << 10;
/// How often a limited link looks whether it may ask for more.
const GRANT_PERIOD: Duration = Duration::from_millis(20);

/// What links have in common.
#[derive(Debug, Clone)]
pub(super) struct LinkOptions {
    pub(super) node: BrokerId,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) registry: Registry,
    pub(super) peers: Peers,
    pub(super) reply_bytes_max: u32,
    pub(super) wait_max: Duration,
    pub(super) throttle: Throttle,
    pub(super) random: Random,
}

/// What a link is told: which partitions it copies from now on, and which not any more. The last word on each counts.
#[derive(Debug, Default)]
pub(super) struct Orders {
    changes: Mutex<BTreeMap<PartitionKey, bool>>,
    notify: Notify,
}

impl Orders {
    pub(super) fn give(&self, key: PartitionKey, copies: bool) {
        self.changes.lock().insert(key, copies);
        self.notify.notify_one();
    }

    fn take(&self) -> BTreeMap<PartitionKey, bool> {
        std::mem::take(&mut self.changes.lock())
    }
}

/// Copies from `leader` as ordered, until it is aborted.
pub(super) async fn run(leader: BrokerId, options: LinkOptions, orders: Arc<Orders>) {
    let mut link = Link {
        leader,
        options,
        orders,
        copied: BTreeMap::new(),
        keys: BTreeMap::new(),
        next_mark: 0,
        dirty: DirtySet::default(),
        waiting: BTreeSet::new(),
        late: Vec::new(),
    };
    let mut backoff = BACKOFF_MIN;
    loop {
        let begun = Instant::now();
        let ended = link.call().await;
        // Whoever was heard for a while is called again at once.
        if begun.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        tracing::debug!(leader = %link.leader, reason = ended.message(), "a call to a leader ended");
        sleep(jittered(backoff, &link.options.random)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

struct Link {
    leader: BrokerId,
    options: LinkOptions,
    orders: Arc<Orders>,
    copied: BTreeMap<PartitionKey, Copied>,
    /// By mark.
    keys: BTreeMap<u32, PartitionKey>,
    next_mark: u32,
    dirty: DirtySet,
    /// Partitions that are tried again, by when.
    waiting: BTreeSet<(Instant, PartitionKey)>,
    /// What came by calls that have ended, is not applied yet, and of which partitions it is.
    late: Vec<(JoinSet<Outcome>, BTreeSet<PartitionKey>)>,
}

/// A partition that is to be copied.
struct Copied {
    /// Where this broker has it.
    held: Option<Held>,
    /// In the present call.
    slot: Option<u32>,
    backoff: Duration,
    waits_until: Option<Instant>,
}

struct Held {
    partition: PartitionHandle,
    mark: u32,
    _marks: Registration,
}

/// What became of a part.
struct Outcome {
    part: Applied,
    key: PartitionKey,
    result: Result<FollowerPosition, PartitionError>,
}

/// A call that the leader answers.
struct Call {
    session: Session,
    requests: mpsc::Sender<FetchRequest>,
    applying: JoinSet<Outcome>,
    /// How many of those there are of each partition.
    under_way: BTreeMap<PartitionKey, usize>,
    granted: u64,
    caught_up: u64,
    /// Since when a reply is waited for, or nothing is.
    silent_since: Instant,
}

impl Link {
    /// One call, from its beginning to its end, of which it gives the reason.
    async fn call(&mut self) -> Status {
        let (requests, taken) = mpsc::channel(REQUESTS_MAX);
        let mut call = Call {
            session: Session::new(self.hello()),
            requests,
            applying: JoinSet::new(),
            under_way: BTreeMap::new(),
            granted: 0,
            caught_up: 0,
            silent_since: Instant::now(),
        };
        self.take_orders(&mut call.session);
        self.begin_all(&mut call.session);
        // Some way to say at once what this call limits.
        if let Some(bytes) = self.options.throttle.take(self.options.throttle.ahead(), Instant::now()) {
            call.granted = bytes;
        }
        // The leader answers before it has heard anything; who has nothing to say yet may call all the same.
        let answer = replica_client::fetch(&self.options.peers, self.leader, taken);
        let mut replies = match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(replies)) => replies,
            Ok(Err(status)) => return status,
            Err(_) => return Status::deadline_exceeded("the leader did not answer in time"),
        };
        let ended = self.converse(&mut call, &mut replies).await;
        self.copied.values_mut().for_each(|copied| copied.slot = None);
        // What came is applied by whoever has begun; the next call begins behind it. Behind a disk that hangs only those partitions do that wait
        // for it.
        let Call { applying, under_way, .. } = &mut call;
        let applied = async {
            while let Some(ended) = applying.join_next().await {
                if let Ok(outcome) = ended {
                    has_ended(under_way, outcome.key);
                }
            }
        };
        if timeout(APPLY_TIME_MAX, applied).await.is_err() {
            let keys: BTreeSet<PartitionKey> = call.under_way.into_keys().collect();
            tracing::warn!(leader = %self.leader, partitions = keys.len(), "what came is not applied yet; the leader is called again for the others");
            self.late.push((call.applying, keys));
        }
        ended
    }

    fn hello(&self) -> Hello {
        Hello {
            broker: self.options.node.0,
            broker_epoch: self.options.broker_epoch.0,
            reply_bytes_max: self.options.reply_bytes_max,
            wait_ms_max: u32::try_from(self.options.wait_max.as_millis()).unwrap_or(u32::MAX),
        }
    }

    async fn converse(&mut self, call: &mut Call, replies: &mut Replies) -> Status {
        let mut grants = tokio::time::interval(GRANT_PERIOD);
        grants.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let is_limited = self.options.throttle.is_limited();
        let mut says_grant = is_limited;
        let requests = call.requests.clone();
        let mut said = None;
        loop {
            if said.is_none() {
                said = call.session.next_request();
                // From here on a reply is waited for. Since the one before, much may have been applied.
                if said.as_ref().is_some_and(|request| request.wants_reply) {
                    call.silent_since = Instant::now();
                }
            }
            if std::mem::take(&mut says_grant) {
                let request = said.get_or_insert_with(FetchRequest::default);
                request.catchup_bytes_granted = Some(call.granted);
            }
            let retry = self.waiting.first().map(|(at, _)| *at);
            let silence = call.silent_since + self.options.wait_max + SILENCE_MAX;
            let (orders, dirty) = (Arc::clone(&self.orders), self.dirty.clone());
            tokio::select! {
                () = orders.notify.notified() => self.take_orders(&mut call.session),
                () = dirty.marked() => {
                    for mark in dirty.take(MARKS_AT_A_TIME) {
                        self.on_marked(mark, &mut call.session);
                    }
                }
                reply = replies.message() => match reply {
                    Ok(Some(reply)) => self.on_reply(reply, call),
                    Ok(None) => return Status::unavailable("the leader ended the call"),
                    Err(status) => return status,
                },
                Some(outcome) = call.applying.join_next() => match outcome {
                    Ok(outcome) => self.on_applied(outcome, call),
                    Err(_) => return Status::internal("applying what came panicked"),
                },
                permit = requests.reserve(), if said.is_some() => match (permit, said.take()) {
                    (Ok(permit), Some(request)) => permit.send(request),
                    _ => return Status::unavailable("the call has ended"),
                },
                () = until(retry) => self.try_again(&mut call.session),
                _ = grants.tick(), if is_limited => says_grant = self.grant(call),
                () = sleep_until(silence), if call.session.is_waiting() => {
                    return Status::deadline_exceeded("the leader has been silent for too long");
                }
            }
        }
    }

    /// Asks for more of what is far behind, where there is demand and the rate allows it.
    fn grant(&self, call: &mut Call) -> bool {
        let ahead = call.granted.saturating_sub(call.caught_up);
        let wanted = self.options.throttle.ahead().saturating_sub(ahead);
        let taken = self.options.throttle.take(wanted, Instant::now()).unwrap_or(0);
        call.granted += taken;
        taken > 0
    }

    fn take_orders(&mut self, session: &mut Session) {
        for (key, copies) in self.orders.take() {
            if !copies {
                self.drop_copied(key, session);
                continue;
            }
            let copied = self.copied.entry(key).or_insert_with(|| Copied {
                held: None,
                slot: None,
                backoff: BACKOFF_MIN,
                waits_until: None,
            });
            // A replica that has ended may have made room for another one.
            let held = copied.held.as_ref().filter(|held| held.partition.stopped().is_none());
            match held.map(|held| held.mark) {
                Some(mark) => self.on_marked(mark, session),
                None => {
                    self.let_go(key);
                    self.begin(key, session);
                }
            }
        }
    }

    fn begin_all(&mut self, session: &mut Session) {
        let keys: Vec<_> = self.copied.keys().copied().collect();
        keys.into_iter().for_each(|key| self.begin(key, session));
    }

    fn drop_copied(&mut self, key: PartitionKey, session: &mut Session) {
        self.let_go(key);
        session.forget(key);
        if let Some(at) = self.copied.remove(&key).and_then(|gone| gone.waits_until) {
            self.waiting.remove(&(at, key));
        }
    }

    /// Lets go of the replica, to look for it again.
    fn let_go(&mut self, key: PartitionKey) {
        if let Some(held) = self.copied.get_mut(&key).and_then(|copied| copied.held.take()) {
            self.keys.remove(&held.mark);
        }
    }

    /// Has the leader hear where the replica is, if there is one that follows it.
    fn begin(&mut self, key: PartitionKey, session: &mut Session) {
        let Some(copied) = self.copied.get_mut(&key) else { return };
        if let Some(at) = copied.waits_until.take() {
            self.waiting.remove(&(at, key));
        }
        copied.slot = None;
        self.late.retain_mut(|(applying, _)| {
            while applying.try_join_next().is_some() {}
            !applying.is_empty()
        });
        if self.late.iter().any(|(_, keys)| keys.contains(&key)) {
            session.forget(key);
            return self.back_off(key);
        }
        if copied.held.is_none() {
            let index = i32::try_from(key.index).unwrap_or(-1);
            copied.held = self.options.registry.get(key.topic, index).map(|partition| {
                let mark = self.next_mark;
                self.next_mark = self.next_mark.wrapping_add(1);
                self.keys.insert(mark, key);
                Held { _marks: partition.on_replica_progress(self.dirty.mark_of(mark)), mark, partition }
            });
        }
        let Some(held) = &copied.held else {
            session.forget(key);
            return self.back_off(key);
        };
        match held.partition.follower_position().filter(|position| position.leader == self.leader) {
            Some(position) => copied.slot = Some(session.mention(key, position)),
            // The replica is marked when it follows this leader.
            None => session.forget(key),
        }
    }

    fn back_off(&mut self, key: PartitionKey) {
        let Some(copied) = self.copied.get_mut(&key) else { return };
        let at = Instant::now() + jittered(copied.backoff, &self.options.random);
        copied.backoff = (copied.backoff * 2).min(BACKOFF_MAX);
        copied.slot = None;
        if let Some(before) = copied.waits_until.replace(at) {
            self.waiting.remove(&(before, key));
        }
        self.waiting.insert((at, key));
    }

    fn try_again(&mut self, session: &mut Session) {
        let now = Instant::now();
        while let Some((at, key)) = self.waiting.first().copied()
            && at <= now
        {
            self.waiting.remove(&(at, key));
            // It may be another replica now.
            self.let_go(key);
            self.begin(key, session);
        }
    }

    /// A replica moved: its log, its disk, or its part.
    fn on_marked(&mut self, mark: u32, session: &mut Session) {
        let Some(key) = self.keys.get(&mark).copied() else { return };
        let Some(copied) = self.copied.get_mut(&key) else { return };
        let Some(held) = &copied.held else { return };
        let position = held.partition.follower_position().filter(|position| position.leader == self.leader);
        match (position, copied.slot) {
            (Some(position), Some(slot)) => copied.slot = session.on_position(slot, position),
            (Some(_), None) if copied.waits_until.is_none() => self.begin(key, session),
            (Some(_), None) => {}
            (None, _) => {
                copied.slot = None;
                session.forget(key);
            }
        }
    }

    fn on_reply(&mut self, reply: FetchReply, call: &mut Call) {
        // Whatever becomes of it: the leader has counted it, also what is of no slot any more.
        let caught_up = reply.parts.iter().filter(|part| part.is_catchup).map(bytes_of);
        call.caught_up += caught_up.sum::<usize>() as u64;
        for slot in call.session.on_reply(reply.parts) {
            self.apply_next(slot, call);
        }
    }

    fn apply_next(&mut self, slot: u32, call: &mut Call) {
        let Some((key, part)) = call.session.next_part(slot) else { return };
        let applied = Applied::of(&part);
        if part.refusal() != Refusal::None {
            tracing::debug!(leader = %self.leader, topic_id = %key.topic, partition = key.index, refusal = ?part.refusal(), "not served");
            call.session.on_application_ended(&applied);
            call.session.on_refused(slot);
            return self.back_off(key);
        }
        let Some(held) = self.copied.get(&key).and_then(|copied| copied.held.as_ref()) else {
            call.session.on_application_ended(&applied);
            return;
        };
        *call.under_way.entry(key).or_default() += 1;
        let (partition, fetched) = (held.partition.clone(), fetched(self.leader, part));
        call.applying.spawn(async move {
            let result = apply(partition, fetched, applied.bytes()).await;
            Outcome { part: applied, key, result }
        });
    }

    fn on_applied(&mut self, outcome: Outcome, call: &mut Call) {
        let Outcome { part, key, result } = outcome;
        has_ended(&mut call.under_way, key);
        let slot = part.slot;
        let is_current = call.session.key_of(slot) == Some(key);
        match result {
            Ok(position) if position.leader == self.leader => {
                let now = call.session.on_applied(&part, position);
                if let Some(copied) = self.copied.get_mut(&key).filter(|_| is_current) {
                    copied.slot = now;
                    copied.backoff = BACKOFF_MIN;
                }
                if now == Some(slot) {
                    self.apply_next(slot, call);
                }
            }
            outcome => {
                call.session.on_application_ended(&part);
                if !is_current {
                    return;
                }
                call.session.forget(key);
                if let Some(copied) = self.copied.get_mut(&key) {
                    copied.slot = None;
                }
                match outcome {
                    // Another leader, or none; told by a mark or by orders.
                    Ok(_) => {}
                    // The answer was to what is not so any more: from here on at once.
                    Err(PartitionError::NotTheNext { .. } | PartitionError::FencedEpoch { .. }) => {
                        self.begin(key, &mut call.session);
                    }
                    Err(e) => {
                        tracing::warn!(leader = %self.leader, topic_id = %key.topic, partition = key.index, error = %e, "what came could not be applied");
                        self.back_off(key);
                    }
                }
            }
        }
    }
}

/// One of those that are under way for a partition is so no more.
fn has_ended(under_way: &mut BTreeMap<PartitionKey, usize>, key: PartitionKey) {
    if let Some(count) = under_way.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            under_way.remove(&key);
        }
    }
}

async fn apply(
    partition: PartitionHandle,
    fetched: Fetched,
    bytes: usize,
) -> Result<FollowerPosition, PartitionError> {
    if bytes < BYTES_HERE_MAX {
        return partition.on_fetched(fetched).await;
    }
    match spawn_blocking(move || partition.on_fetched(fetched)).await {
        Ok(applying) => applying.await,
        Err(_) => Err(PartitionError::Abandoned),
    }
}

fn fetched(leader: BrokerId, part: Part) -> Fetched {
    Fetched {
        leader,
        leader_epoch: LeaderEpoch(part.leader_epoch),
        fetch_offset: Offset(part.fetch_offset),
        last_fetched_epoch: part.last_fetched_epoch.map(LeaderEpoch),
        batches: part.batches,
        high_watermark: Offset(part.high_watermark),
        log_start: Offset(part.log_start),
        diverging: part.diverging.map(|d| (LeaderEpoch(d.epoch), Offset(d.end_offset))),
    }
}

/// Between half of it and all of it, so that brokers do not call in step.
fn jittered(backoff: Duration, random: &Random) -> Duration {
    let half = backoff / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_micros(random.next_u64() % span)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
