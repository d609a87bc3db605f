//! Whose turn it is, what of a reply it gets, and when a reply is worth sending: call by call, and with partitions that are rows of numbers.

use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use proptest::prelude::*;

use super::super::part::bytes_of;
use super::*;

const REPLY: usize = 1 << 20;

fn key(index: u32) -> PartitionKey {
    PartitionKey { topic: TopicId::from_bytes([7; 16]).unwrap(), index }
}

fn fetch(end: i64) -> ReplicaFetch {
    ReplicaFetch {
        replica: BrokerId(2),
        broker_epoch: BrokerEpoch(1),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: 0,
        fetch_offset: Offset(end),
        last_fetched_epoch: None,
        synced_end: Offset(end),
        log_start: Offset(0),
    }
}

/// A batch of one record, and some 32 KiB.
fn batch(base: i64) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(Offset(base)).leader_epoch(LeaderEpoch(1));
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&[1; 32 << 10]), headers: &[] }).unwrap();
    builder.build().unwrap().freeze()
}

/// A leader's partition: everything from `in_memory` on is in memory.
#[derive(Debug, Clone, Copy)]
struct Log {
    end: i64,
    in_memory: i64,
    high_watermark: i64,
}

impl Log {
    fn read(self, turn: &Turn) -> ReplicaRead {
        let mut batches: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        for offset in turn.fetch.fetch_offset.0..self.end {
            let batch = batch(offset);
            if !batches.is_empty() && bytes + batch.len() > turn.max_bytes {
                break;
            }
            bytes += batch.len();
            batches.push(batch);
        }
        ReplicaRead {
            batches,
            high_watermark: Offset(self.high_watermark),
            log_start: Offset(0),
            log_end: Offset(self.end),
            diverging: None,
        }
    }

    fn look(self, turn: &Turn) -> Found {
        match turn.fetch.fetch_offset.0 < self.in_memory.min(self.end) {
            true => Found::OnDisk,
            false => Found::Read(self.read(turn)),
        }
    }
}

/// Takes every look in memory, for a follower that is in sync.
fn gather(serving: &mut Serving, logs: &[Log], now: Instant) {
    gather_for(serving, logs, |_| true, now);
}

fn gather_for(serving: &mut Serving, logs: &[Log], is_in_sync: impl Fn(u32) -> bool, now: Instant) {
    while let Some(turn) = serving.next_turn(&is_in_sync) {
        let found = logs[turn.slot as usize].look(&turn);
        serving.on_found(&turn, found, now);
    }
}

/// Takes one look at the disk; false where there is none to take.
fn read_disk(serving: &mut Serving, logs: &[Log], is_in_sync: bool, now: Instant) -> bool {
    let Some(turn) = serving.next_from_disk(|_| is_in_sync) else { return false };
    let found = Found::Read(logs[turn.slot as usize].read(&turn));
    serving.on_found_on_disk(&turn, found, now);
    true
}

fn serving(ends: impl IntoIterator<Item = i64>) -> Serving {
    let mut serving = Serving::new(REPLY);
    for (slot, end) in (0..).zip(ends) {
        serving.mention(slot, key(slot), fetch(end));
    }
    serving
}

/// (slot, bytes) of a reply.
fn shape(parts: &[Part]) -> Vec<(u32, usize)> {
    parts.iter().map(|part| (part.slot, bytes_of(part))).collect()
}

#[test]
fn a_reply_is_shared_and_the_next_one_begins_where_it_ended() {
    let log = Log { end: 1000, in_memory: 0, high_watermark: 0 };
    let (logs, mut serving, now) = ([log; 20], serving([0; 20]), Instant::now());
    let mut got = [0; 20];
    let mut firsts = Vec::new();
    for _ in 0..8 {
        gather(&mut serving, &logs, now);
        let parts = serving.take_reply(now);
        let bytes: usize = parts.iter().map(bytes_of).sum();
        assert!(bytes <= REPLY + (40 << 10) && bytes > REPLY / 2, "{bytes}");
        firsts.push(parts[0].slot);
        parts.iter().for_each(|part| got[part.slot as usize] += bytes_of(part));
    }
    let (least, most) = (*got.iter().min().unwrap(), *got.iter().max().unwrap());
    assert!(least > 0 && most - least <= 2 * (SHARE_BYTES_MIN + (33 << 10)), "{got:?}");
    assert!(firsts.windows(2).any(|pair| pair[0] != pair[1]), "{firsts:?}");
}

#[test]
fn one_partition_alone_fills_a_reply_and_the_next_one_goes_on_behind_it() {
    let logs = [Log { end: 100, in_memory: 0, high_watermark: 0 }];
    let (mut serving, now) = (serving([0]), Instant::now());
    let mut next = 0;
    for _ in 0..3 {
        gather(&mut serving, &logs, now);
        let parts = serving.take_reply(now);
        for part in &parts {
            assert_eq!(part.fetch_offset, next);
            next += part.batches.len() as i64;
        }
    }
    assert!(next > 90, "nothing was said by the follower meanwhile: {next}");
}

#[test]
fn what_does_not_move_costs_nothing() {
    let log = Log { end: 5, in_memory: 0, high_watermark: 5 };
    let (mut logs, mut serving, now) = ([log; 1000], serving([5; 1000]), Instant::now());
    gather(&mut serving, &logs, now);
    // The follower does not know the watermarks yet.
    assert_eq!(serving.worth_a_reply_at(now), Some(now + LINGER));
    assert_eq!(serving.take_reply(now).len(), 1000);
    assert!(serving.next_turn(|_| true).is_none() && serving.worth_a_reply_at(now).is_none());
    assert!(serving.take_reply(now).is_empty());
    logs[7].end = 6;
    serving.mark(7);
    gather(&mut serving, &logs, now);
    assert_eq!(serving.worth_a_reply_at(now), Some(now));
    assert_eq!(serving.take_reply(now).len(), 1);
}

#[test]
fn a_watermark_waits_for_batches_to_go_along_with_and_not_for_long() {
    let log = Log { end: 5, in_memory: 0, high_watermark: 4 };
    let (mut logs, mut serving, begun) = ([log; 2], serving([5, 5]), Instant::now());
    gather(&mut serving, &logs, begun);
    serving.take_reply(begun);
    let later = begun + Duration::from_secs(1);
    logs[0].high_watermark = 5;
    serving.mark(0);
    gather(&mut serving, &logs, later);
    assert_eq!(serving.worth_a_reply_at(later), Some(later + LINGER));
    // Moving on does not put it off.
    serving.mark(0);
    gather(&mut serving, &logs, later + LINGER / 2);
    assert_eq!(serving.worth_a_reply_at(later), Some(later + LINGER));
    logs[1].end = 6;
    serving.mark(1);
    gather(&mut serving, &logs, later);
    let parts = serving.take_reply(later);
    let told: Vec<_> =
        parts.iter().map(|part| (part.slot, part.high_watermark, part.batches.len())).collect();
    assert_eq!(told, [(1, 4, 1), (0, 5, 0)]);
    assert_eq!(serving.worth_a_reply_at(later), None);
}

#[test]
fn the_tail_is_served_beside_a_partition_far_behind() {
    let tail = Log { end: 3, in_memory: 0, high_watermark: 0 };
    let behind = Log { end: 10_000, in_memory: 9_000, high_watermark: 0 };
    let (mut logs, mut serving, now) = ([behind, tail], serving([0, 3]), Instant::now());
    for round in 0..20 {
        // The tail moves with each reply.
        logs[1].end += 4;
        serving.mark(1);
        gather(&mut serving, &logs, now);
        assert!(read_disk(&mut serving, &logs, true, now));
        assert!(!read_disk(&mut serving, &logs, true, now), "one look at the disk for each reply");
        gather(&mut serving, &logs, now);
        let reply = shape(&serving.take_reply(now));
        let of = |slot| reply.iter().filter(|part| part.0 == slot).map(|part| part.1).sum::<usize>();
        assert!(of(1) > 4 * (32 << 10), "the tail in round {round}: {reply:?}");
        let allowed = if round == 0 { REPLY } else { REPLY / 2 };
        assert!(of(0) > 0 && of(0) <= allowed, "{round}: {reply:?}");
    }
    // Nobody else lives at the tail any more: it may take everything.
    for round in 0..3 {
        gather(&mut serving, &logs, now);
        assert!(read_disk(&mut serving, &logs, true, now));
        let reply = shape(&serving.take_reply(now));
        assert!(round == 0 || reply[0].1 > REPLY / 2, "{reply:?}");
    }
}

#[test]
fn partitions_far_behind_take_turns() {
    let log = Log { end: 10_000, in_memory: 9_000, high_watermark: 0 };
    let (logs, mut serving, now) = ([log; 3], serving([0; 3]), Instant::now());
    let mut order = Vec::new();
    for _ in 0..6 {
        gather(&mut serving, &logs, now);
        assert!(read_disk(&mut serving, &logs, false, now));
        order.extend(serving.take_reply(now).iter().map(|part| part.slot));
    }
    assert_eq!(order, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn no_more_is_sent_for_catching_up_than_is_granted_and_replicas_in_sync_are_not_held_up() {
    let log = Log { end: 10_000, in_memory: 9_000, high_watermark: 0 };
    let (logs, mut serving, now) = ([log; 2], serving([0, 0]), Instant::now());
    serving.grant(0);
    gather(&mut serving, &logs, now);
    assert!(!read_disk(&mut serving, &logs, false, now));
    assert!(read_disk(&mut serving, &logs, true, now), "in sync");
    assert!(!serving.take_reply(now)[0].is_catchup);
    let mut granted = 0;
    let mut sent = 0;
    for _ in 0..40 {
        granted += 50_000;
        serving.grant(granted);
        // One that comes late takes nothing back.
        serving.grant(granted / 2);
        gather(&mut serving, &logs, now);
        while read_disk(&mut serving, &logs, false, now) {
            let parts = serving.take_reply(now);
            assert!(parts.iter().all(|part| part.is_catchup));
            sent += parts.iter().map(bytes_of).sum::<usize>() as u64;
            gather(&mut serving, &logs, now);
        }
        // The first batch of a read comes whole.
        assert!(sent <= granted + (33 << 10) && sent + (33 << 10) >= granted, "{sent} of {granted}");
    }
}

#[test]
fn a_log_that_parts_or_begins_later_is_told_once_and_then_mentioned_anew() {
    let now = Instant::now();
    let read = |log_start, diverging| ReplicaRead {
        batches: Vec::new(),
        high_watermark: Offset(20),
        log_start: Offset(log_start),
        log_end: Offset(30),
        diverging,
    };
    for read in [read(0, Some((LeaderEpoch(1), Offset(7)))), read(15, None)] {
        let mut serving = serving([10]);
        let turn = serving.next_turn(|_| true).unwrap();
        serving.on_found(&turn, Found::Read(read.clone()), now);
        let parts = serving.take_reply(now);
        assert_eq!(parts[0].diverging.is_some(), read.diverging.is_some());
        assert_eq!((parts[0].fetch_offset, parts[0].log_start), (10, read.log_start.0));
        assert!(serving.fetch_of(0).is_none());
        serving.mark(0);
        assert!(serving.next_turn(|_| true).is_none());
        assert_eq!(serving.mention(1, key(0), fetch(7)), None, "the slot before had ended");
        assert_eq!(serving.next_turn(|_| true).unwrap().fetch.fetch_offset, Offset(7));
    }
}

#[test]
fn a_partition_has_one_slot_and_what_a_disk_tells_of_another_is_dropped() {
    let log = Log { end: 100, in_memory: 90, high_watermark: 0 };
    let (mut serving, now) = (serving([0]), Instant::now());
    gather(&mut serving, &[log], now);
    let turn = serving.next_from_disk(|_| true).unwrap();
    assert_eq!(serving.mention(5, key(0), fetch(50)), Some(0));
    serving.on_found_on_disk(&turn, Found::Read(log.read(&turn)), now);
    assert!(serving.take_reply(now).is_empty());
    assert_eq!(serving.next_turn(|_| true).unwrap().slot, 5);
    serving.forget(5);
    assert!(serving.slots.is_empty() && serving.by_key.is_empty());
}

#[test]
fn a_refusal_is_told_and_ends_the_slot_and_what_is_not_known_yet_waits() {
    let (mut serving, now) = (serving([0, 0]), Instant::now());
    let turn = serving.next_turn(|_| true).unwrap();
    serving.on_found(&turn, Found::NotYet, now);
    let turn = serving.next_turn(|_| true).unwrap();
    serving.on_found(&turn, Found::Refused(Refusal::NotLeader), now);
    assert_eq!(serving.refusals(), 1);
    let parts = serving.take_reply(now);
    assert_eq!((parts.len(), parts[0].slot, parts[0].refusal()), (1, 1, Refusal::NotLeader));
    assert!(serving.next_turn(|_| true).is_none());
    serving.mark(0);
    assert_eq!(serving.next_turn(|_| true).unwrap().slot, 0);
}

#[test]
fn what_comes_while_a_disk_is_read_is_not_missed_where_that_read_came_too_early() {
    let log = Log { end: 100, in_memory: 90, high_watermark: 0 };
    let (mut serving, now) = (serving([0]), Instant::now());
    gather(&mut serving, &[log], now);
    let turn = serving.next_from_disk(|_| true).unwrap();
    serving.mark(0);
    serving.on_found_on_disk(&turn, Found::NotYet, now);
    assert_eq!(serving.next_turn(|_| true).map(|turn| turn.slot), Some(0));
    serving.on_found(&turn, Found::NotYet, now);
    assert!(serving.next_turn(|_| true).is_none(), "it is looked at once more, not for ever");
}

#[test]
fn who_lacks_more_is_read_for_before_it_asks_and_once() {
    let log = Log { end: 100, in_memory: 90, high_watermark: 0 };
    let (mut serving, now) = (serving([0]), Instant::now());
    gather(&mut serving, &[log], now);
    assert_eq!(serving.next_ahead(), None, "nothing was read yet");
    assert!(read_disk(&mut serving, &[log], false, now));
    let (slot, next) = serving.next_ahead().unwrap();
    assert!(slot == 0 && next.fetch_offset > Offset(0));
    serving.on_still_behind(slot);
    assert!(!read_disk(&mut serving, &[log], false, now), "one reply ahead is enough");
    assert!(!serving.take_reply(now).is_empty());
    assert!(read_disk(&mut serving, &[log], false, now), "nobody has asked");
    assert_eq!(serving.take_reply(now)[0].fetch_offset, next.fetch_offset.0);
    // What memory has waits for its turn, and is not held against what was granted.
    assert!(serving.next_ahead().is_some());
    assert_eq!(serving.next_ahead(), None);
    assert!(!read_disk(&mut serving, &[log], false, now));
    assert_eq!(serving.next_turn(|_| true).unwrap().slot, 0);
    assert!(serving.next_turn(|_| true).is_none());
    serving.on_still_behind(0);
    assert!(!read_disk(&mut serving, &[log], false, now), "it was looked at meanwhile");
}

/// Bytes of the replies to a follower that asks for the next one so long after each was sent.
fn looks(serving: &mut Serving, logs: &[Log], after: Duration, now: &mut Instant) -> Vec<usize> {
    let mut looks = Vec::new();
    for _ in 0..5 {
        gather(serving, logs, *now);
        assert!(read_disk(serving, logs, false, *now));
        looks.push(serving.take_reply(*now).iter().map(bytes_of).sum::<usize>() >> 20);
        *now += after;
        serving.on_asked(*now);
    }
    looks
}

#[test]
fn who_is_far_away_is_read_more_for_at_a_time() {
    let logs = [Log { end: 10_000, in_memory: 9_999, high_watermark: 0 }];
    let (mut serving, mut now) = (Serving::new(10 << 20), Instant::now());
    serving.mention(0, key(0), fetch(0));
    let (near, far) = (NEAR_A_MIB, FAR_A_MIB * 20);
    assert_eq!(
        looks(&mut serving, &logs, near, &mut now),
        [1; 5],
        "2 MiB but for the batch that does not fit"
    );
    assert_eq!(looks(&mut serving, &logs, far, &mut now), [1, 3, 7, 9, 9], "no more than a reply may have");
    assert_eq!(looks(&mut serving, &logs, near, &mut now), [9, 4, 2, 1, 1]);
    serving.on_asked(now + far * 9);
    assert_eq!(serving.catchup_bytes, CATCHUP_BYTES, "no reply was sent before");
    // A follower that takes less is not sent more.
    let mut serving = self::serving([0]);
    assert_eq!(looks(&mut serving, &logs, far, &mut now), [0; 5]);
}

#[test]
fn a_reply_is_as_large_as_is_worth_its_way() {
    // Round trips in milliseconds, with 0.7 ms for each MiB beside them: what it comes to, begun with little and with much.
    for (round_trip, from_little, from_much) in
        [(0, 2, 2), (1, 2, 2), (3, 2, 2), (5, 4, 4), (10, 8, 8), (40, 32, 32)]
    {
        for (begun, expected) in [(2, from_little), (32, from_much)] {
            let mut bytes = begun << 20;
            for _ in 0..10 {
                let until_asked = Duration::from_micros(1000 * round_trip + 700 * (bytes as u64 >> 20));
                bytes = next_catchup_bytes(bytes, until_asked).clamp(CATCHUP_BYTES, 32 << 20);
            }
            assert_eq!(bytes >> 20, expected, "{round_trip} ms, begun with {begun} MiB");
        }
    }
}

#[test]
fn what_memory_has_for_who_is_not_in_sync_comes_in_pieces_and_others_do_not_wait_for_it() {
    let (log, reply, batch_bytes) = (Log { end: 200, in_memory: 0, high_watermark: 0 }, 10 << 20, 33 << 10);
    let (mut serving, now) = (Serving::new(reply), Instant::now());
    (0..3).for_each(|slot| assert_eq!(serving.mention(slot, key(slot), fetch(0)), None));
    let mut next = [0; 3];
    for n in 0..5 {
        gather_for(&mut serving, &[log; 3], |slot| slot == 1, now);
        let parts = serving.take_reply(now);
        for part in &parts {
            assert_eq!(part.fetch_offset, next[part.slot as usize]);
            next[part.slot as usize] += part.batches.len() as i64;
        }
        let late: usize = parts.iter().filter(|part| part.slot != 1).map(bytes_of).sum();
        assert!(
            late <= CATCHUP_BYTES + batch_bytes && late > CATCHUP_BYTES - SHARE_BYTES_MIN - batch_bytes,
            "{late}"
        );
        assert!(parts.iter().all(|part| !part.is_catchup), "no disk was asked, so nothing of it was granted");
        assert!(n > 0 || next[1] == 200, "who is in sync has the rest of the reply: {next:?}");
        let (first, second) = (next[0], next[2]);
        assert!(first.min(second) * 3 > first.max(second), "they take turns: {next:?}");
    }
    gather_for(&mut serving, &[log; 3], |slot| slot == 1, now);
    assert!(!serving.take_reply(now).is_empty());
    serving.on_asked(now + FAR_A_MIB * 3);
    assert_eq!(serving.catchup_bytes, 2 * CATCHUP_BYTES, "who is far away gets more of what memory has too");
}

proptest! {
    /// Whatever moves, and wherever it lies, everything is sent once, in order, in replies of bounded size, and then nothing more.
    #[test]
    fn everything_gets_there_once(
        logs in prop::collection::vec((0..80_i64, 0..80_i64, 0..80_i64), 1..8),
        appends in prop::collection::vec((0..8_usize, 1..40_i64), 0..12),
    ) {
        let now = Instant::now();
        let mut serving = serving(logs.iter().map(|(end, at, _)| *at.min(end)));
        // Every other partition's follower is not in sync, and gets less.
        serving.catchup_bytes = 2 * SHARE_BYTES_MIN;
        let is_in_sync = |slot| slot % 2 == 0;
        let mut at: Vec<i64> = logs.iter().map(|(end, at, _)| *at.min(end)).collect();
        let mut logs: Vec<Log> =
            logs.iter().map(|(end, _, in_memory)| Log { end: *end, in_memory: *in_memory, high_watermark: *end }).collect();
        let mut appends = appends.into_iter();
        loop {
            let appended = appends.next();
            if let Some((slot, count)) = appended
                && let Some(log) = logs.get_mut(slot)
            {
                log.end += count;
                serving.mark(slot as u32);
            }
            gather_for(&mut serving, &logs, is_in_sync, now);
            let has_read = read_disk(&mut serving, &logs, appended.is_some(), now);
            gather_for(&mut serving, &logs, is_in_sync, now);
            let parts = serving.take_reply(now);
            prop_assert!(parts.iter().map(bytes_of).sum::<usize>() <= 2 * REPLY);
            for part in &parts {
                prop_assert_eq!(part.fetch_offset, at[part.slot as usize]);
                at[part.slot as usize] += part.batches.len() as i64;
            }
            if parts.is_empty() && !has_read && appended.is_none() {
                break;
            }
        }
        prop_assert_eq!(at, logs.iter().map(|log| log.end).collect::<Vec<_>>());
    }
}
