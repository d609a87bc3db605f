//! Two or three brokers that copy from each other, while leaders change, restart, cut and delete.

use floodmark_proto::ids::{LeaderEpoch, Offset};
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};

use super::nodes::{Cluster, Node, Setup, append, bytes_of_log, run, until, until_equal, value};
use crate::cluster::Command;
use crate::partition::{AppendOptions, PartitionError};

#[test]
fn what_is_appended_gets_to_the_follower_and_is_committed() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        let mut copying = Node::start(&cluster, 2, Setup::default()).await;
        let topic = cluster.create("t", 1, 3, &[1, 2]);
        copying.copy(&cluster);
        for index in 0..3 {
            let leader = leading.partition(&cluster, topic, index).await;
            let copy = copying.partition(&cluster, topic, index).await;
            let appended =
                leader.append(vec![super::nodes::batch(b"v")], AppendOptions::CLIENT).await.unwrap();
            leader.committed(appended.end, appended.epoch).await.unwrap();
            assert!(copy.reader().durable() >= appended.end, "acknowledged is synced on both");
            until_equal(&leader, &copy).await;
        }
    });
}

#[test]
fn a_follower_that_was_down_catches_up() {
    run(async {
        let cluster = Cluster::new();
        // Little in memory: most comes from the disk.
        let setup = Setup { tail_bytes: 64 << 10, reply_bytes_max: 256 << 10, ..Setup::default() };
        let leading = Node::start(&cluster, 1, setup).await;
        let mut copying = Node::start(&cluster, 2, setup).await;
        let topic = cluster.create_with("t", 1, 1, &[1, 2], &[("segment.bytes", "1048576")]);
        copying.copy(&cluster);
        let leader = leading.partition(&cluster, topic, 0).await;
        append(&leader, b"before").await;
        until_equal(&leader, &copying.partition(&cluster, topic, 0).await).await;
        copying.stop_copying().await;
        let mut copying = copying.restart(&cluster).await;
        for seed in 0..80 {
            append(&leader, &value(seed, 50_000)).await;
        }
        copying.copy(&cluster);
        let copy = copying.partition(&cluster, topic, 0).await;
        until_equal(&leader, &copy).await;
        // And lives at the tail from there on.
        append(&leader, b"after").await;
        until_equal(&leader, &copy).await;
    });
}

/// Fails when a replica whose log has failed goes on saying how far it is: having everything, it would be taken in, said to be lost, and taken
/// in again, as long as nothing is appended.
#[test]
fn a_follower_whose_log_has_failed_does_not_pass_for_one_that_keeps_up() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        let mut copying = Node::start(&cluster, 2, Setup::default()).await;
        let topic = cluster.create("t", 1, 2, &[1, 2]);
        copying.copy(&cluster);
        let leader = leading.partition(&cluster, topic, 0).await;
        let copy = copying.partition(&cluster, topic, 0).await;
        append(&leader, b"on both").await;
        until("the copy knows it to be committed", || copy.high_watermark() == Offset(1)).await;
        copying.inject(Fault {
            on: FaultOn::Rename,
            path_ends: String::new(),
            after: 0,
            times: 1,
            kind: FaultKind::Eio,
        });
        copy.delete_before(None).await.unwrap_err();
        assert!(copy.stopped().is_some());
        cluster.change_isr(topic, &[1]);
        leading.partition(&cluster, topic, 0).await;
        copying.partition(&cluster, topic, 0).await;
        // Whatever the replica says of the new state is heard before this is committed.
        let other = leading.partition(&cluster, topic, 1).await;
        let appended = other.append(vec![super::nodes::batch(b"v")], AppendOptions::CLIENT).await.unwrap();
        other.committed(appended.end, appended.epoch).await.unwrap();
        assert_eq!(leader.isr_proposal(0, 1_000), None);
        assert_eq!(copy.follower_position(), None);
    });
}

#[test]
fn r4_a_follower_that_missed_leaders_is_cut_where_its_log_parts() {
    run(async {
        let cluster = Cluster::new();
        let mut nodes = Vec::new();
        for id in [1, 2] {
            nodes.push(Node::start(&cluster, id, Setup::default()).await);
        }
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        nodes[1].copy(&cluster);
        let first = nodes[0].partition(&cluster, topic, 0).await;
        let second = nodes[1].partition(&cluster, topic, 0).await;
        append(&first, b"on both").await;
        until_equal(&first, &second).await;
        // Nobody copies this; the watermark knows nothing of it.
        nodes[1].stop_copying().await;
        for lost in [b"lost 1", b"lost 2", b"lost 3"] {
            append(&first, lost).await;
        }
        cluster.fence(1);
        let second = nodes[1].partition(&cluster, topic, 0).await;
        append(&second, b"by the second").await;
        // Two more epochs, of which one has no record; the first broker sees only the last.
        cluster.change_isr(topic, &[2]);
        cluster.fence(2);
        cluster.unfence(2);
        nodes[1].partition(&cluster, topic, 0).await;
        // More than the first has: by its length alone the first one's log could be a part of this one.
        for _ in 0..4 {
            append(&second, b"by the second again").await;
        }
        cluster.unfence(1);
        assert!(cluster.leader_epoch(topic) > LeaderEpoch(2));
        nodes[0].copy(&cluster);
        let first = nodes[0].partition(&cluster, topic, 0).await;
        until_equal(&second, &first).await;
        assert_eq!(first.log_end(), Offset(6));
        let held = bytes_of_log(&first);
        assert!(!held.windows(4).any(|window| window == b"lost"));
    });
}

#[test]
fn a_leader_that_changes_in_the_midst_loses_nothing_that_was_committed() {
    run(async {
        let cluster = Cluster::new();
        let mut nodes = Vec::new();
        for id in [1, 2, 3] {
            nodes.push(Node::start(&cluster, id, Setup::default()).await);
        }
        let topic = cluster.create("t", 1, 1, &[1, 2, 3]);
        for node in &mut nodes {
            node.copy(&cluster);
        }
        let mut committed: Vec<Vec<u8>> = Vec::new();
        for round in 0..6_u64 {
            let image = cluster.image();
            let leads = image.topic_by_id(topic).unwrap().partition(0).unwrap().leader.unwrap();
            let leading = nodes.iter().find(|node| node.id == leads).unwrap();
            let leader = leading.partition(&cluster, topic, 0).await;
            let mut waiting = Vec::new();
            for n in 0..40 {
                let value = value(round * 1000 + n, 3000);
                let batch = super::nodes::batch(&value);
                match leader.append(vec![batch], AppendOptions::CLIENT).await {
                    Ok(appended) => waiting.push((value, leader.committed(appended.end, appended.epoch))),
                    Err(PartitionError::NotLeader { .. } | PartitionError::FencedEpoch { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
                if n == 12 {
                    // So many at least are acknowledged, whatever becomes of the rest.
                    for (value, outcome) in waiting.drain(..) {
                        outcome.await.unwrap();
                        committed.push(value);
                    }
                }
                if n == 25 {
                    // While the rest is on its way.
                    cluster.fence(leads.0);
                    cluster.unfence(leads.0);
                }
            }
            for (value, outcome) in waiting {
                match outcome.await {
                    Ok(()) => committed.push(value),
                    Err(PartitionError::NotLeader { .. } | PartitionError::FencedEpoch { .. }) => {}
                    Err(e) => panic!("{e}"),
                }
            }
            // Who was fenced comes back into the set once it has everything.
            let image = cluster.image();
            let now = image.topic_by_id(topic).unwrap().partition(0).unwrap().leader.unwrap();
            let leader =
                nodes.iter().find(|node| node.id == now).unwrap().partition(&cluster, topic, 0).await;
            for node in nodes.iter().filter(|node| node.id != now) {
                until_equal(&leader, &node.partition(&cluster, topic, 0).await).await;
            }
            cluster.change_isr(topic, &[now.0, (now.0 % 3) + 1, ((now.0 + 1) % 3) + 1]);
            for node in &nodes {
                node.partition(&cluster, topic, 0).await;
            }
        }
        assert!(committed.len() >= 6 * 13, "{}", committed.len());
        for node in &nodes {
            let held = bytes_of_log(&node.partition(&cluster, topic, 0).await);
            for value in &committed {
                assert!(held.windows(64).any(|window| window == &value[..64]), "on {:?}", node.id);
            }
        }
    });
}

#[test]
fn a_leader_that_restarts_is_called_again() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        let mut copying = Node::start(&cluster, 2, Setup::default()).await;
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        cluster.change_isr(topic, &[1]);
        copying.copy(&cluster);
        let leader = leading.partition(&cluster, topic, 0).await;
        append(&leader, b"a").await;
        until_equal(&leader, &copying.partition(&cluster, topic, 0).await).await;
        // On another port.
        let leading = leading.restart(&cluster).await;
        let leader = leading.partition(&cluster, topic, 0).await;
        append(&leader, b"b").await;
        until_equal(&leader, &copying.partition(&cluster, topic, 0).await).await;
    });
}

#[test]
fn topics_come_and_go_while_others_are_copied() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        let mut copying = Node::start(&cluster, 2, Setup::default()).await;
        let steady = cluster.create("steady", 1, 1, &[1, 2]);
        copying.copy(&cluster);
        for round in 0..10 {
            let topic = cluster.create("comes-and-goes", 10 + round, 2, &[1, 2]);
            for topic in [topic, steady] {
                let leader = leading.partition(&cluster, topic, 0).await;
                append(&leader, &value(u64::from(round), 2000)).await;
            }
            if round % 2 == 0 {
                let leader = leading.partition(&cluster, topic, 0).await;
                until_equal(&leader, &copying.partition(&cluster, topic, 0).await).await;
            }
            cluster.change(Command::DeleteTopic { topic });
        }
        let leader = leading.partition(&cluster, steady, 0).await;
        assert_eq!(leader.log_end(), Offset(10));
        until_equal(&leader, &copying.partition(&cluster, steady, 0).await).await;
        until("nothing else is held", || copying.registry.all().len() == 1).await;
    });
}

#[test]
fn a_follower_behind_the_leaders_start_begins_there() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup::default()).await;
        let mut copying = Node::start(&cluster, 2, Setup::default()).await;
        let topic = cluster.create("t", 1, 1, &[1, 2]);
        cluster.change_isr(topic, &[1]);
        let leader = leading.partition(&cluster, topic, 0).await;
        for seed in 0..5 {
            append(&leader, &value(seed, 100)).await;
        }
        until("committed", || leader.high_watermark() == Offset(5)).await;
        leader.delete_before(Some(Offset(3))).await.unwrap();
        copying.copy(&cluster);
        let copy = copying.partition(&cluster, topic, 0).await;
        until_equal(&leader, &copy).await;
        assert_eq!(copy.log_start(), Offset(3));
        // The start moves on while it is copied.
        leader.delete_before(Some(Offset(4))).await.unwrap();
        until("the start follows", || copy.log_start() == Offset(4)).await;
    });
}

#[test]
fn the_tail_goes_on_while_another_partition_catches_up_slowly() {
    run(async {
        let cluster = Cluster::new();
        let leading = Node::start(&cluster, 1, Setup { tail_bytes: 200 << 10, ..Setup::default() }).await;
        let slow = Setup { catchup_bytes_per_second: 20_000, ..Setup::default() };
        let mut copying = Node::start(&cluster, 2, slow).await;
        let behind = cluster.create("behind", 1, 1, &[1, 2]);
        cluster.change_isr(behind, &[1]);
        let live = cluster.create("live", 2, 1, &[1, 2]);
        let leader = leading.partition(&cluster, behind, 0).await;
        for seed in 0..120 {
            append(&leader, &value(seed, 50_000)).await;
        }
        copying.copy(&cluster);
        let copy = copying.partition(&cluster, behind, 0).await;
        until("catching up has begun", || copy.log_end() > Offset(0)).await;
        let live_leader = leading.partition(&cluster, live, 0).await;
        for seed in 0..50 {
            let batch = super::nodes::batch(&value(seed, 1000));
            let appended = live_leader.append(vec![batch], AppendOptions::CLIENT).await.unwrap();
            live_leader.committed(appended.end, appended.epoch).await.unwrap();
        }
        // At that rate it takes minutes.
        assert!(copy.log_end() < leader.log_end());
    });
}
