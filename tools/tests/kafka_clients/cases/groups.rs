//! Consumer groups. Each member is a program of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::json;

use super::records;
use crate::adapter::{Failure, Got, Record, parse};
use crate::ensure;
use crate::session::{Session, expect_same};

/// Long enough for a rebalance that waits for a member which is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Short, because cases wait for it; long enough for a busy machine.
const SESSION_MS: u64 = 8000;

/// What a member was seen to hold and get.
#[derive(Default)]
struct Member {
    assignment: BTreeSet<i32>,
    /// All that was ever taken from it.
    revoked: BTreeSet<i32>,
    got: Vec<Got>,
}

/// A group of one topic.
struct Group<'a> {
    session: &'a mut Session,
    topic: String,
    name: String,
    strategy: &'static str,
    partitions: i32,
    /// By the number of the program.
    members: BTreeMap<usize, Member>,
}

impl<'a> Group<'a> {
    fn new(
        session: &'a mut Session,
        what: &str,
        partitions: i32,
        strategy: &'static str,
    ) -> Result<Group<'a>, Failure> {
        let topic = session.topic(what, partitions, json!({}))?;
        let name = session.name(&format!("{what}-group"));
        Ok(Group { session, topic, name, strategy, partitions, members: BTreeMap::new() })
    }

    fn join(&mut self, member: usize, instance: Option<&str>) -> Result<(), Failure> {
        let request = json!({
            "op": "subscribe", "topic": self.topic, "group": self.name, "strategy": self.strategy,
            "instance": instance, "session_ms": SESSION_MS
        });
        self.session.call_member(member, request)?;
        self.members.insert(member, Member::default());
        Ok(())
    }

    fn leave(&mut self, member: usize) -> Result<Member, Failure> {
        self.session.call_member(member, json!({"op": "close"}))?;
        self.members.remove(&member).ok_or_else(|| Failure::wrong(format!("member {member} never joined")))
    }

    fn commit(&mut self) -> Result<(), Failure> {
        for &member in self.members.keys() {
            self.session.call_member(member, json!({"op": "commit"}))?;
        }
        Ok(())
    }

    /// Polls all members until `is_done`.
    fn poll_until(&mut self, what: &str, is_done: impl Fn(&Group<'_>) -> bool) -> Result<(), Failure> {
        let start = Instant::now();
        while !is_done(self) {
            let held: Vec<_> = self.members.iter().map(|(n, m)| (n, &m.assignment, m.got.len())).collect();
            ensure!(
                start.elapsed() < PATIENCE,
                "{what}: not after {PATIENCE:?}; member, partitions, records: {held:?}"
            );
            let numbers: Vec<usize> = self.members.keys().copied().collect();
            let polled = self.session.poll_members(&numbers, 300)?;
            for (member, polled) in self.members.values_mut().zip(polled) {
                member.assignment = polled.assignment.into_iter().collect();
                member.revoked.extend(polled.revoked);
                member.got.extend(polled.records);
            }
        }
        Ok(())
    }

    /// Polls until every partition has one member and every member its share.
    fn balance(&mut self, what: &str) -> Result<(), Failure> {
        self.poll_until(&format!("balanced after {what}"), |g| g.is_balanced())
    }

    fn is_balanced(&self) -> bool {
        let all: Vec<i32> = self.members.values().flat_map(|m| m.assignment.iter().copied()).collect();
        let share = self.partitions as usize / self.members.len();
        all.len() == self.partitions as usize
            && all.iter().collect::<BTreeSet<_>>().len() == all.len()
            && self.members.values().all(|m| m.assignment.len() >= share)
    }

    /// Produces, and polls until the members have got all of it, and nothing else.
    fn pass(&mut self, word: &str, count: usize, first: i64) -> Result<(), Failure> {
        let sent = records(word, self.partitions, count);
        self.session.produce(&self.topic, &sent)?;
        self.receive(&sent, first)
    }

    fn receive(&mut self, sent: &[Record], first: i64) -> Result<(), Failure> {
        let total = |g: &Group<'_>| g.members.values().map(|m| m.got.len()).sum::<usize>();
        self.poll_until("all records received", |g| total(g) >= sent.len())?;
        let got: Vec<Got> = self.members.values_mut().flat_map(|m| std::mem::take(&mut m.got)).collect();
        expect_same(sent, &got, first)
    }

    /// The same where a rebalance may give records a second time that were not committed.
    fn receive_again(&mut self, sent: &[Record], first: i64) -> Result<(), Failure> {
        self.poll_until("all records received", |g| g.places().len() >= sent.len())?;
        let once: Vec<Got> = self.places().into_values().cloned().collect();
        for member in self.members.values_mut() {
            member.got.clear();
        }
        expect_same(sent, &once, first)
    }

    /// What the members got, by its place.
    fn places(&self) -> BTreeMap<(i32, i64), &Got> {
        self.members.values().flat_map(|m| &m.got).map(|g| ((g.partition, g.offset), g)).collect()
    }

    /// What is held now, by member.
    fn held(&self) -> Vec<BTreeSet<i32>> {
        self.members.values().map(|m| m.assignment.clone()).collect()
    }
}

/// Two members share a topic; one leaves, the other goes on where it was.
pub(crate) fn two(session: &mut Session) -> Result<String, Failure> {
    let mut group = Group::new(session, "two", 4, "eager")?;
    group.join(0, None)?;
    group.balance("the first joined")?;
    group.join(1, None)?;
    group.balance("the second joined")?;
    group.pass("shared", 50, 0)?;
    group.commit()?;
    group.leave(0)?;
    group.balance("the first left")?;
    group.pass("alone", 50, 50)?;
    group.commit()?;
    group.leave(1)?;
    Ok(String::new())
}

/// Three members come one by one; one leaves, one is killed, and the last gets it all.
pub(crate) fn three_join_leave(session: &mut Session) -> Result<String, Failure> {
    let mut group = Group::new(session, "three", 6, "eager")?;
    for member in 0..3 {
        group.join(member, None)?;
        group.balance(&format!("member {member} joined"))?;
        group.pass(&format!("with {member}"), 20, 20 * member as i64)?;
        group.commit()?;
    }
    group.leave(0)?;
    group.balance("one left")?;
    group.pass("two left", 20, 60)?;
    group.commit()?;

    group.session.kill_from(2);
    group.members.remove(&2);
    let late = records("nobody may miss this", 6, 20);
    group.session.produce(&group.topic, &late)?;
    group.balance("one was killed")?;
    group.receive_again(&late, 80)?;
    group.commit()?;
    group.leave(1)?;
    Ok(String::new())
}

/// The cooperative protocol: who is there keeps most of what it has when another one comes.
pub(crate) fn cooperative(session: &mut Session) -> Result<String, Failure> {
    let mut group = Group::new(session, "cooperative", 6, "cooperative")?;
    group.join(0, None)?;
    group.balance("the first joined")?;
    group.pass("first", 20, 0)?;
    group.commit()?;
    group.join(1, None)?;
    group.balance("the second joined")?;
    let (first, second) = (&group.members[&0], &group.members[&1]);
    ensure!(
        first.revoked == second.assignment,
        "{:?} were taken from the first, {:?} given to the second",
        first.revoked,
        second.assignment
    );
    group.pass("second", 20, 20)?;
    group.commit()?;
    group.join(2, None)?;
    group.balance("the third joined")?;
    group.pass("third", 20, 40)?;
    group.commit()?;
    group.leave(0)?;
    let before = group.held();
    group.balance("the first left")?;
    let kept = group.held().iter().zip(&before).all(|(now, before)| before.is_subset(now));
    ensure!(kept, "{before:?} became {:?}", group.held());
    group.pass("fourth", 20, 60)?;
    group.commit()?;
    group.leave(1)?;
    group.leave(2)?;
    Ok(String::new())
}

/// A static member comes back to its partitions, and the other notices nothing.
pub(crate) fn static_member(session: &mut Session) -> Result<String, Failure> {
    let mut group = Group::new(session, "static", 4, "eager")?;
    // The leader stays; the one that goes and comes again is not the leader.
    group.join(0, Some("a"))?;
    group.balance("the first joined")?;
    group.join(1, Some("b"))?;
    group.balance("the second joined")?;
    group.pass("before", 20, 0)?;
    group.commit()?;
    let before = group.held();
    if let Some(stays) = group.members.get_mut(&0) {
        stays.revoked.clear();
    }
    // It goes without a word: some clients say farewell when closed, and are not static then.
    group.session.kill_from(1);
    group.join(1, Some("b"))?;
    group.balance("the second came back")?;
    ensure!(group.held() == before, "{before:?} became {:?}", group.held());
    let revoked = &group.members[&0].revoked;
    ensure!(revoked.is_empty(), "{revoked:?} were taken from the one that stayed");
    group.pass("after", 20, 20)?;
    group.commit()?;
    group.leave(0)?;
    group.leave(1)?;
    Ok(String::new())
}

/// What is committed is not read again, what is not committed is.
pub(crate) fn commit_resume(session: &mut Session) -> Result<String, Failure> {
    let commits_itself = session.lacks("commit");
    let mut group = Group::new(session, "resume", 2, "eager")?;
    group.join(0, None)?;
    group.pass("committed", 50, 0)?;
    group.commit()?;
    group.leave(0)?;
    let asked = json!({"op": "group_offsets", "group": group.name});
    match group.session.call(asked) {
        Ok(mut told) => {
            let mut offsets: Vec<(String, i32, i64)> = parse(told["offsets"].take())?;
            offsets.sort_unstable();
            let expected = [0, 1].map(|p| (group.topic.clone(), p, 50));
            ensure!(offsets == expected, "committed offsets {offsets:?} where {expected:?} were");
        }
        Err(Failure::Unsupported(_)) => {}
        Err(other) => return Err(other),
    }

    let late = records("not committed", 2, 50);
    group.session.produce(&group.topic, &late)?;
    if !commits_itself {
        group.join(0, None)?;
        group.receive(&late, 50)?;
        group.leave(0)?;
    }
    group.join(0, None)?;
    group.receive(&late, 50)?;
    group.commit()?;
    group.leave(0)?;
    Ok(String::new())
}
