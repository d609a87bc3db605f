//! The quorum on a simulated disk: what is promised across restarts, kills and power cuts.

mod cluster;
mod crash;
mod elections;
mod faults;
mod feature_levels;
mod handle;
mod joining;
mod obligations;
mod old_leaders;
mod raft_log;
mod suite;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerId, TopicId};
use floodmark_storage::TailBudget;
use floodmark_storage::clock::Clock;
use floodmark_storage::data_dir::DirectoryId;
use floodmark_storage::fs::{Disk, SimDisk};
use floodmark_storage::log::LogContext;
use floodmark_storage::random::Random;

use super::*;
use crate::cluster::{Endpoint, Output};

const DATA_DIR: &str = "data";

/// A disk with an empty data directory on it.
fn new_disk() -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DATA_DIR)).unwrap();
    disk.sync_dir(Path::new("."), floodmark_storage::fs::SyncPoint::DataDirCreated).unwrap();
    disk
}

fn context(disk: &SimDisk) -> LogContext {
    LogContext {
        disk: Arc::new(disk.clone()),
        clock: Clock::manual(1_700_000_000_000),
        random: Random::seeded(7),
        tail_budget: TailBudget::new(1 << 20),
    }
}

fn options(disk: &SimDisk) -> QuorumOptions {
    QuorumOptions {
        context: context(disk),
        data_dir: DATA_DIR.into(),
        directory_id: DirectoryId(uuid::Uuid::from_u128(5)),
        holds_partitions: false,
        node_id: BrokerId(1),
        cluster_id: None,
        deadline: Duration::from_secs(30),
        snapshots: SnapshotRule::default(),
        voters: Vec::new(),
        address: None,
        timing: QuorumTiming::default(),
        vitals: crate::vital::Vitals::default(),
    }
}

/// What the only voter finds on its disk.
async fn open_alone(options: &QuorumOptions, pressure: &Arc<DiskPressure>) -> Result<Opened, QuorumError> {
    let place = place(options);
    match opening::find(place.clone()).await? {
        Some(file) => opening::open(&place, file, pressure).await,
        None => opening::begin(&place, part(options, &Seat::new(options)).await?, pressure).await,
    }
}

/// The longest of these tests is done in a tenth of it. One that hangs must not hold up all others.
const TEST_TIME_MAX: Duration = Duration::from_secs(300);

/// Runs a test on a runtime of one thread, as a broker's cores are.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(in_time(future))
}

async fn in_time<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIME_MAX, test).await.expect("the test hangs")
}

async fn start(disk: &SimDisk) -> QuorumHandle {
    QuorumHandle::start(options(disk)).await.unwrap()
}

fn register(incarnation: u128) -> Command {
    Command::RegisterBroker {
        broker: BrokerId(1),
        incarnation: uuid::Uuid::from_u128(incarnation),
        rack: None,
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            host: "localhost".to_owned(),
            port: 9092,
        }],
        feature_levels: FEATURE_LEVELS,
        directories: Vec::new(),
        in_sync_defaults: None,
    }
}

/// Registers the broker and makes it ready to lead.
async fn join(quorum: &QuorumHandle) {
    let Output::BrokerRegistered { epoch } = quorum.propose(register(1)).await.unwrap() else {
        panic!("a registration answers with its epoch");
    };
    quorum.propose(Command::UnfenceBroker { broker: BrokerId(1), epoch }).await.unwrap();
}

fn topic_id(n: u64) -> TopicId {
    TopicId::from_bytes((u128::from(n) + 2).to_be_bytes()).unwrap()
}

fn create_topic(n: u64) -> Command {
    Command::CreateTopic {
        name: format!("topic{n}"),
        id: topic_id(n),
        assignments: vec![vec![BrokerId(1)]],
        settings: Vec::new(),
    }
}
