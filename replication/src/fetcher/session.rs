//! What a follower has one leader tell: which partitions, how far each is, what of that the leader has not heard, and what came and is not
//! applied yet. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;

use floodmark_proto::pb::replica::{FetchRequest, Hello, Part, Position};

use super::PartitionKey;
use super::part::{bytes_of, end_of, set_apart};
use crate::partition::FollowerPosition;

/// Positions of one request; each is some 60 bytes.
const POSITIONS_MAX: usize = 4096;

/// One call to one leader, from its beginning to its end.
#[derive(Debug)]
pub(super) struct Session {
    slots: BTreeMap<u32, Slot>,
    by_key: BTreeMap<PartitionKey, u32>,
    /// Never one that was used before: what comes late for a slot that is gone finds nobody.
    next_slot: u32,
    unsaid: BTreeSet<u32>,
    forgotten: Vec<u32>,
    hello: Option<Hello>,
    /// A reply is asked for.
    is_waiting: bool,
    /// Of what came.
    unapplied_bytes: usize,
    /// With as much of that, no more is asked for.
    window_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    key: PartitionKey,
    position: FollowerPosition,
    is_mentioned: bool,
    parts: VecDeque<Part>,
    /// One part is out to be applied; those of one partition go in their order.
    is_applying: bool,
}

impl Session {
    pub(super) fn new(hello: Hello) -> Session {
        Session {
            slots: BTreeMap::new(),
            by_key: BTreeMap::new(),
            next_slot: 1,
            unsaid: BTreeSet::new(),
            forgotten: Vec::new(),
            // One reply may be on its way while another is applied.
            window_bytes: hello.reply_bytes_max as usize,
            hello: Some(hello),
            is_waiting: false,
            unapplied_bytes: 0,
        }
    }

    /// Copies a partition from where it is, whatever was said of it before. Gives its slot.
    pub(super) fn mention(&mut self, key: PartitionKey, position: FollowerPosition) -> u32 {
        self.forget(key);
        let slot = self.next_slot;
        self.next_slot += 1;
        let fresh = Slot { key, position, is_mentioned: false, parts: VecDeque::new(), is_applying: false };
        self.slots.insert(slot, fresh);
        self.by_key.insert(key, slot);
        self.unsaid.insert(slot);
        slot
    }

    /// Copies it no more. What came for it and is not applied is dropped.
    pub(super) fn forget(&mut self, key: PartitionKey) {
        let Some(slot) = self.by_key.remove(&key) else { return };
        if let Some(gone) = self.drop_slot(slot)
            && gone.is_mentioned
        {
            self.forgotten.push(slot);
        }
    }

    /// The leader has forgotten it.
    pub(super) fn on_refused(&mut self, slot: u32) {
        if let Some(gone) = self.drop_slot(slot) {
            self.by_key.remove(&gone.key);
        }
    }

    fn drop_slot(&mut self, slot: u32) -> Option<Slot> {
        let gone = self.slots.remove(&slot)?;
        self.unsaid.remove(&slot);
        self.unapplied_bytes -= gone.parts.iter().map(bytes_of).sum::<usize>();
        Some(gone)
    }

    /// A reply is asked for and has not come.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    pub(super) fn key_of(&self, slot: u32) -> Option<PartitionKey> {
        self.slots.get(&slot).map(|slot| slot.key)
    }

    /// The replica is at `position` now, without anything having been applied. Gives the slot, which is another one where the leader could
    /// not go on from what it knows.
    pub(super) fn on_position(&mut self, slot: u32, position: FollowerPosition) -> Option<u32> {
        let known = self.slots.get_mut(&slot)?;
        let before = &known.position;
        if position.leader_epoch != before.leader_epoch || position.fetch_offset < before.fetch_offset {
            let key = known.key;
            return Some(self.mention(key, position));
        }
        // A look may be overtaken by a later one. What is synced goes back only with the log's end.
        let position = FollowerPosition {
            synced_end: position.synced_end.max(before.synced_end),
            log_start: position.log_start.max(before.log_start),
            partition_epoch: position.partition_epoch.max(before.partition_epoch),
            ..position
        };
        if position != *before {
            known.position = position;
            self.unsaid.insert(slot);
        }
        Some(slot)
    }

    /// Takes in what the leader told. Gives the slots that have something to be applied; of those that are gone nothing is kept.
    pub(super) fn on_reply(&mut self, parts: Vec<Part>) -> Vec<u32> {
        self.is_waiting = false;
        let mut concerned = Vec::new();
        for mut part in parts {
            let Some(slot) = self.slots.get_mut(&part.slot) else { continue };
            // It waits for the one before it, perhaps for as long as a disk hangs, while others go on.
            if slot.is_applying {
                set_apart(&mut part);
            }
            self.unapplied_bytes += bytes_of(&part);
            concerned.push(part.slot);
            slot.parts.push_back(part);
        }
        concerned.dedup();
        concerned
    }

    /// The next part of a slot, unless one is being applied.
    pub(super) fn next_part(&mut self, slot: u32) -> Option<(PartitionKey, Part)> {
        let slot = self.slots.get_mut(&slot)?;
        if slot.is_applying {
            return None;
        }
        let part = slot.parts.pop_front()?;
        slot.is_applying = true;
        Some((slot.key, part))
    }

    /// `part` was applied, and the replica is at `position` by it. Gives the slot as [`Session::on_position`] does.
    pub(super) fn on_applied(&mut self, part: &Applied, position: FollowerPosition) -> Option<u32> {
        self.on_application_ended(part);
        let slot = self.slots.get_mut(&part.slot)?;
        if position.fetch_offset.0 != part.end {
            let key = slot.key;
            return Some(self.mention(key, position));
        }
        self.on_position(part.slot, position)
    }

    /// `part` was not applied, or its slot is gone.
    pub(super) fn on_application_ended(&mut self, part: &Applied) {
        self.unapplied_bytes -= part.bytes;
        if let Some(slot) = self.slots.get_mut(&part.slot) {
            slot.is_applying = false;
        }
    }

    /// What the leader must hear, if anything.
    pub(super) fn next_request(&mut self) -> Option<FetchRequest> {
        let wants_reply =
            !self.is_waiting && !self.slots.is_empty() && self.unapplied_bytes < self.window_bytes;
        if self.unsaid.is_empty() && self.forgotten.is_empty() && !wants_reply {
            return None;
        }
        let mut positions = Vec::with_capacity(self.unsaid.len().min(POSITIONS_MAX));
        while positions.len() < POSITIONS_MAX
            && let Some(slot) = self.unsaid.pop_first()
        {
            positions.extend(self.slots.get_mut(&slot).map(|known| known.say(slot)));
        }
        // What is to be copied is said before anything is asked for.
        let wants_reply = wants_reply && self.unsaid.is_empty();
        self.is_waiting |= wants_reply;
        Some(FetchRequest {
            hello: self.hello.take(),
            positions,
            forgotten: mem::take(&mut self.forgotten),
            wants_reply,
            catchup_bytes_granted: None,
        })
    }
}

/// A part that is being applied.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) slot: u32,
    /// Where a log is that it was applied to.
    end: i64,
    bytes: usize,
}

impl Applied {
    pub(super) fn of(part: &Part) -> Applied {
        Applied { slot: part.slot, end: end_of(part), bytes: bytes_of(part) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Slot {
    fn say(&mut self, slot: u32) -> Position {
        let is_first = !mem::replace(&mut self.is_mentioned, true);
        let at = &self.position;
        Position {
            slot,
            topic_id: if is_first { self.key.topic.to_bytes().to_vec().into() } else { Default::default() },
            partition: if is_first { self.key.index } else { 0 },
            leader_epoch: at.leader_epoch.0,
            fetch_offset: at.fetch_offset.0,
            last_fetched_epoch: at.last_fetched_epoch.map(|epoch| epoch.0),
            synced_end: at.synced_end.0,
            log_start: at.log_start.0,
            partition_epoch: at.partition_epoch,
        }
    }
}

#[cfg(test)]
mod tests;
