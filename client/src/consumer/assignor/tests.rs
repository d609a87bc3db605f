//! What Kafka's own assignors say to the same groups, and what holds for groups that read different topics.

use std::collections::BTreeMap;

use super::{Assignor, Member, Subscription};
use crate::record::TopicPartition;

/// Groups with what the assignors of Apache Kafka 4.3.1's Java client made of them: for each a line with assignor and partition counts, then
/// a line for each member with id, instance id, topics, what it has and what it gets. The sticky groups come up to five in a
/// row, as members come and go and topics grow; those are left out in which the order of a Java hash map decides.
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
    let mut others = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let assigned = sorted(case.assignor.assign(&case.members, &case.counts));
        if assigned != case.expected {
            others.push(format!("group {at}: {assigned:?}, not {:?}", case.expected));
        }
    }
    assert!(others.is_empty(), "{} of {} differ: {others:#?}", others.len(), cases.len());
}

/// Members that read different topics: nobody gets what he does not read, everything is read, and no move would make it more even.
#[test]
fn groups_of_different_topics_are_even_and_stay_so() {
    let member = |id: &str, topics: &[&str], owned: &[TopicPartition]| Member {
        id: id.to_owned(),
        instance_id: None,
        subscription: Subscription {
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            owned: owned.to_vec(),
            generation: 1,
        },
    };
    let counts = BTreeMap::from([("a".to_owned(), 6), ("b".to_owned(), 3), ("c".to_owned(), 1)]);
    let topics: [&[&str]; 3] = [&["a"], &["a", "b"], &["b", "c"]];
    let mut owned = vec![Vec::new(); 3];
    for round in 0..3 {
        let members: Vec<Member> =
            (0..3).map(|at| member(["x", "y", "z"][at], topics[at], &owned[at])).collect();
        let assigned = Assignor::CooperativeSticky.assign(&members, &counts);
        let sizes: Vec<usize> = assigned.iter().map(Vec::len).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 10);
        assert!(sizes.iter().all(|size| (3..=4).contains(size)), "{sizes:?}");
        for (member, partitions) in members.iter().zip(&assigned) {
            assert!(partitions.iter().all(|partition| member.reads(&partition.topic)));
        }
        assert!(round == 0 || sorted(assigned.clone()) == sorted(owned), "nothing moves without need");
        owned = assigned;
    }
}
