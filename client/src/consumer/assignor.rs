//! How the leader of a group shares partitions out. Pure, and equal to Kafka's assignors of the same names without racks, so that it makes no
//! difference which client leads a group.

mod sticky;

use std::collections::{BTreeMap, BTreeSet};

use crate::record::TopicPartition;

/// A way to share partitions out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Assignor {
    /// Each topic by itself: neighbouring partitions to one member. Partitions of the same number of two topics meet at one member.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
    /// Evenly, and as they were before as far as that goes. Members keep what they keep through a rebalance, and read on meanwhile.
    CooperativeSticky,
}

impl Assignor {
    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
            Assignor::CooperativeSticky => "cooperative-sticky",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Assignor> {
        [Assignor::Range, Assignor::RoundRobin, Assignor::CooperativeSticky]
            .into_iter()
            .find(|assignor| assignor.name() == name)
    }

    /// Partitions for each member, in the order of `members`.
    pub(super) fn assign(
        self,
        members: &[Member],
        counts: &BTreeMap<String, i32>,
    ) -> Vec<Vec<TopicPartition>> {
        match self {
            Assignor::Range => range(members, counts),
            Assignor::RoundRobin => round_robin(members, counts),
            Assignor::CooperativeSticky => sticky::assign(members, counts),
        }
    }
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) topics: Vec<String>,
    /// What it has.
    pub(super) owned: Vec<TopicPartition>,
    /// When it got that; -1 where it does not say.
    pub(super) generation: i32,
}

/// A member of the group, as its leader sees it.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) subscription: Subscription,
}

impl Member {
    fn reads(&self, topic: &str) -> bool {
        self.subscription.topics.iter().any(|read| read == topic)
    }

    /// Kafka's order of members: static ones first, by their names; then the others by their ids.
    fn rank(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance) => (false, instance),
            None => (true, &self.id),
        }
    }
}

fn in_rank(members: &[Member]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..members.len()).collect();
    places.sort_by(|a, b| members[*a].rank().cmp(&members[*b].rank()));
    places
}

fn subscribed(members: &[Member]) -> BTreeSet<&str> {
    members.iter().flat_map(|member| member.subscription.topics.iter().map(String::as_str)).collect()
}

fn range(members: &[Member], counts: &BTreeMap<String, i32>) -> Vec<Vec<TopicPartition>> {
    let mut assigned = vec![Vec::new(); members.len()];
    let in_rank = in_rank(members);
    for topic in subscribed(members) {
        let readers: Vec<usize> =
            in_rank.iter().copied().filter(|place| members[*place].reads(topic)).collect();
        let count = counts.get(topic).copied().unwrap_or(0);
        let (each, more) = (count / readers.len() as i32, count % readers.len() as i32);
        let mut next = 0;
        for (nth, reader) in (0..).zip(readers) {
            let end = next + each + i32::from(nth < more);
            assigned[reader].extend((next..end).map(|partition| TopicPartition::new(topic, partition)));
            next = end;
        }
    }
    assigned
}

fn round_robin(members: &[Member], counts: &BTreeMap<String, i32>) -> Vec<Vec<TopicPartition>> {
    let mut assigned = vec![Vec::new(); members.len()];
    let in_rank = in_rank(members);
    let mut turn = 0;
    for topic in subscribed(members) {
        for partition in 0..counts.get(topic).copied().unwrap_or(0) {
            // Somebody reads it, so this ends.
            while !members[in_rank[turn % in_rank.len()]].reads(topic) {
                turn += 1;
            }
            assigned[in_rank[turn % in_rank.len()]].push(TopicPartition::new(topic, partition));
            turn += 1;
        }
    }
    assigned
}

#[cfg(test)]
mod tests;
