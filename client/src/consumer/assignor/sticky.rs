//! The cooperative sticky assignor: an even share for everybody, with as little moved as that allows; and what moves is first taken from its
//! owner and given to the next in the rebalance after that.
//!
//! Where more members have one partition more than the least share than may keep it, Kafka's clients let the order of a hash map decide who
//! does; here it is the order in which the coordinator names them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Member, in_rank, subscribed};
use crate::record::TopicPartition;

pub(super) fn assign(members: &[Member], counts: &BTreeMap<String, i32>) -> Vec<Vec<TopicPartition>> {
    let owned = valid_owned(members, counts);
    let all: Vec<TopicPartition> = subscribed(members)
        .into_iter()
        .flat_map(|topic| {
            let count = counts.get(topic).copied().unwrap_or(0);
            (0..count).map(move |partition| TopicPartition::new(topic, partition))
        })
        .collect();
    let same = |member: &Member| topics(member) == topics(&members[0]);
    let mut assigned = if members.iter().all(same) {
        constrained(members, &owned, &all)
    } else {
        general(members, &owned, &all)
    };
    withhold(&mut assigned, members);
    assigned
}

fn topics(member: &Member) -> BTreeSet<&str> {
    member.subscription.topics.iter().map(String::as_str).collect()
}

/// What each member still has: of partitions that exist and that it reads, and of each partition only where it was assigned last. Of two
/// that claim one in the same generation neither has it.
fn valid_owned(members: &[Member], counts: &BTreeMap<String, i32>) -> Vec<Vec<TopicPartition>> {
    let newest = members.iter().map(|member| member.subscription.generation).max().unwrap_or(-1);
    let mut owner: HashMap<&TopicPartition, (i32, usize)> = HashMap::new();
    let mut contested: HashSet<&TopicPartition> = HashSet::new();
    for (place, member) in members.iter().enumerate() {
        let generation = member.subscription.generation;
        for partition in &member.subscription.owned {
            match owner.get(partition) {
                Some((known, _)) if *known > generation => {}
                Some((known, _)) if *known == generation => {
                    contested.insert(partition);
                }
                _ => {
                    owner.insert(partition, (generation, place));
                    contested.remove(partition);
                }
            }
        }
    }
    let is_valid = |place: usize, partition: &&TopicPartition| {
        let exists = partition.partition < counts.get(&*partition.topic).copied().unwrap_or(0);
        let is_owner = owner.get(*partition).is_some_and(|(_, owner)| *owner == place);
        let generation = members[place].subscription.generation;
        let is_recent = generation < 0 || generation >= newest - 1 || newest < 0;
        exists
            && is_owner
            && is_recent
            && members[place].reads(&partition.topic)
            && !contested.contains(*partition)
    };
    let valid = |(place, member): (usize, &Member)| {
        member.subscription.owned.iter().filter(|partition| is_valid(place, partition)).cloned().collect()
    };
    members.iter().enumerate().map(valid).collect()
}

/// All read the same: everybody gets the same number, or one more.
fn constrained(
    members: &[Member],
    owned: &[Vec<TopicPartition>],
    all: &[TopicPartition],
) -> Vec<Vec<TopicPartition>> {
    let (least, surplus) = (all.len() / members.len(), all.len() % members.len());
    let most = least + usize::from(surplus > 0);
    let mut assigned: Vec<Vec<TopicPartition>> = vec![Vec::new(); members.len()];
    let mut with_most = 0;
    for (place, owned) in owned.iter().enumerate() {
        let mut owned = owned.clone();
        // What is kept of too much are the low numbers of each topic, so that partitions of one number stay together.
        owned.sort_by(|a, b| (a.partition, &a.topic).cmp(&(b.partition, &b.topic)));
        if owned.len() >= most && surplus > 0 && with_most < surplus {
            owned.truncate(most);
            with_most += 1;
        } else {
            owned.truncate(least);
        }
        assigned[place] = owned;
    }
    let taken: HashSet<TopicPartition> = assigned.iter().flatten().cloned().collect();
    let mut free = all.iter().filter(|partition| !taken.contains(*partition));
    // In turn to those that lack most of a full share, then one each to as many as may have one more.
    let by_id = by_id(members);
    let mut lacking: Vec<usize> =
        by_id.iter().copied().filter(|place| assigned[*place].len() < least).collect();
    while !lacking.is_empty() {
        lacking.retain(|place| {
            assigned[*place].extend(free.next().cloned());
            assigned[*place].len() < least
        });
    }
    let mut may_have_more: Vec<usize> =
        by_id.into_iter().filter(|place| assigned[*place].len() == least).collect();
    // Members that had at least their share come first, as they stood before the others were filled.
    may_have_more.sort_by_key(|place| owned[*place].len() < least);
    for place in may_have_more.into_iter().take(surplus.saturating_sub(with_most)) {
        assigned[place].extend(free.next().cloned());
    }
    assigned
}

fn by_id(members: &[Member]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..members.len()).collect();
    places.sort_by(|a, b| members[*a].id.cmp(&members[*b].id));
    places
}

/// Members read different topics: everybody keeps what he has; what is free goes to whoever has least of those that read it; then
/// partitions move from those with more to those with at least two fewer until none can.
fn general(
    members: &[Member],
    owned: &[Vec<TopicPartition>],
    all: &[TopicPartition],
) -> Vec<Vec<TopicPartition>> {
    let in_rank = in_rank(members);
    let mut assigned = owned.to_vec();
    let taken: HashSet<&TopicPartition> = owned.iter().flatten().collect();
    // Those with the fewest readers first: they have the least choice.
    let readers = |topic: &str| members.iter().filter(|member| member.reads(topic)).count();
    let mut free: Vec<&TopicPartition> = all.iter().filter(|partition| !taken.contains(*partition)).collect();
    free.sort_by_key(|partition| readers(&partition.topic));
    for partition in free {
        let reads = in_rank.iter().copied().filter(|place| members[*place].reads(&partition.topic));
        if let Some(place) = reads.min_by_key(|place| assigned[*place].len()) {
            assigned[place].push(partition.clone());
        }
    }
    while let Some((from, at, to)) = next_move(members, &in_rank, &assigned) {
        let partition = assigned[from].remove(at);
        assigned[to].push(partition);
    }
    assigned
}

/// A partition whose move makes two members more equal. Each move lowers the sum of squares, so there is a last one.
fn next_move(
    members: &[Member],
    in_rank: &[usize],
    assigned: &[Vec<TopicPartition>],
) -> Option<(usize, usize, usize)> {
    in_rank.iter().copied().find_map(|from| {
        let places = assigned[from].iter().enumerate().rev();
        places.into_iter().find_map(|(at, partition)| {
            let reads = in_rank.iter().copied().filter(|place| members[*place].reads(&partition.topic));
            let least = reads.min_by_key(|place| assigned[*place].len())?;
            (assigned[least].len() + 1 < assigned[from].len()).then_some((from, at, least))
        })
    })
}

/// What another member still has is not given out yet: that member loses it now, and asks for the next rebalance itself.
fn withhold(assigned: &mut [Vec<TopicPartition>], members: &[Member]) {
    let owners = |partition: &TopicPartition, place: usize| {
        members
            .iter()
            .enumerate()
            .any(|(other, member)| other != place && member.subscription.owned.contains(partition))
    };
    for (place, partitions) in assigned.iter_mut().enumerate() {
        let had = &members[place].subscription.owned;
        partitions.retain(|partition| had.contains(partition) || !owners(partition, place));
    }
}
