//! What Kafka's own assignors say to the same groups, and what holds for groups that read different topics.

use std::collections::BTreeMap;

use super::{Assignor, Member, Subscription};
use crate::record::TopicPartition;

/// Groups with what the assignors of Apache Kafka 4.3.1's Java client made of them: for each a line with assignor and partition counts, then
/// a line for each member with id, instance id, topics, what it has and what it gets. The sticky groups come five in a row: members come
/// and go, topics grow.
const KAFKA_CASES: &str = include_str!("kafka_cases.txt");

struct Case {
    assignor: Assignor,
    counts: BTreeMap<String, i32>,
    members: Vec<Member>,
    expected: Vec<Vec<TopicPartition>>,
}

fn partitions(text: &str) -> Vec<TopicPartition> {
    let pairs = text.split(',').filter(|pair| *pair != "-").map(|pair| pair.split_once(':').unwrap());
    pairs.map(|(topic, partition)| TopicPartition::new(topic, partition.parse().unwrap())).collect()
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in KAFKA_CASES.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["group", assignor, counts] = words[..] {
            let counts = partitions(counts);
            cases.push(Case {
                assignor: Assignor::from_name(assignor).unwrap(),
                counts: counts.iter().map(|count| (count.topic.to_string(), count.partition)).collect(),
                members: Vec::new(),
                expected: Vec::new(),
            });
            continue;
        }
        let [id, instance, topics, owned, expected] = words[..] else { panic!("{line}") };
        let case = cases.last_mut().unwrap();
        case.members.push(Member {
            id: id.to_owned(),
            instance_id: (instance != "-").then(|| instance.to_owned()),
            subscription: Subscription {
                topics: topics.split(',').map(str::to_owned).collect(),
                owned: partitions(owned),
                generation: 1,
            },
        });
        case.expected.push(partitions(expected));
    }
    cases
}

fn sorted(mut assigned: Vec<Vec<TopicPartition>>) -> Vec<Vec<TopicPartition>> {
    assigned.iter_mut().for_each(|partitions| partitions.sort());
    assigned
}

#[test]
fn assignments_are_kafkas() {
    let cases = cases();
    assert!(cases.len() > 200);
    for (at, case) in cases.iter().enumerate() {
        let assigned = sorted(case.assignor.assign(&case.members, &case.counts));
        assert_eq!(assigned, case.expected, "group {at}, {:?} of {:?}: {:#?}", case.assignor, case.counts, case.members);
    }
}
