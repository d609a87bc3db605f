//! Fetch sessions (KIP-227): a client names its partitions once, then only what changed; the answer holds only what changed. Pure but
//! for the lock around the cache; knows nothing of logs.
//!
//! A session holds what its client said last of each partition and what it was told last. It belongs to whoever knows its number, as
//! in Kafka; the epoch, which rises with every request, keeps two connections from using one at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use floodmark_storage::random::Random;
use parking_lot::Mutex;

/// Epoch of a request that opens a session, or asks for everything without one.
const INITIAL_EPOCH: i32 = 0;
/// Epoch of a request that closes its session and goes on without.
const FINAL_EPOCH: i32 = -1;

/// A topic as the client names it: by name up to version 12, by id from 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id([u8; 16]),
}

/// A partition as the client names it.
pub(crate) type PartitionRef = (TopicRef, i32);

/// What the client asks of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) fetch_offset: i64,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) max_bytes: i32,
}

/// What the client was told of a partition beside records; a change is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) error_code: i16,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable_offset: i64,
    pub(crate) log_start_offset: i64,
}

/// Bounds of the cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    /// `max.incremental.fetch.session.cache.slots`.
    pub(crate) sessions_max: usize,
    /// Partitions of all sessions together, some 150 bytes each.
    pub(crate) partitions_max: usize,
    /// A session used more recently is not evicted for another.
    pub(crate) evict_after_ms: i64,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits { sessions_max: 1000, partitions_max: 500_000, evict_after_ms: 120_000 }
    }
}

/// The session part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRequest {
    pub(crate) session_id: i32,
    pub(crate) epoch: i32,
    pub(crate) uses_topic_ids: bool,
}

/// Why a session cannot be used; the whole request is answered with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionError {
    /// FETCH_SESSION_ID_NOT_FOUND
    NotFound,
    /// INVALID_FETCH_SESSION_EPOCH
    WrongEpoch,
    /// FETCH_SESSION_TOPIC_ID_ERROR
    MixedTopicIds,
}

/// What a request asks once its session has been looked up.
#[derive(Debug)]
pub(crate) struct SessionFetch {
    /// The session's number in the answer; 0 for none.
    pub(crate) session_id: i32,
    /// Every partition to be looked at, in the order in which they get their share of the answer.
    pub(crate) partitions: Vec<(PartitionRef, Wanted)>,
    /// Only what changed goes into the answer.
    pub(crate) is_incremental: bool,
    /// The epoch of the request, by which the answer finds its session unchanged.
    epoch: i32,
}

/// All sessions of a broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    limits: SessionLimits,
    random: Random,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    sessions: HashMap<i32, Session>,
    /// By time of last use, then number.
    by_use: BTreeMap<(i64, i32), ()>,
    partitions: usize,
}

#[derive(Debug)]
struct Session {
    /// The epoch that the next request must have.
    next_epoch: i32,
    used_at_ms: i64,
    uses_topic_ids: bool,
    /// In the order in which partitions get their share.
    order: BTreeMap<u64, (PartitionRef, Wanted, Option<Told>)>,
    places: HashMap<PartitionRef, u64>,
    next_place: u64,
}

impl FetchSessions {
    pub(crate) fn new(limits: SessionLimits, random: Random) -> FetchSessions {
        FetchSessions { limits, random, cache: Mutex::new(Cache::default()) }
    }

    /// Looks up or opens the session of a request, takes in what it changes, and says what is to be fetched.
    pub(crate) fn begin(
        &self,
        request: SessionRequest,
        wanted: Vec<(PartitionRef, Wanted)>,
        forgotten: &[PartitionRef],
        now_ms: i64,
    ) -> Result<SessionFetch, SessionError> {
        let mut cache = self.cache.lock();
        if matches!(request.epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            if request.session_id != 0 {
                cache.remove(request.session_id);
            }
            let session_id = if request.epoch == INITIAL_EPOCH && !wanted.is_empty() {
                self.open(&mut cache, request.uses_topic_ids, &wanted, now_ms)
            } else {
                0
            };
            return Ok(SessionFetch {
                session_id,
                partitions: wanted,
                is_incremental: false,
                epoch: request.epoch,
            });
        }
        let cache = &mut *cache;
        let session = cache.sessions.get_mut(&request.session_id).ok_or(SessionError::NotFound)?;
        if session.next_epoch != request.epoch {
            return Err(SessionError::WrongEpoch);
        }
        // Closing it spares the client from meeting the same answer again and again.
        if session.uses_topic_ids != request.uses_topic_ids {
            cache.remove(request.session_id);
            return Err(SessionError::MixedTopicIds);
        }
        let before = session.places.len();
        session.next_epoch = after(request.epoch);
        session.change(wanted, forgotten);
        cache.by_use.remove(&(session.used_at_ms, request.session_id));
        session.used_at_ms = now_ms;
        cache.by_use.insert((now_ms, request.session_id), ());
        cache.partitions = cache.partitions + session.places.len() - before;
        let partitions =
            session.order.values().map(|(partition, wanted, _)| (partition.clone(), *wanted)).collect();
        let fetch = SessionFetch {
            session_id: request.session_id,
            partitions,
            is_incremental: true,
            epoch: request.epoch,
        };
        // A session that grows past what all may hold goes; the client falls back to full requests.
        if cache.partitions > self.limits.partitions_max {
            cache.remove(request.session_id);
        }
        Ok(fetch)
    }

    /// Says which of the answers go out, in the order of `fetch.partitions`, and remembers them as told.
    ///
    /// `has_news` tells of each partition whether the answer holds records of it, or says where to read it instead, or again.
    pub(crate) fn finish(&self, fetch: &SessionFetch, told: &[Told], has_news: &[bool]) -> Vec<bool> {
        let mut cache = self.cache.lock();
        let session = cache
            .sessions
            .get_mut(&fetch.session_id)
            .filter(|s| s.next_epoch == after(fetch.epoch) && fetch.session_id != 0);
        let Some(session) = session else { return vec![true; told.len()] };
        let answers = fetch.partitions.iter().zip(told).zip(has_news);
        answers
            .map(|(((partition, _), told), has_news)| {
                let is_news = session.tell(partition, *told, *has_news);
                is_news || !fetch.is_incremental
            })
            .collect()
    }

    /// Sessions and the partitions in them.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let cache = self.cache.lock();
        (cache.sessions.len(), cache.partitions)
    }

    /// The number of a new session, or 0 where there is no room for it.
    fn open(
        &self,
        cache: &mut Cache,
        uses_topic_ids: bool,
        wanted: &[(PartitionRef, Wanted)],
        now_ms: i64,
    ) -> i32 {
        if wanted.len() > self.limits.partitions_max {
            return 0;
        }
        while cache.sessions.len() >= self.limits.sessions_max
            || cache.partitions + wanted.len() > self.limits.partitions_max
        {
            let Some((&(used_at_ms, oldest), ())) = cache.by_use.first_key_value() else { return 0 };
            if now_ms.saturating_sub(used_at_ms) < self.limits.evict_after_ms {
                return 0;
            }
            cache.remove(oldest);
        }
        let session_id = loop {
            let id = (self.random.next_u64() & 0x7fff_ffff) as i32;
            if id != 0 && !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            next_epoch: after(INITIAL_EPOCH),
            used_at_ms: now_ms,
            uses_topic_ids,
            order: BTreeMap::new(),
            places: HashMap::new(),
            next_place: 0,
        };
        session.change(wanted.to_vec(), &[]);
        cache.partitions += session.places.len();
        cache.by_use.insert((now_ms, session_id), ());
        cache.sessions.insert(session_id, session);
        session_id
    }
}

impl Cache {
    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.by_use.remove(&(session.used_at_ms, session_id));
            self.partitions -= session.places.len();
        }
    }
}

impl Session {
    fn change(&mut self, wanted: Vec<(PartitionRef, Wanted)>, forgotten: &[PartitionRef]) {
        for (partition, wanted) in wanted {
            let known = self.places.get(&partition).and_then(|place| self.order.get_mut(place));
            match known {
                Some(entry) => entry.1 = wanted,
                None => self.put_last(partition, wanted, None),
            }
        }
        for partition in forgotten {
            if let Some(place) = self.places.remove(partition) {
                self.order.remove(&place);
            }
        }
    }

    fn put_last(&mut self, partition: PartitionRef, wanted: Wanted, told: Option<Told>) {
        self.places.insert(partition.clone(), self.next_place);
        self.order.insert(self.next_place, (partition, wanted, told));
        self.next_place += 1;
    }

    /// True where the answer differs from what the client knows.
    fn tell(&mut self, partition: &PartitionRef, told: Told, has_news: bool) -> bool {
        let Some(entry) = self.places.get(partition).and_then(|place| self.order.get_mut(place)) else {
            return true;
        };
        let is_news = has_news || told.error_code != 0 || entry.2 != Some(told);
        // An error is told every time, and what follows it is news again.
        entry.2 = (told.error_code == 0).then_some(told);
        if has_news {
            // Whoever had its share goes to the end, so that the others get theirs.
            let (wanted, told) = (entry.1, entry.2);
            if let Some(place) = self.places.remove(partition) {
                self.order.remove(&place);
            }
            self.put_last(partition.clone(), wanted, told);
        }
        is_news
    }
}

/// The epoch after `epoch`; 0 and below have meanings of their own.
fn after(epoch: i32) -> i32 {
    if epoch < 0 { FINAL_EPOCH } else { epoch.checked_add(1).unwrap_or(1) }
}

#[cfg(test)]
mod tests;
