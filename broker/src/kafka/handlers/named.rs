//! What requests name in lists. Each thing is looked at and answered once, however often it is named: a name costs its sender a few bytes,
//! what is told of it may be a thousand times as much. Must know no message.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Partitions by topic. A topic's name is looked at once for all its partitions, since it may be longer than they are together.
pub(super) type ByTopic<'a> = HashMap<&'a str, HashSet<i32>>;

/// Keeps the first of each.
pub(super) fn once<T, K: Eq + Hash>(named: &mut Vec<T>, key: impl Fn(&T) -> K) {
    if named.len() > 1 {
        let mut seen = HashSet::new();
        named.retain(|one| seen.insert(key(one)));
    }
}

/// Keeps each partition where it is named first, and no topic a second time that has nothing more to it.
pub(super) fn partitions_once<T, P, K: Eq + Hash>(
    topics: &mut Vec<T>,
    key: impl Fn(&T) -> K,
    partitions: impl Fn(&mut T) -> &mut Vec<P>,
    index: impl Fn(&P) -> i32,
) {
    // As most requests are.
    if let [topic] = topics.as_mut_slice()
        && partitions(topic).is_sorted_by(|a, b| index(a) < index(b))
    {
        return;
    }
    let mut seen: HashMap<K, HashSet<i32>> = HashMap::new();
    topics.retain_mut(|topic| {
        let (is_new, seen) = match seen.entry(key(topic)) {
            Entry::Occupied(known) => (false, known.into_mut()),
            Entry::Vacant(new) => (true, new.insert(HashSet::new())),
        };
        let partitions = partitions(topic);
        partitions.retain(|partition| seen.insert(index(partition)));
        is_new || !partitions.is_empty()
    });
}

/// All that is named.
pub(super) fn by_topic<'a>(named: impl Iterator<Item = (&'a str, &'a [i32])>) -> ByTopic<'a> {
    let mut all = ByTopic::new();
    for (topic, partitions) in named {
        all.entry(topic).or_default().extend(partitions);
    }
    all
}

/// What is named more than once.
pub(super) fn doubled<'a, I: Iterator<Item = i32>>(named: impl Iterator<Item = (&'a str, I)>) -> ByTopic<'a> {
    let mut all: HashMap<&str, (HashSet<i32>, HashSet<i32>)> = HashMap::new();
    for (topic, partitions) in named {
        let (seen, again) = all.entry(topic).or_default();
        again.extend(partitions.filter(|index| !seen.insert(*index)));
    }
    all.into_iter().map(|(topic, (_, again))| (topic, again)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Topics = Vec<(&'static str, Vec<i32>)>;

    fn kept(mut topics: Topics) -> Topics {
        partitions_once(&mut topics, |t| t.0, |t| &mut t.1, |index| *index);
        topics
    }

    #[test]
    fn each_thing_stays_where_it_was_named_first() {
        let mut named = vec!["b", "a", "b", "", "a", ""];
        once(&mut named, |name| *name);
        assert_eq!(named, ["b", "a", ""]);
        for (topics, expected) in [
            (vec![], vec![]),
            (vec![("a", vec![0, 1])], vec![("a", vec![0, 1])]),
            (vec![("a", vec![1, 0, 1, 0])], vec![("a", vec![1, 0])]),
            (vec![("a", vec![0, 0])], vec![("a", vec![0])]),
            // Of one that is named with nothing something is told as well, but once.
            (vec![("a", vec![]), ("a", vec![]), ("b", vec![])], vec![("a", vec![]), ("b", vec![])]),
            (
                vec![("a", vec![0]), ("b", vec![0]), ("a", vec![0, 1]), ("a", vec![1])],
                vec![("a", vec![0]), ("b", vec![0]), ("a", vec![1])],
            ),
        ] {
            assert_eq!(kept(topics.clone()), expected, "{topics:?}");
        }
    }

    #[test]
    fn doubles_are_found_across_entries_of_one_topic() {
        let named = [("a", vec![0, 1]), ("b", vec![0, 2, 2]), ("a", vec![1])];
        let found = doubled(named.iter().map(|(topic, all)| (*topic, all.iter().copied())));
        assert_eq!(found, ByTopic::from([("a", HashSet::from([1])), ("b", HashSet::from([2]))]));
        let all = by_topic(named.iter().map(|(topic, all)| (*topic, &**all)));
        assert_eq!(all, ByTopic::from([("a", HashSet::from([0, 1])), ("b", HashSet::from([0, 2]))]));
    }
}
