//! Programs of different feature levels in one cluster: the cluster goes on at the level that all know, rises when the last one knows more,
//! and takes none that does not know its own.

use super::cluster::*;
use super::*;
use crate::cluster::CommandError;
use crate::controller::{Controller, ControllerRules, Heartbeat, Wants};

fn registration(broker: i32, incarnation: u128, levels: (u16, u16)) -> Command {
    Command::RegisterBroker {
        broker: BrokerId(broker),
        incarnation: uuid::Uuid::from_u128(incarnation),
        rack: None,
        endpoints: Vec::new(),
        feature_levels: levels,
        directories: Vec::new(),
        in_sync_defaults: None,
    }
}

async fn registered(quorum: &QuorumHandle, registration: Command) -> floodmark_proto::ids::BrokerEpoch {
    match quorum.propose(registration).await.unwrap() {
        Output::BrokerRegistered { epoch } => epoch,
        other => panic!("{other:?}"),
    }
}

fn controllers(cluster: &Cluster) -> Vec<Controller> {
    let rules = |own| ControllerRules {
        own: BrokerId(own),
        session: PATIENCE,
        rebalance_interval: None,
        feature_level_max: FEATURE_LEVELS.1,
    };
    cluster.nodes.values().map(|node| Controller::spawn(node.quorum.clone(), rules(node.id))).collect()
}

#[test]
fn a_rolling_upgrade_raises_the_level_when_the_last_broker_knows_it_and_none_goes_back() {
    block_on_cluster(async {
        let mut cluster = three().await;
        let controllers = controllers(&cluster);
        registered(cluster.at(3), registration(3, 3, (1, 1))).await;
        let epoch = registered(cluster.at(1), registration(1, 1, (1, 2))).await;
        registered(cluster.at(2), registration(2, 2, (1, 2))).await;
        let image_version = cluster.at(1).image().version();
        let beat = Heartbeat { broker: BrokerId(1), epoch, image_version, wants: Wants::Serve };
        eventually("that a controller has decided something", || {
            controllers.iter().for_each(|controller| drop(controller.heartbeat(&beat)));
            cluster.at(1).image().is_live(BrokerId(1)).then_some(())
        })
        .await;
        cluster.at(3).propose(create_topic(1)).await.unwrap();
        assert_eq!(cluster.at(1).image().feature_level(), 1, "broker 3 knows no other");
        let stop = Command::BeginShutdown { broker: BrokerId(1), epoch };
        for id in 1..=3 {
            let refused = cluster.at(id).propose(stop.clone()).await;
            let expected = CommandError::NeedsFeatureLevel { needed: 2, current: 1 };
            assert_eq!(refused, Err(ProposeError::Refused(expected)), "an older program would stop at it");
        }

        registered(cluster.at(3), registration(3, 4, (1, 2))).await;
        for node in cluster.nodes.values() {
            eventually("the higher level", || (node.quorum.image().feature_level() == 2).then_some(())).await;
        }

        // The older program is started again, and one to come that knows this level no more.
        let before = cluster.any().read_barrier().await.unwrap();
        for levels in [(1, 1), (3, 4)] {
            let refused = cluster.at(3).propose(registration(3, 5, levels)).await;
            let (level, broker, (lowest, highest)) = (2, BrokerId(3), levels);
            let expected = CommandError::UnsupportedFeatureLevel { level, broker, lowest, highest };
            assert_eq!(refused, Err(ProposeError::Refused(expected)));
        }
        let after = cluster.any().read_barrier().await.unwrap();
        assert_eq!(after.broker(BrokerId(3)), before.broker(BrokerId(3)));
        assert!(after.topic("topic1").is_some());

        // A newcomer that knows more than the others joins at their level.
        cluster.start(4, new_disk()).await.unwrap();
        registered(cluster.at(4), registration(4, 6, (2, 5))).await;
        cluster.at(4).propose(create_topic(2)).await.unwrap();
        cluster.at(4).propose(stop).await.unwrap();
        assert_eq!(cluster.any().read_barrier().await.unwrap().feature_level(), 2);
        cluster.stop().await;
    });
}

/// What it would make of the entries is not what the others make of them.
#[test]
fn a_program_that_does_not_know_the_level_on_its_disk_does_not_start_and_loses_nothing() {
    for log_bytes in [u64::MAX, 0] {
        let disk = new_disk();
        block_on(async {
            let options =
                QuorumOptions { snapshots: SnapshotRule { log_bytes, keep_entries: 1000 }, ..options(&disk) };
            let quorum = QuorumHandle::start(options.clone()).await.unwrap();
            let epoch = registered(&quorum, registration(1, 1, (1, 4))).await;
            quorum.propose(Command::UnfenceBroker { broker: BrokerId(1), epoch }).await.unwrap();
            quorum.propose(create_topic(1)).await.unwrap();
            quorum.propose(Command::SetFeatureLevel { level: 4 }).await.unwrap();
            let last = quorum.shared.raft.metrics().borrow().last_applied;
            if log_bytes == 0 {
                // What is asked for while one is built comes to nothing.
                let raft = &quorum.shared.raft;
                while raft.metrics().borrow().snapshot < last {
                    raft.trigger().snapshot().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            quorum.shutdown().await.unwrap();
            let kept = |path: &str| disk.files()[&Path::new(DATA_DIR).join("metadata").join(path)].clone();
            let log = "log/00000000000000000000.log";
            let (entries, state) = (kept(log), kept("node.state"));
            for _ in 0..2 {
                let refused = QuorumHandle::start(options.clone()).await;
                assert!(
                    matches!(refused, Err(QuorumError::FeatureLevel { level: 4, lowest: 1, highest: 3 })),
                    "{refused:?}"
                );
                assert!(kept(log).starts_with(&entries) && kept("node.state") == state);
            }
        });
    }
}
