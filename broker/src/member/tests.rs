//! Starts that find a log missing, in a cluster of one broker on a simulated disk.

use std::path::Path;

use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::fs::sim::{Fault, FaultKind, FaultOn};
use floodmark_storage::fs::{Disk, SimDisk};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;

use super::*;
use crate::config::BrokerConfig;
use crate::shared::Ground;

const BROKER: BrokerId = BrokerId(1);

fn joining_on(disk: &SimDisk) -> Joining {
    let mut config = BrokerConfig::temporary().unwrap();
    config.node_id = BROKER.0;
    config.data_dirs = vec!["data".into()];
    let context = LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::System,
        random: Random::System,
        tail_budget: TailBudget::new(1 << 20),
    };
    let data_dirs = [DataDir::open(context.clone(), Path::new("data")).unwrap()].into();
    crate::joining(&config, &context, &data_dirs, Vec::new(), &Ground::new(&config)).unwrap()
}

/// A registration that was on its way when its process was killed may be carried out after the next process has looked at what the cluster
/// knows.
#[test]
fn a_start_goes_on_where_the_registration_of_an_earlier_process_comes_late() {
    let disk = SimDisk::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let entered = runtime.enter();
    let joining = Arc::new(joining_on(&disk));
    drop(entered);
    runtime.block_on(async {
        let quorum = QuorumHandle::start_at(joining.quorum.clone(), &joining.seat).await.unwrap();
        let Registered { epoch, .. } = register(&quorum, &joining).await.unwrap();
        let topic = TopicId::from_bytes([9; 16]).unwrap();
        let assignments = vec![vec![BROKER]];
        let create =
            Command::CreateTopic { name: "t".to_owned(), id: topic, assignments, settings: Vec::new() };
        let let_in = Command::UnfenceBroker { broker: BROKER, epoch };
        // What was led more than once is not new.
        for command in
            [let_in.clone(), create, Command::FenceBroker { broker: BROKER, epoch }, let_in.clone()]
        {
            quorum.propose(command).await.unwrap();
        }
        disk.create_dir_all(Path::new("data/logs/t-0")).unwrap();
        disk.inject(Fault {
            on: FaultOn::Open,
            path_ends: "t-0/partition.metadata".to_owned(),
            after: 0,
            times: 1,
            kind: FaultKind::Hang,
        });
        let starting = tokio::spawn({
            let (quorum, joining) = (quorum.clone(), Arc::clone(&joining));
            async move { register(&quorum, &joining).await }
        });
        while disk.faults_taken() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        let late = Command::RegisterBroker {
            broker: BROKER,
            incarnation: Uuid::from_u128(7),
            rack: None,
            endpoints: Vec::new(),
            feature_levels: FEATURE_LEVELS,
            directories: joining.directories(),
        };
        quorum.propose(late).await.unwrap();
        disk.heal();
        let registered = starting.await.unwrap().unwrap();
        assert_eq!(registered.missing, [(topic, 0)].into());
        let image = quorum.image();
        assert_eq!(image.broker(BROKER).unwrap().epoch, registered.epoch);
        let partition = image.topic_by_id(topic).unwrap().partition(0).unwrap();
        assert!(partition.is_lost && partition.leader.is_none(), "{partition:?}");
        quorum.shutdown().await.unwrap();
    });
}
