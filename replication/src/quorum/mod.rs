//! Cluster metadata by Raft: a log of commands, and the image they make. The only place that names openraft, and the only way
//! to change an image that others see.
//!
//! - this file: [`QuorumHandle`]: propose, read, watch, stop
//! - `raft_log`: entries on storage's log; `node_state` the vote; `log_store` the thread that owns both
//! - `state_machine`: entries applied; `snapshot_file` what stands for those that were removed
//! - `proposer`: commands that wait share an entry; `network`: other voters
//! - `types`, `sealed_file`, `disk_pressure`, `error`

mod disk_pressure;
mod error;
mod log_store;
mod network;
mod node_state;
mod proposer;
mod raft_log;
mod sealed_file;
mod snapshot_file;
mod state_machine;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerId, ClusterId};
use floodmark_storage::data_dir::DirectoryId;
use floodmark_storage::log::LogContext;
use openraft::error::{CheckIsLeaderError, Fatal, RaftError};
use openraft::{Config, EmptyNode, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::cluster::image::{FIRST_FEATURE_LEVEL, MOVES_FEATURE_LEVEL};
use crate::cluster::wire::command_len;
use crate::cluster::{ClusterImage, Command, Output};
use disk_pressure::DiskPressure;
pub use error::{ProposeError, QuorumError};
use log_store::{Closed, LogStore};
use network::Network;
use node_state::Claim;
use proposer::{Pending, broker_id};
use raft_log::{Place, RaftLog, metadata_dir};
pub use sealed_file::SealError;
use snapshot_file::{SnapshotFile, State};
use state_machine::{Growth, StateMachine};
use types::{NodeId, StoredMembership, TypeConfig};

/// Lowest and highest feature level that this program can work with; what a broker registers with.
pub const FEATURE_LEVELS: (u16, u16) = (FIRST_FEATURE_LEVEL, MOVES_FEATURE_LEVEL);

/// Commands that wait at most.
const WAITING_MAX: usize = 1024;
/// Bytes of one command at most: a topic of a hundred thousand partitions is below one million.
const COMMAND_BYTES_MAX: usize = 8 << 20;
/// What a leader lets pass between two signs of life to other voters, and what they wait for before they elect another.
const HEARTBEAT: Duration = Duration::from_millis(250);
const ELECTION_TIMEOUT: (Duration, Duration) = (Duration::from_millis(1000), Duration::from_millis(2000));

/// What the quorum needs to start.
#[derive(Debug, Clone)]
pub struct QuorumOptions {
    /// Disk, clock, chance.
    pub context: LogContext,
    /// The data directory that holds metadata, locked by this process.
    pub data_dir: PathBuf,
    /// Its identity.
    pub directory_id: DirectoryId,
    /// True where any data directory of this broker holds partitions: then it has been part of a cluster, and must find
    /// metadata.
    pub holds_partitions: bool,
    /// This broker, 0 or more.
    pub node_id: BrokerId,
    /// The cluster it must belong to; `None` takes the one that the directory names, or makes one where it is empty.
    pub cluster_id: Option<ClusterId>,
    /// How long a caller waits for an answer.
    pub deadline: Duration,
    /// When the log is replaced by a snapshot.
    pub snapshots: SnapshotRule,
}

/// When the log is replaced by a snapshot, and how much of it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotRule {
    /// After this many bytes of commands.
    pub log_bytes: u64,
    /// Entries kept behind it, for followers that are a little late.
    pub keep_entries: u64,
}

impl Default for SnapshotRule {
    fn default() -> SnapshotRule {
        SnapshotRule { log_bytes: 16 << 20, keep_entries: 1000 }
    }
}

/// A share in the metadata of the cluster; clones share it. Must be made and used within a tokio runtime.
#[derive(Clone)]
pub struct QuorumHandle {
    shared: Arc<Shared>,
}

struct Shared {
    raft: Raft<TypeConfig>,
    node: NodeId,
    deadline: Duration,
    waiting: mpsc::Sender<Pending>,
    images: watch::Receiver<Arc<ClusterImage>>,
    pressure: Arc<DiskPressure>,
    snapshots: Arc<SnapshotFile>,
    housekeeping: JoinHandle<()>,
    closed: Mutex<Option<Closed>>,
}

/// What was found on the disk.
struct Opened {
    log: RaftLog,
    state: State,
    snapshots: Arc<SnapshotFile>,
}

impl QuorumHandle {
    /// Opens the metadata in a data directory and takes part in its quorum; in an empty one, forms a quorum of one voter.
    ///
    /// Where this broker is the only voter, it leads when this returns, and the image has everything that was ever
    /// acknowledged.
    pub async fn start(options: QuorumOptions) -> Result<QuorumHandle, QuorumError> {
        let node = NodeId::try_from(options.node_id.0);
        let node = node.map_err(|_| QuorumError::NegativeNodeId(options.node_id))?;
        let pressure = Arc::new(DiskPressure::default());
        let opened = open_blocking(&options, &pressure).await?;
        let cluster_id = opened.log.cluster_id();
        let is_large = Arc::new(Notify::new());
        let growth =
            Growth { bytes: 0, limit_bytes: options.snapshots.log_bytes, is_large: Arc::clone(&is_large) };
        let snapshots = opened.snapshots;
        let (machine, images) = StateMachine::new(opened.state, Arc::clone(&snapshots), growth);
        let (store, closed) =
            LogStore::spawn(opened.log, Arc::clone(&pressure)).map_err(|e| QuorumError::Io {
                action: "start a thread for",
                path: options.data_dir.clone(),
                source: Arc::new(e),
            })?;
        let config = Arc::new(config(cluster_id, options.snapshots));
        let raft = Raft::new(node, config, Network, store, machine).await.map_err(stopped)?;
        let (waiting, inbox) = mpsc::channel(WAITING_MAX);
        tokio::spawn(proposer::run(raft.clone(), inbox));
        let housekeeping = tokio::spawn(build_snapshots(raft.clone(), is_large));
        let shared = Shared {
            raft,
            node,
            deadline: options.deadline,
            waiting,
            images,
            pressure,
            snapshots,
            housekeeping,
            closed: Mutex::new(Some(closed)),
        };
        let handle = QuorumHandle { shared: Arc::new(shared) };
        handle.begin_to_lead().await?;
        check_feature_level(&handle.image())?;
        Ok(handle)
    }

    /// Nobody else can be waited for where this is the only voter: it becomes leader at once, and knows that everything in
    /// its log is committed before it says anything.
    async fn begin_to_lead(&self) -> Result<(), QuorumError> {
        let raft = &self.shared.raft;
        let node = self.shared.node;
        if !raft.is_initialized().await.map_err(stopped)? {
            raft.initialize(BTreeMap::from([(node, EmptyNode {})])).await.map_err(stopped)?;
        } else if self.voters() == [node] {
            raft.trigger().elect().await.map_err(stopped)?;
        } else {
            return Ok(());
        }
        let wait = raft.wait(Some(self.shared.deadline));
        let led = wait.state(ServerState::Leader, "the only voter leads").await;
        led.map_err(|_| QuorumError::NoLeader(self.shared.deadline))?;
        // Behind the first entry of the leader's term, without which older ones may not be taken for committed.
        self.read_barrier().await.map_err(stopped)?;
        Ok(())
    }

    fn voters(&self) -> Vec<NodeId> {
        self.shared.raft.metrics().borrow().membership_config.voter_ids().collect()
    }

    /// Proposes a command. Returns once it is carried out here: the answer is true of [`QuorumHandle::image`].
    pub async fn propose(&self, command: Command) -> Result<Output, ProposeError> {
        self.propose_within(command, self.shared.deadline).await
    }

    /// As [`QuorumHandle::propose`], with another deadline.
    pub async fn propose_within(&self, command: Command, deadline: Duration) -> Result<Output, ProposeError> {
        let bytes = command_len(&command);
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: COMMAND_BYTES_MAX });
        }
        if self.shared.pressure.is_full() {
            return Err(ProposeError::DiskFull);
        }
        let (answer, answered) = oneshot::channel();
        let pending = Pending { command, bytes, answer };
        self.shared.waiting.try_send(pending).map_err(|_| ProposeError::Overloaded)?;
        match timeout(deadline, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::Stopped { reason: "it was shut down".to_owned() }),
            Err(_) => Err(ProposeError::TimedOut(deadline)),
        }
    }

    /// The image as it is known here.
    #[must_use]
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.shared.images.borrow())
    }

    /// Every image from now on; some may be skipped, the last one never is.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.shared.images.clone()
    }

    /// An image with everything that was acknowledged to anybody before this was called. Only the leader can tell.
    pub async fn read_barrier(&self) -> Result<Arc<ClusterImage>, ProposeError> {
        let deadline = self.shared.deadline;
        match timeout(deadline, self.shared.raft.ensure_linearizable()).await {
            Ok(Ok(_)) => Ok(self.image()),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id.and_then(broker_id) })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(e))) => Err(ProposeError::Stopped { reason: e.to_string() }),
            Err(_) => Err(ProposeError::TimedOut(deadline)),
        }
    }

    /// Who leads the quorum, where that is known.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.shared.raft.metrics().borrow().current_leader.and_then(broker_id)
    }

    /// Returns when the quorum cannot go on in this process, with the reason: the disk of its log failed. The process should
    /// end then. Never returns where it was shut down.
    pub async fn failed(&self) -> QuorumError {
        let mut metrics = self.shared.raft.metrics();
        loop {
            if let Err(e) = metrics.borrow_and_update().running_state.clone()
                && e != Fatal::Stopped
            {
                return stopped(e);
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops taking part and closes the log. Commands under way are answered with [`ProposeError::Stopped`].
    pub async fn shutdown(&self) -> Result<(), QuorumError> {
        self.shared.pressure.close();
        self.shared.housekeeping.abort();
        self.shared.raft.shutdown().await.map_err(stopped)?;
        let snapshots = Arc::clone(&self.shared.snapshots);
        spawn_blocking(move || snapshots.close()).await.map_err(stopped)?;
        let closed = self.shared.closed.lock().take();
        match closed {
            None => Ok(()),
            Some(closed) => closed.await.map_err(stopped)?,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // It holds Raft, and a write to a full disk holds the log's thread: both would go on for ever.
        self.housekeeping.abort();
        self.pressure.close();
    }
}

impl std::fmt::Debug for QuorumHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuorumHandle").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

async fn open_blocking(options: &QuorumOptions, pressure: &Arc<DiskPressure>) -> Result<Opened, QuorumError> {
    let place = Place {
        context: options.context.clone(),
        data_dir: options.data_dir.clone(),
        claim: Claim {
            node: options.node_id,
            cluster_id: options.cluster_id,
            directory_id: options.directory_id,
        },
        holds_partitions: options.holds_partitions,
    };
    let pressure = Arc::clone(pressure);
    spawn_blocking(move || open(&place, pressure)).await.map_err(stopped)?
}

fn open(place: &Place, pressure: Arc<DiskPressure>) -> Result<Opened, QuorumError> {
    let log = RaftLog::open(place)?;
    let dir = metadata_dir(&place.data_dir);
    let snapshots = SnapshotFile::new(Arc::clone(&place.context.disk), &dir, pressure);
    let found = snapshots.read()?.map(|(state, _)| state);
    if found.as_ref().and_then(|state| state.last) < log.purged() {
        let reason = "the log's head was removed, but the snapshot that stands for it is missing".to_owned();
        return Err(QuorumError::Lost { path: dir, reason });
    }
    let state = found.unwrap_or_else(|| State {
        last: None,
        membership: StoredMembership::default(),
        image: ClusterImage::new(log.cluster_id()),
    });
    if state.image.cluster_id() != log.cluster_id() {
        let (found, expected) = (state.image.cluster_id().to_string(), log.cluster_id().to_string());
        return Err(QuorumError::Foreign { path: dir, what: "cluster id of the snapshot", found, expected });
    }
    check_feature_level(&state.image)?;
    Ok(Opened { log, state, snapshots: Arc::new(snapshots) })
}

fn check_feature_level(image: &ClusterImage) -> Result<(), QuorumError> {
    let (level, (lowest, highest)) = (image.feature_level(), FEATURE_LEVELS);
    if (lowest..=highest).contains(&level) {
        return Ok(());
    }
    Err(QuorumError::FeatureLevel { level, lowest, highest })
}

fn config(cluster_id: ClusterId, snapshots: SnapshotRule) -> Config {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: cluster_id.to_string(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_TIMEOUT.0),
        election_timeout_max: ms(ELECTION_TIMEOUT.1),
        // Entries differ in size by a factor of a thousand, so bytes decide, not their number.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: snapshots.keep_entries,
        ..Config::default()
    }
}

/// Has a snapshot built each time the log has grown enough; openraft removes the log behind it.
async fn build_snapshots(raft: Raft<TypeConfig>, is_large: Arc<Notify>) {
    loop {
        is_large.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

fn stopped(e: impl std::fmt::Display) -> QuorumError {
    QuorumError::Stopped { reason: e.to_string() }
}

#[cfg(test)]
mod tests;
