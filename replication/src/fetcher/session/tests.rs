//! What is said and what is believed, call by call, and against a leader that only keeps what it hears.

use bytes::Bytes;
use floodmark_proto::batch::{BatchBuilder, NewRecord};
use floodmark_proto::ids::{BrokerId, LeaderEpoch, Offset, TopicId};
use proptest::prelude::*;

use super::*;

fn key(index: u32) -> PartitionKey {
    PartitionKey { topic: TopicId::from_bytes([7; 16]).unwrap(), index }
}

fn at(epoch: i32, end: i64, synced: i64) -> FollowerPosition {
    FollowerPosition {
        leader: BrokerId(1),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: 0,
        fetch_offset: Offset(end),
        last_fetched_epoch: (end > 0).then_some(LeaderEpoch(epoch)),
        synced_end: Offset(synced),
        log_start: Offset(0),
    }
}

fn session() -> Session {
    Session::new(Hello { broker: 2, broker_epoch: 1, reply_bytes_max: 1000, wait_ms_max: 500 })
}

fn batch(base: i64) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(Offset(base)).leader_epoch(LeaderEpoch(1));
    builder.push(&NewRecord { timestamp: 1, key: None, value: Some(&[1; 500]), headers: &[] }).unwrap();
    builder.build().unwrap().freeze()
}

fn part(slot: u32, from: i64, batches: &[Bytes]) -> Part {
    Part { slot, leader_epoch: 1, fetch_offset: from, batches: batches.to_vec(), ..Part::default() }
}

/// Slots that are said, and whether a reply is asked for.
fn said(session: &mut Session) -> (Vec<u32>, bool) {
    let request = session.next_request().unwrap();
    (request.positions.iter().map(|position| position.slot).collect(), request.wants_reply)
}

#[test]
fn what_the_leader_knows_is_not_said_again() {
    let mut session = session();
    assert!(session.next_request().is_none(), "nothing to copy, nothing to say");
    let slots = [0, 1, 2].map(|index| session.mention(key(index), at(1, 0, 0)));
    let first = session.next_request().unwrap();
    assert!(first.hello.is_some() && first.wants_reply);
    let names: Vec<_> = first.positions.iter().map(|p| (p.slot, p.topic_id.len(), p.partition)).collect();
    assert_eq!(names, [(slots[0], 16, 0), (slots[1], 16, 1), (slots[2], 16, 2)]);
    assert!(session.next_request().is_none(), "one reply at a time");
    // A look that finds nothing new says nothing; one that does says so by the slot alone.
    assert_eq!(session.on_position(slots[1], at(1, 0, 0)), Some(slots[1]));
    assert!(session.next_request().is_none());
    session.on_position(slots[1], at(1, 5, 3));
    let next = session.next_request().unwrap();
    assert!(next.hello.is_none() && !next.wants_reply && next.positions.len() == 1);
    let position = &next.positions[0];
    assert_eq!((position.slot, position.topic_id.len(), position.fetch_offset), (slots[1], 0, 5));
    assert_eq!(position.synced_end, 3);
}

#[test]
fn a_look_that_comes_late_takes_nothing_back() {
    let mut session = session();
    let slot = session.mention(key(0), at(1, 0, 0));
    said(&mut session);
    session.on_reply(vec![part(slot, 0, &[batch(0)])]);
    let (_, part) = session.next_part(slot).unwrap();
    // The sync was faster than the word that the batch is in the log.
    session.on_position(slot, at(1, 1, 1));
    assert_eq!(session.next_request().unwrap().positions[0].synced_end, 1);
    assert_eq!(session.on_applied(&Applied::of(&part), at(1, 1, 0)), Some(slot));
    assert!(session.next_request().is_none_or(|request| request.positions.is_empty()));
    assert_eq!(session.slots[&slot].position.synced_end, Offset(1));
}

#[test]
fn what_does_not_go_on_from_what_was_said_gets_another_slot() {
    let applied = |slot| Applied::of(&part(slot, 0, &[batch(0)]));
    type Change = fn(&mut Session, u32, &Applied) -> Option<u32>;
    let changes: [(&str, Change, bool); 6] = [
        ("synced", |s, slot, _| s.on_position(slot, at(1, 0, 0)), true),
        ("grown", |s, slot, _| s.on_position(slot, at(1, 9, 0)), true),
        ("another epoch", |s, slot, _| s.on_position(slot, at(2, 0, 0)), false),
        ("appended", |s, _, part| s.on_applied(part, at(1, 1, 0)), true),
        ("cut instead", |s, _, part| s.on_applied(part, at(1, 0, 0)), false),
        ("begun elsewhere", |s, _, part| s.on_applied(part, at(1, 70, 70)), false),
    ];
    for (name, change, is_same) in changes {
        let mut session = session();
        let slot = session.mention(key(0), at(1, 0, 0));
        said(&mut session);
        let ready = session.on_reply(vec![part(slot, 0, &[batch(0)])]);
        assert_eq!(ready, [slot]);
        session.next_part(slot).unwrap();
        let now = change(&mut session, slot, &applied(slot)).unwrap();
        assert_eq!(now == slot, is_same, "{name}");
        if !is_same {
            let request = session.next_request().unwrap();
            assert_eq!((request.forgotten, request.positions.len()), (vec![slot], 1), "{name}");
            assert_eq!(request.positions[0].topic_id.len(), 16, "{name}: mentioned by name");
        }
    }
}

/// Fails when small batches of a partition that hangs hold on to what they came in, which may be a thousand times as much: bytes of batches
/// are all that is counted of it.
#[test]
fn what_waits_holds_on_to_little_more_than_is_counted() {
    let mut session = session();
    let slot = session.mention(key(0), at(1, 0, 0));
    said(&mut session);
    session.on_reply(vec![part(slot, 0, &[batch(0)])]);
    session.next_part(slot).unwrap();
    let batches = [batch(1), batch(2)];
    let [one, two] = batches.clone().map(|batch| batch.len());
    let frame = Bytes::from([batches.concat(), vec![0; 1 << 20]].concat());
    session.on_reply(vec![part(slot, 1, &[frame.slice(..one), frame.slice(one..one + two)])]);
    assert!(frame.is_unique(), "a frame is held by what waits");
    let waiting = &session.slots[&slot].parts[0];
    assert_eq!((&waiting.batches[..], session.unapplied_bytes), (&batches[..], batch(0).len() + one + two));
    // What leaves in a frame of its own is not copied.
    let large = Bytes::from(vec![1; crate::rpc::OWN_PIECE_BYTES_MIN]);
    session.on_reply(vec![part(slot, 3, std::slice::from_ref(&large))]);
    assert_eq!(session.slots[&slot].parts[1].batches[0].as_ptr(), large.as_ptr());
}

#[test]
fn what_comes_for_a_slot_that_is_gone_is_dropped() {
    let mut session = session();
    let slot = session.mention(key(0), at(1, 0, 0));
    said(&mut session);
    session.forget(key(0));
    assert!(session.on_reply(vec![part(slot, 0, &[batch(0)])]).is_empty());
    assert_eq!(session.unapplied_bytes, 0);
    let request = session.next_request().unwrap();
    assert_eq!((request.forgotten, request.wants_reply), (vec![slot], false));
    // Made again, it is another.
    assert_ne!(session.mention(key(0), at(1, 0, 0)), slot);
    // What had come before it went, and waits behind a part that is being applied.
    let slot = session.mention(key(1), at(1, 0, 0));
    said(&mut session);
    session.on_reply(vec![part(slot, 0, &[batch(0)]), part(slot, 1, &[batch(1)])]);
    let (_, first) = session.next_part(slot).unwrap();
    session.forget(key(1));
    assert!(session.next_part(slot).is_none());
    assert_eq!(session.on_applied(&Applied::of(&first), at(1, 1, 0)), None);
    assert_eq!(session.unapplied_bytes, 0);
    // One that was not even mentioned need not be forgotten.
    session.mention(key(2), at(1, 0, 0));
    session.next_request();
    session.mention(key(3), at(1, 0, 0));
    session.forget(key(3));
    assert!(session.next_request().is_none_or(|request| request.forgotten.is_empty()));
}

#[test]
fn parts_of_one_partition_are_applied_in_their_order_and_those_of_others_beside_them() {
    let mut session = session();
    let [first, second] = [0, 1].map(|index| session.mention(key(index), at(1, 0, 0)));
    said(&mut session);
    session.on_reply(vec![part(first, 0, &[batch(0)]), part(first, 1, &[batch(1)]), part(second, 0, &[])]);
    let (_, part) = session.next_part(first).unwrap();
    assert_eq!(part.fetch_offset, 0);
    assert!(session.next_part(first).is_none() && session.next_part(second).is_some());
    assert_eq!(session.on_applied(&Applied::of(&part), at(1, 1, 0)), Some(first));
    assert_eq!(session.next_part(first).unwrap().1.fetch_offset, 1);
}

#[test]
fn no_more_is_asked_for_than_can_be_applied() {
    let mut session = session();
    let slot = session.mention(key(0), at(1, 0, 0));
    assert!(said(&mut session).1);
    session.on_reply(vec![part(slot, 0, &[batch(0)])]);
    assert!(said(&mut session).1, "one reply is applied while the next one comes");
    session.on_reply(vec![part(slot, 1, &[batch(1)])]);
    assert!(session.next_request().is_none());
    let (_, part) = session.next_part(slot).unwrap();
    session.on_applied(&Applied::of(&part), at(1, 1, 0));
    assert_eq!(said(&mut session), (vec![slot], true));
    session.on_reply(Vec::new());
    session.on_refused(slot);
    assert_eq!((session.unapplied_bytes, session.key_of(slot)), (0, None));
    assert!(session.next_request().is_none(), "nothing is copied");
}

#[test]
fn many_positions_are_said_in_several_requests_and_then_a_reply_is_asked_for() {
    let mut session = session();
    for index in 0..10_000 {
        session.mention(key(index), at(1, 0, 0));
    }
    let requests: Vec<_> = std::iter::from_fn(|| session.next_request()).collect();
    let shapes: Vec<_> = requests.iter().map(|r| (r.positions.len(), r.wants_reply)).collect();
    assert_eq!(shapes, [(4096, false), (4096, false), (1808, true)]);
}

#[derive(Debug, Clone)]
enum Event {
    Mention(u32, i64),
    Forget(u32),
    Look(u32, i64),
    Refuse(u32),
    Say,
    Reply(u32, bool),
    Apply(u32, bool),
}

fn event() -> impl Strategy<Value = Event> {
    let index = 0..4_u32;
    prop_oneof![
        (index.clone(), 0..5_i64).prop_map(|(index, end)| Event::Mention(index, end)),
        index.clone().prop_map(Event::Forget),
        (index.clone(), 0..9_i64).prop_map(|(index, end)| Event::Look(index, end)),
        index.clone().prop_map(Event::Refuse),
        Just(Event::Say),
        (index.clone(), any::<bool>()).prop_map(|(index, is_late)| Event::Reply(index, is_late)),
        (index, any::<bool>()).prop_map(|(index, fails)| Event::Apply(index, fails)),
    ]
}

proptest! {
    /// After everything was said, the leader knows each partition once and exactly where it is, and bytes are counted as they lie there.
    #[test]
    fn a_leader_that_keeps_what_it_hears_knows_what_there_is(events in prop::collection::vec(event(), 1..60)) {
        let mut session = session();
        let mut truth: BTreeMap<u32, i64> = BTreeMap::new();
        let mut heard: BTreeMap<u32, (u32, i64)> = BTreeMap::new();
        let mut applying: BTreeMap<u32, Applied> = BTreeMap::new();
        for event in events.into_iter().chain([Event::Say]) {
            let slot_of = |session: &Session, index: u32| session.by_key.get(&key(index)).copied();
            match event {
                Event::Mention(index, end) => {
                    session.mention(key(index), at(1, end, 0));
                    truth.insert(index, end);
                }
                Event::Forget(index) => {
                    session.forget(key(index));
                    truth.remove(&index);
                }
                Event::Look(index, end) => {
                    if let Some(slot) = slot_of(&session, index) {
                        session.on_position(slot, at(1, end, 0));
                        truth.insert(index, end);
                    }
                }
                Event::Refuse(index) => {
                    if let Some(slot) = slot_of(&session, index).filter(|slot| heard.contains_key(slot)) {
                        heard.remove(&slot);
                        session.on_refused(slot);
                        truth.remove(&index);
                    }
                }
                Event::Reply(index, is_late) => {
                    let slot = slot_of(&session, index).map_or(1, |slot| if is_late { slot - 1 } else { slot });
                    session.on_reply(vec![part(slot, 0, &[batch(0)])]);
                }
                Event::Apply(index, fails) => {
                    let Some(slot) = slot_of(&session, index) else { continue };
                    if let Some((_, part)) = session.next_part(slot) {
                        prop_assert!(applying.insert(slot, Applied::of(&part)).is_none());
                    } else if let Some(applied) = applying.remove(&slot) {
                        let end = truth[&index].max(1);
                        match fails {
                            true => session.on_application_ended(&applied),
                            false => {
                                session.on_applied(&applied, at(1, end, 0));
                                truth.insert(index, end);
                            }
                        }
                    }
                }
                Event::Say => {
                    while let Some(request) = session.next_request() {
                        for slot in &request.forgotten {
                            heard.remove(slot);
                        }
                        for said in request.positions {
                            if !said.topic_id.is_empty() {
                                prop_assert!(!heard.contains_key(&said.slot), "a slot names one partition");
                                heard.insert(said.slot, (said.partition, 0));
                            }
                            heard.get_mut(&said.slot).expect("mentioned before").1 = said.fetch_offset;
                        }
                    }
                    let known: BTreeMap<_, _> = heard.values().copied().collect();
                    prop_assert_eq!((heard.len(), &known), (truth.len(), &truth));
                }
            }
            let waiting: usize = session.slots.values().flat_map(|slot| &slot.parts).map(bytes_of).sum();
            let applied: usize = applying.values().map(|applied| applied.bytes).sum();
            prop_assert_eq!(session.unapplied_bytes, waiting + applied);
        }
    }
}
