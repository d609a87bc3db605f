//! What a leader owes one follower: whose turn it is, how much of a reply it may take, what has to wait for a disk, and what is worth a reply.
//! Costs as much as moves, not as much as there is. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use bytes::Bytes;
use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_proto::pb::replica::{Diverging, Part, Refusal};
use tokio::time::Instant;

use super::PartitionKey;
use super::part::{cut, end_of_batches};
use crate::partition::{ReplicaFetch, ReplicaRead};
use crate::rpc::FRAME_BYTES;

/// Least share of a reply that a partition gets, so that many of them do not make it a reply of crumbs.
const SHARE_BYTES_MIN: usize = 64 << 10;
/// Bytes that a reply has from memory, and as many from a disk, for partitions whose follower is not in sync: as much as stays in the
/// caches while it is read, sent, received and written, and a part of what a follower takes before it has applied it, so that one piece travels
/// while another is written. More where the follower is far away.
const CATCHUP_BYTES: usize = 2 << 20;
/// Who asks for more so long after a reply was sent, for each MiB that it could have, waits for the network, not for the caches: one reply is
/// under way at a time. And who asks so soon does not. A MiB is sent, received and written in some 0.7 ms where nothing is in the way.
const FAR_A_MIB: Duration = Duration::from_millis(3);
const NEAR_A_MIB: Duration = Duration::from_micros(1500);
/// How long a watermark that moved waits for batches to go along with it.
const LINGER: Duration = Duration::from_millis(5);
/// Parts of one reply that carry no batches.
const BARE_PARTS_MAX: usize = 4096;

/// One call of one follower.
#[derive(Debug)]
pub(crate) struct Serving {
    reply_bytes_max: usize,
    slots: BTreeMap<u32, Slot>,
    by_key: BTreeMap<PartitionKey, u32>,
    /// Slots to look at, in turn.
    due: VecDeque<u32>,
    /// Slots of which only a disk knows more.
    behind: VecDeque<u32>,
    /// A slot of `behind` is being read for.
    is_reading: bool,
    /// The slot that a disk was read for last, where it lacks more.
    ahead: Option<u32>,
    /// Slots whose watermark or start moved since the follower was told.
    moved: BTreeSet<u32>,
    moved_since: Option<Instant>,
    /// For the next reply.
    parts: Vec<Part>,
    /// Batches in it, and of those the ones that came from a disk, and the ones that came from memory for who is not in sync.
    part_bytes: usize,
    disk_bytes: usize,
    late_bytes: usize,
    /// Slots that are due with the next reply: this one has as much from memory as it may for who is not in sync.
    put_off: Vec<u32>,
    /// The reply before this one had batches from memory: somebody lives at the tail.
    had_live: bool,
    granted: Option<u64>,
    caught_up_bytes: u64,
    /// A reply may bring as much from memory, and as much from a disk, for who is not in sync.
    catchup_bytes: usize,
    /// A reply left with something for who is not in sync, and no more was asked for yet.
    catchup_reply_sent: Option<Instant>,
    refused: usize,
}

#[derive(Debug)]
struct Slot {
    key: PartitionKey,
    /// What to read next. It runs ahead of the follower: what was sent is taken for applied until the follower mentions it anew.
    next: ReplicaFetch,
    place: Place,
    seen: Marks,
    told: Option<Marks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing to do until it is marked.
    Idle,
    Due,
    Behind,
    /// As `Behind`; read for just now.
    Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    high_watermark: Offset,
    log_start: Offset,
}

/// A look at a slot, with the bytes that it may bring.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) slot: u32,
    pub(crate) fetch: ReplicaFetch,
    pub(crate) max_bytes: usize,
    /// Its follower is not in sync.
    is_late: bool,
    /// The same, and a disk is asked: it counts against what was granted.
    is_catchup: bool,
}

/// What a look found.
#[derive(Debug)]
pub(crate) enum Found {
    /// This.
    Read(ReplicaRead),
    /// Memory does not reach back that far.
    OnDisk,
    /// Nothing, until the partition moves.
    NotYet,
    /// The slot ends.
    Refused(Refusal),
}

impl Serving {
    pub(crate) fn new(reply_bytes_max: usize) -> Serving {
        Serving {
            reply_bytes_max: reply_bytes_max.max(SHARE_BYTES_MIN),
            slots: BTreeMap::new(),
            by_key: BTreeMap::new(),
            due: VecDeque::new(),
            behind: VecDeque::new(),
            is_reading: false,
            ahead: None,
            moved: BTreeSet::new(),
            moved_since: None,
            parts: Vec::new(),
            part_bytes: 0,
            disk_bytes: 0,
            late_bytes: 0,
            put_off: Vec::new(),
            had_live: false,
            granted: None,
            caught_up_bytes: 0,
            catchup_bytes: CATCHUP_BYTES,
            catchup_reply_sent: None,
            refused: 0,
        }
    }

    /// Serves a partition on `slot` from `fetch` on. Gives the slot that it had before.
    pub(crate) fn mention(&mut self, slot: u32, key: PartitionKey, fetch: ReplicaFetch) -> Option<u32> {
        let before = self.by_key.insert(key, slot).filter(|before| *before != slot);
        if let Some(before) = before {
            self.drop_slot(before);
        }
        let unseen = Marks { high_watermark: Offset(-1), log_start: Offset(-1) };
        self.slots.insert(slot, Slot { key, next: fetch, place: Place::Idle, seen: unseen, told: None });
        self.mark(slot);
        before
    }

    /// Serves it no more.
    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(gone) = self.drop_slot(slot) {
            self.by_key.remove(&gone.key);
        }
    }

    fn drop_slot(&mut self, slot: u32) -> Option<Slot> {
        self.moved.remove(&slot);
        // The queues pass over slots that are not theirs any more.
        self.slots.remove(&slot)
    }

    /// Says why a slot is not served. Forgets it.
    pub(crate) fn refuse(&mut self, slot: u32, leader_epoch: LeaderEpoch, refusal: Refusal) {
        self.forget(slot);
        self.refused += 1;
        let leader_epoch = leader_epoch.0;
        self.parts.push(Part { slot, leader_epoch, refusal: refusal.into(), ..Part::default() });
    }

    /// What the leader told of slots that are not served, and did not send.
    pub(crate) fn refusals(&self) -> usize {
        self.refused
    }

    /// The partition of a slot, and what is read for it, where it is served.
    pub(crate) fn fetch_of(&self, slot: u32) -> Option<&ReplicaFetch> {
        self.slots.get(&slot).map(|slot| &slot.next)
    }

    /// The partition has moved.
    pub(crate) fn mark(&mut self, slot: u32) {
        if let Some(marked) = self.slots.get_mut(&slot).filter(|slot| slot.place == Place::Idle) {
            marked.place = Place::Due;
            self.due.push_back(slot);
        }
    }

    /// Bytes since the beginning that partitions far behind may take.
    pub(crate) fn grant(&mut self, bytes: u64) {
        self.granted = Some(self.granted.unwrap_or(0).max(bytes));
    }

    /// The follower asks for a reply.
    pub(crate) fn on_asked(&mut self, now: Instant) {
        let Some(sent) = self.catchup_reply_sent.take() else { return };
        let bytes = next_catchup_bytes(self.catchup_bytes, now.saturating_duration_since(sent));
        self.catchup_bytes = bytes.min(self.reply_bytes_max).max(CATCHUP_BYTES);
    }

    /// The next look to take in memory, until the reply is full or there is none. `is_in_sync` says of a slot whether its follower is.
    pub(crate) fn next_turn(&mut self, is_in_sync: impl Fn(u32) -> bool) -> Option<Turn> {
        let live_max = self.reply_bytes_max.saturating_sub(self.disk_bytes).max(self.reply_bytes_max / 2);
        let left = live_max.saturating_sub(self.part_bytes - self.disk_bytes);
        if left == 0 || self.parts.len() >= BARE_PARTS_MAX {
            return None;
        }
        let (slot, left, is_late) = loop {
            let slot = self.due.pop_front()?;
            if !self.is_at(slot, Place::Due) {
                continue;
            }
            let is_late = !is_in_sync(slot);
            if !is_late {
                break (slot, left, is_late);
            }
            let left_late = self.catchup_bytes.saturating_sub(self.late_bytes);
            if left_late >= SHARE_BYTES_MIN {
                break (slot, left.min(left_late), is_late);
            }
            self.put_off.push(slot);
        };
        let share = left / (self.due.len() + 1);
        let found = self.slots.get_mut(&slot)?;
        found.place = Place::Idle;
        let max_bytes = share.max(SHARE_BYTES_MIN).min(left);
        Some(Turn { slot, fetch: found.next, max_bytes, is_late, is_catchup: false })
    }

    /// The next look that has to wait for a disk. One at a time: its outcome goes into the next reply before there is another one.
    /// `is_in_sync` says of a slot whether its follower is.
    pub(crate) fn next_from_disk(&mut self, is_in_sync: impl Fn(u32) -> bool) -> Option<Turn> {
        if self.is_reading || self.disk_bytes > 0 {
            return None;
        }
        let left = self.granted.map_or(u64::MAX, |granted| granted.saturating_sub(self.caught_up_bytes));
        for _ in 0..self.behind.len() {
            let slot = self.behind.pop_front()?;
            if !self.is_at(slot, Place::Behind) {
                continue;
            }
            let is_catchup = !is_in_sync(slot);
            if is_catchup && left == 0 {
                self.behind.push_back(slot);
                continue;
            }
            let others_wait = self.had_live || !self.due.is_empty();
            let share = if others_wait { self.reply_bytes_max / 2 } else { self.reply_bytes_max };
            let granted = usize::try_from(left).unwrap_or(usize::MAX);
            let allowed = if is_catchup { granted.min(self.catchup_bytes) } else { share };
            let found = self.slots.get_mut(&slot)?;
            found.place = Place::Reading;
            self.is_reading = true;
            return Some(Turn {
                slot,
                fetch: found.next,
                max_bytes: share.min(allowed),
                is_late: is_catchup,
                is_catchup,
            });
        }
        None
    }

    /// A look that is known to be wanted before a reply is asked for: of the slot that a disk was read for last. Where memory does not answer
    /// it, [`Serving::on_still_behind`] has the disk read while the last reply travels.
    pub(crate) fn next_ahead(&mut self) -> Option<(u32, ReplicaFetch)> {
        let slot = self.ahead.take().filter(|slot| self.is_at(*slot, Place::Due))?;
        self.fetch_of(slot).map(|fetch| (slot, *fetch))
    }

    /// Memory does not reach back to what is wanted next of a slot.
    pub(crate) fn on_still_behind(&mut self, slot: u32) {
        if let Some(found) = self.slots.get_mut(&slot).filter(|found| found.place == Place::Due) {
            found.place = Place::Behind;
            self.behind.push_back(slot);
            self.due.pop_back_if(|last| *last == slot);
        }
    }

    fn is_at(&self, slot: u32, place: Place) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.place == place)
    }

    /// What a look in memory found.
    pub(crate) fn on_found(&mut self, turn: &Turn, found: Found, now: Instant) {
        let Some(slot) = self.slots.get_mut(&turn.slot) else { return };
        match found {
            Found::OnDisk => {
                slot.place = Place::Behind;
                self.behind.push_back(turn.slot);
            }
            Found::NotYet => {}
            Found::Refused(refusal) => self.refuse(turn.slot, turn.fetch.leader_epoch, refusal),
            Found::Read(read) => {
                let bytes = self.on_read(turn, read, now);
                self.part_bytes += bytes;
                if turn.is_late {
                    self.late_bytes += bytes;
                }
            }
        }
    }

    /// What a look at the disk found, which may come long after the slot is gone.
    pub(crate) fn on_found_on_disk(&mut self, turn: &Turn, found: Found, now: Instant) {
        self.is_reading = false;
        let Some(slot) = self.slots.get_mut(&turn.slot).filter(|slot| slot.place == Place::Reading) else {
            return;
        };
        slot.place = Place::Idle;
        match found {
            // What it waits for may have come while it was read for, and nobody marked it then.
            Found::OnDisk | Found::NotYet => self.mark(turn.slot),
            Found::Refused(refusal) => self.refuse(turn.slot, turn.fetch.leader_epoch, refusal),
            Found::Read(read) => {
                let bytes = self.on_read(turn, read, now);
                self.part_bytes += bytes;
                self.disk_bytes += bytes;
                if turn.is_catchup {
                    self.caught_up_bytes += bytes as u64;
                    self.ahead = Some(turn.slot);
                }
                // Perhaps the partition moved meanwhile.
                self.mark(turn.slot);
            }
        }
    }

    fn on_read(&mut self, turn: &Turn, mut read: ReplicaRead, now: Instant) -> usize {
        let Some(slot) = self.slots.get_mut(&turn.slot) else { return 0 };
        read.batches = cut(read.batches, FRAME_BYTES as usize);
        let seen = Marks { high_watermark: read.high_watermark, log_start: read.log_start };
        slot.seen = seen;
        let ends = read.diverging.is_some() || turn.fetch.fetch_offset < read.log_start;
        let mut bytes = 0;
        let mut has_more = false;
        if let Some((end, epoch)) = end_of_batches(&read.batches) {
            bytes = read.batches.iter().map(Bytes::len).sum();
            slot.next.fetch_offset = end;
            slot.next.last_fetched_epoch = Some(epoch);
            has_more = end < read.log_end;
        } else if !ends {
            if slot.told != Some(seen) {
                self.moved.insert(turn.slot);
                self.moved_since.get_or_insert(now);
            }
            return 0;
        }
        slot.told = Some(seen);
        self.moved.remove(&turn.slot);
        self.parts.push(Part { is_catchup: turn.is_catchup, ..part_of(turn, read) });
        if ends {
            // The follower is cut or begins elsewhere, and says where it is then, on another slot.
            self.forget(turn.slot);
        } else if has_more {
            self.mark(turn.slot);
        }
        bytes
    }

    /// When a reply is worth sending, if the follower waits for one: at once, later, or not until something moves.
    pub(crate) fn worth_a_reply_at(&self, now: Instant) -> Option<Instant> {
        if !self.parts.is_empty() {
            return Some(now);
        }
        self.moved_since.filter(|_| !self.moved.is_empty()).map(|since| since + LINGER)
    }

    /// Everything that there is to tell, for one reply that leaves now.
    pub(crate) fn take_reply(&mut self, now: Instant) -> Vec<Part> {
        let mut parts = mem::take(&mut self.parts);
        while parts.len() < BARE_PARTS_MAX
            && let Some(slot) = self.moved.pop_first()
        {
            let Some(moved) = self.slots.get_mut(&slot) else { continue };
            moved.told = Some(moved.seen);
            parts.push(moved.bare_part(slot));
        }
        if self.moved.is_empty() {
            self.moved_since = None;
        }
        self.had_live = self.part_bytes > self.disk_bytes;
        self.catchup_reply_sent = (self.disk_bytes + self.late_bytes > 0).then_some(now);
        (self.part_bytes, self.disk_bytes, self.late_bytes, self.refused) = (0, 0, 0, 0);
        for slot in self.put_off.drain(..).rev() {
            self.due.push_front(slot);
        }
        parts
    }
}

impl Slot {
    /// How far the leader is, and no batches.
    fn bare_part(&self, slot: u32) -> Part {
        Part {
            slot,
            leader_epoch: self.next.leader_epoch.0,
            fetch_offset: self.next.fetch_offset.0,
            last_fetched_epoch: self.next.last_fetched_epoch.map(|epoch| epoch.0),
            high_watermark: self.seen.high_watermark.0,
            log_start: self.seen.log_start.0,
            log_end: self.next.fetch_offset.0,
            ..Part::default()
        }
    }
}

fn part_of(turn: &Turn, read: ReplicaRead) -> Part {
    Part {
        slot: turn.slot,
        leader_epoch: turn.fetch.leader_epoch.0,
        fetch_offset: turn.fetch.fetch_offset.0,
        last_fetched_epoch: turn.fetch.last_fetched_epoch.map(|epoch| epoch.0),
        batches: read.batches,
        high_watermark: read.high_watermark.0,
        log_start: read.log_start.0,
        log_end: read.log_end.0,
        diverging: read.diverging.map(|(epoch, end)| Diverging { epoch: epoch.0, end_offset: end.0 }),
        ..Part::default()
    }
}

/// Twice as much for a follower that is far away, as long as it is, and half of it once it is not: what goes by in between is worth its way.
fn next_catchup_bytes(bytes: usize, until_asked: Duration) -> usize {
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    if until_asked > FAR_A_MIB.saturating_mul(mib) {
        bytes.saturating_mul(2)
    } else if until_asked < NEAR_A_MIB.saturating_mul(mib) {
        bytes / 2
    } else {
        bytes
    }
}

#[cfg(test)]
mod tests;
