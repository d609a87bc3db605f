//! When a leader last had a majority at the latest, as this node and those that vote for it know. Leases that a leader grants rest on the
//! majority that followed it, so whoever leads next knows when they have all ended.
//!
//! Every message of a leader is noted before Raft is told of it. A vote says how long ago the last one came, looked at after it was given: by
//! then Raft takes no more from the leaders before. Any two majorities share a voter, so no leader before was followed by one after the
//! latest that its successor's voters name. The same times bind a voter: it helps nobody to lead within a lease.

use std::time::Duration;

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::time::Instant;

use super::QuorumHandle;

/// For how many leases a leader is taken to be there since it was heard. Who has heard none for one lease and a half at the latest asks for
/// an election, and one that can be won is over by the end of the second. A heartbeat, of which a lease has several, may well be late.
const LED_LEASES: u32 = 2;

/// What this node knows of leaders.
#[derive(Debug)]
pub(crate) struct Contact {
    lease: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// A leader's message came last, or this node led last; the start, where nothing is remembered of before.
    heard: Instant,
    /// When a leader's message came last that had a majority, as far as it knew.
    led: Option<Instant>,
    /// Some leader may count on this node.
    is_bound: bool,
    /// The last term in which this node asked for votes, and the latest that those who gave one have heard of a leader.
    ballot: Option<(u64, Instant)>,
    /// Others are given until then.
    rests_until: Instant,
    /// Wishes for a vote that Raft has not answered yet.
    weighed: usize,
}

/// A wish for a vote that is before Raft. While there is one this node does not stand: its candidacy would come behind the vote that it gives,
/// under a higher term, and so it would refuse the very leader that it has made.
#[derive(Debug)]
pub(crate) struct Weighing(Arc<Contact>);

impl QuorumHandle {
    /// No leader of a term before `term` was followed by a majority later than this, and no lease that it granted counts from later. `None`
    /// where this node was not elected in `term` by others.
    #[must_use]
    pub fn followed_before(&self, term: u64) -> Option<Instant> {
        self.shared.contact.latest_before(term)
    }

    /// For tests of what rests on it.
    #[cfg(test)]
    pub(crate) fn contact(&self) -> &Contact {
        &self.shared.contact
    }
}

impl Contact {
    /// A node starts at `now`. One that has voted before may be counted on by a leader of before, and lets those stand first that were there
    /// all the time: who stands has forgotten whom to ask whether it is a member still.
    pub(crate) fn new(now: Instant, has_voted: bool, lease: Duration) -> Contact {
        let rests_until = if has_voted { now + lease * 3 / 2 } else { now };
        let state =
            State { heard: now, led: None, is_bound: has_voted, ballot: None, rests_until, weighed: 0 };
        Contact { lease, state: Mutex::new(state) }
    }

    /// A message of a leader has come, or this node leads.
    pub(crate) fn note(&self, now: Instant) {
        let mut state = self.state.lock();
        state.heard = state.heard.max(now);
        state.is_bound = true;
    }

    /// A message of a leader that is not alone has come.
    pub(crate) fn note_led(&self, now: Instant) {
        let mut state = self.state.lock();
        state.led = state.led.max(Some(now));
    }

    /// True while a leader that a majority follows is taken to be there, told by what came from one.
    pub(crate) fn is_led(&self, now: Instant) -> bool {
        let led = self.state.lock().led;
        led.is_some_and(|led| now.saturating_duration_since(led) <= self.lease * LED_LEASES)
    }

    /// How long ago the last leader was heard.
    pub(crate) fn silent(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.state.lock().heard)
    }

    /// True while a leader may count on this node to help no other.
    pub(crate) fn is_bound(&self, now: Instant) -> bool {
        self.state.lock().is_bound_at(now, self.lease)
    }

    /// This node asks for votes in `term`. False where it must not.
    pub(crate) fn stands(&self, term: u64, now: Instant) -> bool {
        let mut state = self.state.lock();
        if state.ballot.is_none_or(|(of, _)| of != term) {
            if state.is_bound_at(now, self.lease) {
                return false;
            }
            state.ballot = Some((term, state.heard));
        }
        true
    }

    /// Another node has given its vote for `term`, and heard no leader after `heard`.
    pub(crate) fn granted(&self, term: u64, heard: Instant) {
        if let Some((of, latest)) = &mut self.state.lock().ballot
            && *of == term
        {
            *latest = heard.max(*latest);
        }
    }

    /// No leader of a term before was followed by a majority later than this; `None` where this node was not elected in `term`.
    pub(crate) fn latest_before(&self, term: u64) -> Option<Instant> {
        self.state.lock().ballot.filter(|(of, _)| *of == term).map(|(_, latest)| latest)
    }

    /// Somebody else is to lead, or has better chances: this node gives way until then.
    pub(crate) fn rest_until(&self, until: Instant) {
        let mut state = self.state.lock();
        state.rests_until = state.rests_until.max(until);
    }

    /// Raft is about to be asked for a vote.
    pub(crate) fn weigh(self: &Arc<Self>) -> Weighing {
        self.state.lock().weighed += 1;
        Weighing(Arc::clone(self))
    }

    /// Whether Raft is asked for a vote. Where its disk hangs it gives none, however long it is asked.
    pub(crate) fn is_weighing(&self) -> bool {
        self.state.lock().weighed > 0
    }

    /// Whether this node may stand at once.
    pub(crate) fn is_free(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.weighed == 0 && state.free_from(self.lease) <= now
    }

    /// When this node may want to lead at the earliest, as far as is known now.
    pub(crate) fn free_from(&self) -> Instant {
        self.state.lock().free_from(self.lease)
    }
}

impl Weighing {
    /// The vote is given: this node gives way until then.
    pub(crate) fn rest_until(&self, until: Instant) {
        self.0.rest_until(until);
    }
}

impl Drop for Weighing {
    fn drop(&mut self) {
        self.0.state.lock().weighed -= 1;
    }
}

impl State {
    fn is_bound_at(&self, now: Instant, lease: Duration) -> bool {
        self.is_bound && now.saturating_duration_since(self.heard) < lease
    }

    fn free_from(&self, lease: Duration) -> Instant {
        let unbound = if self.is_bound { self.heard + lease } else { self.heard };
        unbound.max(self.rests_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(600);

    fn at(ms: u64) -> impl Fn(u64) -> Instant {
        let start = Instant::now() + Duration::from_millis(ms);
        move |ms| start + Duration::from_millis(ms)
    }

    #[test]
    fn who_heard_a_leader_helps_no_other_for_a_lease() {
        let at = at(0);
        let contact = Contact::new(at(0), false, LEASE);
        assert!(!contact.is_bound(at(0)) && contact.stands(1, at(0)), "a new node has promised nothing");
        contact.note(at(1000));
        contact.note(at(900));
        assert!(contact.is_bound(at(1599)) && !contact.stands(2, at(1599)));
        assert_eq!(contact.free_from(), at(1600));
        assert!(!contact.is_bound(at(1600)) && contact.stands(2, at(1600)));
        assert_eq!(contact.silent(at(1650)), Duration::from_millis(650));
        contact.rest_until(at(1900));
        contact.rest_until(at(1800));
        assert_eq!(contact.free_from(), at(1900));
        let again = Contact::new(at(0), true, LEASE);
        assert!(
            again.is_bound(at(599)) && !again.stands(1, at(599)),
            "it may have promised before it started"
        );
        assert!(!again.is_bound(at(600)));
        assert_eq!(again.free_from(), at(900));
    }

    #[test]
    fn a_late_heartbeat_is_no_loss_of_the_leader_and_two_leases_without_one_are() {
        let at = at(0);
        let contact = Contact::new(at(0), true, LEASE);
        assert!(!contact.is_led(at(0)), "who led before it started may be gone");
        contact.note(at(1000));
        assert!(!contact.is_led(at(1000)), "that one asks whether anybody follows it");
        contact.note_led(at(2000));
        contact.note_led(at(1900));
        assert!(contact.is_led(at(2000)) && contact.is_led(at(3200)) && !contact.is_led(at(3201)));
        assert!(!contact.is_bound(at(2000)), "what binds it is another matter");
    }

    #[test]
    fn who_gives_a_vote_does_not_stand_meanwhile() {
        let at = at(0);
        let contact = Arc::new(Contact::new(at(0), false, LEASE));
        contact.note(at(0));
        assert!(!contact.is_free(at(599)) && contact.is_free(at(600)));
        let (one, other) = (contact.weigh(), contact.weigh());
        assert!(!contact.is_free(at(700)) && contact.is_weighing());
        drop(one);
        assert!(!contact.is_free(at(700)), "the other is still before Raft");
        // One is given, one is not.
        contact.rest_until(at(900));
        drop(other);
        assert!(!contact.is_weighing());
        assert!(!contact.is_free(at(899)) && contact.is_free(at(900)));
    }

    #[test]
    fn the_latest_that_any_voter_heard_counts() {
        let at = at(0);
        let contact = Contact::new(at(0), true, LEASE);
        contact.note(at(100));
        assert_eq!(contact.latest_before(7), None);
        assert!(contact.stands(7, at(800)));
        assert_eq!(contact.latest_before(7), Some(at(100)));
        contact.granted(6, at(500));
        contact.granted(7, at(150));
        contact.granted(7, at(120));
        // What comes from now on is of a leader that this node does not follow.
        contact.note(at(850));
        assert!(contact.stands(7, at(860)), "the same candidacy goes on");
        assert_eq!((contact.latest_before(7), contact.latest_before(6)), (Some(at(150)), None));
        assert!(contact.stands(8, at(1450)));
        assert_eq!((contact.latest_before(7), contact.latest_before(8)), (None, Some(at(850))));
    }
}
