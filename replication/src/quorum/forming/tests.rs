//! What a broker with an empty directory does, by what the others say.

use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;

use super::*;
use crate::quorum::{QuorumOptions, QuorumTiming, SnapshotRule};

fn directory(n: u128) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(n))
}

fn at(port: u16) -> Address {
    Address { host: "127.0.0.1".to_owned(), port }
}

fn cluster(n: u8) -> ClusterId {
    ClusterId::from_bytes([n; 16])
}

/// A broker whose directory has the number of the broker.
fn seat(id: i32, wanted: Option<ClusterId>) -> Seat {
    Seat::new(&QuorumOptions {
        context: LogContext {
            disk: std::sync::Arc::new(floodmark_storage::fs::SimDisk::new()),
            clock: Clock::manual(0),
            random: Random::seeded(1),
            tail_budget: TailBudget::new(1),
        },
        data_dir: "data".into(),
        directory_id: directory(id.unsigned_abs().into()),
        holds_partitions: false,
        node_id: BrokerId(id),
        cluster_id: wanted,
        deadline: Duration::from_secs(1),
        snapshots: SnapshotRule::default(),
        voters: Vec::new(),
        address: Some(at(100)),
        timing: QuorumTiming::default(),
        vitals: crate::vital::Vitals::default(),
    })
}

fn listed() -> Vec<(BrokerId, Address)> {
    (1..=3).map(|id| (BrokerId(id), at(id.unsigned_abs().try_into().unwrap()))).collect()
}

fn empty(id: i32) -> (BrokerId, Result<Heard, String>) {
    let heard = Heard {
        broker: BrokerId(id),
        directory_id: directory(id.unsigned_abs().into()),
        address: None,
        cluster: None,
        wanted: None,
    };
    (BrokerId(id), Ok(heard))
}

/// A member that knows of these nodes, each with the directory of that number.
fn member(id: i32, of: ClusterId, nodes: &[(NodeId, u128)]) -> (BrokerId, Result<Heard, String>) {
    let nodes: BTreeMap<NodeId, Node> = nodes
        .iter()
        .map(|(node, n)| (*node, Node { directory_id: Some(directory(*n)), address: Some(at(9)) }))
        .collect();
    let membership = Membership::new(vec![nodes.keys().copied().collect()], nodes);
    let (broker, heard) = empty(id);
    (broker, heard.map(|heard| Heard { cluster: Some((of, membership)), ..heard }))
}

fn silent(id: i32) -> (BrokerId, Result<Heard, String>) {
    (BrokerId(id), Err("no connection".to_owned()))
}

fn waits(step: &Step, for_what: &str) {
    assert!(matches!(step, Step::Wait(what) if what.contains(for_what)), "{step:?} for {for_what}");
}

fn refuses(step: &Step, why: &str) {
    assert!(matches!(step, Step::Refuse(reason) if reason.contains(why)), "{step:?} for {why}");
}

#[test]
fn only_the_lowest_forms_a_cluster_and_only_when_all_are_there_and_empty() {
    let formed = decide(&seat(1, None), &listed(), &BTreeMap::from([empty(2), empty(3)]));
    let Step::Form(founders) = formed else { panic!("{formed:?}") };
    let seen: Vec<_> =
        founders.iter().map(|(id, node)| (*id, node.directory_id, node.address.clone())).collect();
    assert_eq!(
        seen,
        [
            (1, Some(directory(1)), Some(at(100))),
            (2, Some(directory(2)), Some(at(2))),
            (3, Some(directory(3)), Some(at(3)))
        ]
    );
    waits(
        &decide(&seat(1, None), &listed(), &BTreeMap::from([empty(2), silent(3)])),
        "broker 3 at 127.0.0.1:3",
    );
    for id in [2, 3] {
        let others = (1..=3).filter(|other| *other != id).map(empty).collect();
        waits(&decide(&seat(id, None), &listed(), &others), "lowest id");
    }
    // One alone in its list.
    assert!(
        matches!(decide(&seat(1, None), &listed()[..1], &BTreeMap::new()), Step::Form(f) if f.len() == 1)
    );
}

#[test]
fn a_founder_finds_itself_by_its_disk() {
    let nodes = [(1, 1), (2, 2), (3, 3)];
    for heard in [
        BTreeMap::from([member(1, cluster(7), &nodes), empty(3)]),
        BTreeMap::from([member(1, cluster(7), &nodes), silent(3)]),
        // A founder that knows nobody yet does not hide one that does.
        BTreeMap::from([member(1, cluster(7), &[]), member(3, cluster(7), &nodes)]),
    ] {
        assert_eq!(decide(&seat(2, None), &listed(), &heard), Step::Take(cluster(7), 2));
    }
    // The lowest with an empty disk does not form a second cluster beside the first.
    let known = BTreeMap::from([empty(2), member(3, cluster(7), &[(1, 99), (2, 2), (3, 3)])]);
    assert_eq!(decide(&seat(1, None), &listed(), &known), Step::Join(cluster(7)));
    let nobody = BTreeMap::from([empty(2), member(3, cluster(7), &[])]);
    waits(&decide(&seat(1, None), &listed(), &nobody), "do not know it");
}

#[test]
fn who_is_not_in_it_joins_what_there_is() {
    let nodes = [(1, 1), (2, 2), (3, 3)];
    let heard = BTreeMap::from([silent(1), member(2, cluster(7), &nodes), silent(3)]);
    assert_eq!(decide(&seat(4, None), &listed(), &heard), Step::Join(cluster(7)));
    // It has joined, and lost the answer.
    let heard = BTreeMap::from([member(2, cluster(7), &[(2, 2), (9 << 32 | 4, 4)])]);
    assert_eq!(decide(&seat(4, None), &listed(), &heard), Step::Take(cluster(7), 9 << 32 | 4));
    waits(&decide(&seat(4, None), &listed(), &BTreeMap::from([empty(1), empty(2), silent(3)])), "to join");
}

#[test]
fn clusters_are_not_mixed_up() {
    let two = BTreeMap::from([member(1, cluster(7), &[(1, 1)]), member(2, cluster(8), &[(2, 2)])]);
    refuses(&decide(&seat(3, None), &listed(), &two), "in two clusters");
    let one = BTreeMap::from([member(1, cluster(7), &[(1, 1)])]);
    refuses(&decide(&seat(3, Some(cluster(8))), &listed(), &one), "cluster.id is");
    assert_eq!(decide(&seat(3, Some(cluster(7))), &listed(), &one), Step::Join(cluster(7)));
    let (broker, heard) = empty(2);
    let other =
        BTreeMap::from([(broker, heard.map(|heard| Heard { wanted: Some(cluster(9)), ..heard })), empty(3)]);
    refuses(&decide(&seat(1, Some(cluster(8))), &listed(), &other), "must be the same");
}
