//! Cluster metadata by Raft: a log of commands, and the image they make. The only place that names openraft, and the only way
//! to change an image that others see.
//!
//! - this file: [`QuorumHandle`]: propose, read, watch, stop
//! - `raft_config`: what openraft is told; `raft_log`: entries on storage's log; `node_state` the vote; `opening` finds them; `log_store` the thread that owns both
//! - `state_machine`: entries applied; `snapshot_file` what stands for those that were removed
//! - `proposer`: commands that wait share an entry; `forward`: they go to whoever leads
//! - [`seat`](Seat), `service`: what other brokers ask of this one; `network`, `messages`: what openraft asks of them
//! - `forming`: how a broker comes to a cluster; `members`: who is in it
//! - `candidacy`, `canvass`: when it wants to lead; `leadership`, `acks`: whether it may decide; `silence`: how it lets others lead
//! - `contact`: when leaders were followed last; `reach`: who does not answer
//! - `types`, `sealed_file`, `disk_pressure`, `error`

mod acks;
mod candidacy;
mod canvass;
mod contact;
mod disk_pressure;
mod error;
mod forming;
mod forward;
mod leadership;
mod local_status;
mod log_store;
mod members;
mod messages;
mod network;
mod node_state;
mod opening;
mod proposer;
mod raft_config;
mod raft_log;
mod reach;
mod sealed_file;
mod seat;
mod service;
mod silence;
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
use floodmark_storage::random::Random;
use openraft::error::{CheckIsLeaderError, Fatal, RaftError};
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use crate::cluster::image::{FIRST_FEATURE_LEVEL, STAYING_FEATURE_LEVEL};
use crate::cluster::{ClusterImage, Command, CommandError};
use crate::rpc::{Address, PeerIdentity, Peers};
use crate::vital::Vitals;
use acks::Acks;
use contact::Contact;
use disk_pressure::DiskPressure;
pub use error::{MembershipError, ProposeError, QuorumError};
pub use leadership::Leadership;
use leadership::Watched;
pub use local_status::LocalStatus;
use log_store::{Closed, LogStore};
pub use members::{QuorumMembership, QuorumNode, QuorumStatus};
use network::Network;
use node_state::{Claim, NodeState};
use opening::{Opened, check_feature_level};
use proposer::{Answer, Pending};
use raft_log::{Part, Place};
pub use sealed_file::SealError;
pub use seat::Seat;
use silence::Silence;
use snapshot_file::SnapshotFile;
use state_machine::{Growth, StateMachine};
use types::{Membership, Node, NodeId, TypeConfig, broker_id, node_id};

/// Code that was generated from quorum.proto.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the words are in quorum.proto"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/floodmark.quorum.rs"));
}

/// Lowest and highest feature level that this program can work with; what a broker registers with.
pub const FEATURE_LEVELS: (u16, u16) = (FIRST_FEATURE_LEVEL, FEATURE_LEVEL_MAX);
/// Another one where a test of upgrades has asked for an older or a newer program.
const FEATURE_LEVEL_MAX: u16 = match () {
    () if cfg!(feature = "older-program") => FIRST_FEATURE_LEVEL,
    () if cfg!(feature = "newer-program") => STAYING_FEATURE_LEVEL + 1,
    () => STAYING_FEATURE_LEVEL,
};

/// Commands that wait at most.
const WAITING_MAX: usize = 1024;
/// Bytes of one command at most: a topic of a hundred thousand partitions is below one million.
const COMMAND_BYTES_MAX: usize = 8 << 20;
/// Bytes of a message between nodes: an entry that was filled up and then got the largest command.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

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
    /// The brokers that form the cluster, and where any member can be asked. Empty where this broker is alone.
    pub voters: Vec<(BrokerId, Address)>,
    /// Where other brokers reach this one; `None` where they cannot.
    pub address: Option<Address>,
    /// How often nodes are in touch.
    pub timing: QuorumTiming,
    /// Hears of panics.
    pub vitals: Vitals,
}

/// How often the leader is heard of, and how long it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuorumTiming {
    /// Between two signs of life.
    pub heartbeat: Duration,
    /// Without one for this long a voter wants to lead; for up to twice this long where others might want to, too.
    pub election_timeout: Duration,
}

impl Default for QuorumTiming {
    fn default() -> QuorumTiming {
        QuorumTiming { heartbeat: Duration::from_millis(100), election_timeout: Duration::from_millis(300) }
    }
}

impl QuorumTiming {
    /// For so long after it was heard by a majority a leader is the only one: no voter that heard it elects another.
    fn lease(self) -> Duration {
        self.election_timeout * 2
    }
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

pub(crate) struct Shared {
    raft: Raft<TypeConfig>,
    node: NodeId,
    deadline: Duration,
    waiting: mpsc::Sender<Pending>,
    images: watch::Receiver<Arc<ClusterImage>>,
    pressure: Arc<DiskPressure>,
    snapshots: Arc<SnapshotFile>,
    /// Tasks that end with this.
    tasks: Vec<JoinHandle<()>>,
    closed: Mutex<Option<Closed>>,
    peers: Peers,
    random: Random,
    acks: Arc<Acks>,
    silence: Arc<Silence>,
    leadership: watch::Receiver<Option<Leadership>>,
    /// Held while the membership changes.
    changes: tokio::sync::Mutex<()>,
    /// Held while a snapshot comes.
    receiving: tokio::sync::Mutex<()>,
    /// The last entry that was there at the start.
    settled: Option<u64>,
    contact: Arc<Contact>,
    election_timeout: Duration,
    vitals: Vitals,
}

impl QuorumHandle {
    /// Opens the metadata in a data directory and takes part in its quorum, seen by nobody else; in an empty directory, forms a quorum of one
    /// voter.
    pub async fn start(options: QuorumOptions) -> Result<QuorumHandle, QuorumError> {
        let seat = Seat::new(&options);
        QuorumHandle::start_at(options, &seat).await
    }

    /// Opens the metadata in a data directory and takes part in its quorum. With an empty one it first comes to a cluster: it forms one where
    /// `options.voters` is empty, or has this broker as the lowest of brokers that are all there and all new; otherwise it waits, as long as it
    /// takes, until it is found to be a founder or is let in. `seat` must be served to others meanwhile.
    ///
    /// Where this broker is the only voter, it leads when this returns, and the image has everything that was ever acknowledged. Among several
    /// it may return before anybody leads.
    pub async fn start_at(options: QuorumOptions, seat: &Seat) -> Result<QuorumHandle, QuorumError> {
        if options.node_id.0 < 0 {
            return Err(QuorumError::NegativeNodeId(options.node_id));
        }
        let place = place(&options);
        let pressure = Arc::new(DiskPressure::default());
        let opened = match opening::find(place.clone()).await? {
            Some(file) => opening::open(&place, file, &pressure).await?,
            None => {
                let part = part(&options, seat).await?;
                opening::begin(&place, part, &pressure).await?
            }
        };
        let state = opened.log.state().clone();
        seat.belong(state.cluster_id, membership_of(&state));
        let handle = QuorumHandle { shared: Arc::new(Shared::start(&options, opened, pressure).await?) };
        seat.take_part(&handle.shared);
        let finishing = members::finish_changes(Arc::downgrade(&handle.shared), handle.leadership());
        tokio::spawn(options.vitals.keep("finishing changes of voters", finishing));
        handle.begin_to_lead(&state).await?;
        check_feature_level(&handle.image())?;
        seat.wait_for(None);
        Ok(handle)
    }

    /// Forms the cluster where that is this node's part and it has not done so yet. Nobody else can be waited for where this is the only voter:
    /// it becomes leader at once, and knows that everything in its log is committed before it says anything.
    async fn begin_to_lead(&self, state: &NodeState) -> Result<(), QuorumError> {
        let Shared { raft, node, deadline, .. } = &*self.shared;
        let is_initialized = raft.is_initialized().await.map_err(stopped)?;
        let is_alone = if !is_initialized && !state.is_newcomer {
            let founders = match state.founders.is_empty() {
                true => BTreeMap::from([(*node, Node::default())]),
                false => state.founders.clone(),
            };
            let is_alone = founders.len() == 1;
            raft.initialize(founders).await.map_err(stopped)?;
            is_alone
        } else if self.voters() == [*node] {
            raft.trigger().elect().await.map_err(stopped)?;
            true
        } else {
            false
        };
        if !is_alone {
            return Ok(());
        }
        let wait = raft.wait(Some(*deadline));
        let led = wait.state(ServerState::Leader, "the only voter leads").await;
        led.map_err(|_| QuorumError::NoLeader(*deadline))?;
        // Behind the first entry of the leader's term, without which older ones may not be taken for committed.
        self.read_barrier().await.map_err(stopped)?;
        Ok(())
    }

    fn voters(&self) -> Vec<NodeId> {
        self.shared.membership().voter_ids().collect()
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

    /// Whom to ask: who led the quorum last, as far as is known here. That one may be long gone.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.shared.leader_broker()
    }

    /// Whether this broker may decide for the cluster: `Some` once it leads, and its image has everything that was acknowledged; `None` as soon
    /// as it does not lead any more, or no majority has followed it for as long as another might have been elected.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Option<Leadership>> {
        self.shared.leadership.clone()
    }

    /// How long ago a majority last followed this broker; `None` where it does not lead or none has yet. Zero where it is the only voter.
    #[must_use]
    pub fn since_quorum_ack(&self) -> Option<Duration> {
        self.shared.since_quorum_ack()
    }

    /// How long after a majority was heard no other leader can have been elected.
    #[must_use]
    pub fn leader_lease(&self) -> Duration {
        self.shared.lease()
    }

    /// The other brokers.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.shared.peers
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

    /// What the broker cannot be without, for whatever else of it works on metadata.
    #[must_use]
    pub fn vitals(&self) -> &Vitals {
        &self.shared.vitals
    }

    /// Stops taking part and closes the log. Commands under way are answered with [`ProposeError::Stopped`].
    pub async fn shutdown(&self) -> Result<(), QuorumError> {
        self.shared.pressure.close();
        self.shared.tasks.iter().for_each(JoinHandle::abort);
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
        self.tasks.iter().for_each(JoinHandle::abort);
        self.pressure.close();
    }
}

impl Shared {
    async fn start(
        options: &QuorumOptions,
        opened: Opened,
        pressure: Arc<DiskPressure>,
    ) -> Result<Shared, QuorumError> {
        let Opened { log, state, snapshots } = opened;
        let (node, cluster_id) = (log.state().node, log.cluster_id());
        let settled = log.last().map(|last| last.index);
        let has_voted = log.vote().is_some();
        let is_large = Arc::new(Notify::new());
        let growth =
            Growth { bytes: 0, limit_bytes: options.snapshots.log_bytes, is_large: Arc::clone(&is_large) };
        let (machine, images) = StateMachine::new(state, Arc::clone(&snapshots), growth);
        let (store, closed) = LogStore::spawn(log, Arc::clone(&pressure)).map_err(|e| QuorumError::Io {
            action: "start a thread for",
            path: options.data_dir.clone(),
            source: Arc::new(e),
        })?;
        let identity = PeerIdentity { cluster_id, broker: options.node_id };
        let peers = Peers::new(identity, options.voters.iter().cloned().collect());
        peers.follow(images.clone());
        let (acks, silence) = (Arc::new(Acks::default()), Arc::new(Silence::default()));
        let lease = options.timing.lease();
        let contact = Arc::new(Contact::new(Instant::now(), has_voted, lease));
        let random = options.context.random.clone();
        let network = Network {
            peers: peers.clone(),
            acks: Arc::clone(&acks),
            silence: Arc::clone(&silence),
            contact: Arc::clone(&contact),
            lease,
            reach: Arc::default(),
            random: random.clone(),
        };
        let config = Arc::new(raft_config::of(cluster_id, options));
        let raft = Raft::new(node, config, network.clone(), store, machine).await.map_err(stopped)?;
        let (waiting, inbox) = mpsc::channel(WAITING_MAX);
        let (told, leadership) = watch::channel(None);
        let watched = Watched {
            raft: raft.clone(),
            acks: Arc::clone(&acks),
            silence: Arc::clone(&silence),
            contact: Arc::clone(&contact),
            settled,
            lease,
            period: options.timing.heartbeat,
        };
        let vitals = options.vitals.clone();
        tokio::spawn(vitals.keep("proposing to the metadata quorum", proposer::run(raft.clone(), inbox)));
        let noting = members::note_addresses(raft.clone(), peers.clone());
        let standing = candidacy::stand(raft.clone(), network, options.timing);
        let tasks = vec![
            tokio::spawn(
                vitals.keep("taking snapshots of metadata", build_snapshots(raft.clone(), is_large)),
            ),
            tokio::spawn(vitals.keep("following who leads the metadata", leadership::follow(watched, told))),
            tokio::spawn(vitals.keep("noting addresses of brokers", noting)),
            tokio::spawn(vitals.keep("standing for the metadata quorum", standing)),
        ];
        Ok(Shared {
            raft,
            node,
            deadline: options.deadline,
            waiting,
            images,
            pressure,
            snapshots,
            tasks,
            closed: Mutex::new(Some(closed)),
            peers,
            random,
            acks,
            silence,
            leadership,
            changes: tokio::sync::Mutex::default(),
            receiving: tokio::sync::Mutex::default(),
            settled,
            contact,
            election_timeout: options.timing.election_timeout,
            vitals,
        })
    }

    /// Proposes a command to this node. It must lead.
    async fn propose_here(
        &self,
        command: Command,
        bytes: usize,
        until: Instant,
    ) -> Result<Answer, ProposeError> {
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes, limit: COMMAND_BYTES_MAX });
        }
        let (needed, current) = (command.feature_level(), self.images.borrow().feature_level());
        if needed > current {
            // Before it is in the log, where an older program would stop at it.
            return Err(CommandError::NeedsFeatureLevel { needed, current }.into());
        }
        if self.pressure.is_full() {
            return Err(ProposeError::DiskFull);
        }
        let (answer, answered) = oneshot::channel();
        let pending = Pending { command, bytes, answer };
        self.waiting.try_send(pending).map_err(|_| ProposeError::Overloaded)?;
        match timeout_at(until, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::Stopped { reason: "it was shut down".to_owned() }),
            Err(_) => Err(ProposeError::TimedOut(Duration::ZERO)),
        }
    }

    /// An entry that an image must have to show everything that was acknowledged before the call. Only the leader can tell.
    async fn read_index(&self, until: Instant) -> Result<u64, ProposeError> {
        match timeout_at(until, self.raft.ensure_linearizable()).await {
            Ok(Ok(read)) => Ok(read.map_or(0, |read| read.index).max(self.settled.unwrap_or(0))),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                Err(ProposeError::NotLeader { leader: to.leader_id.map(broker_id) })
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {
                Err(ProposeError::NotLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(e))) => Err(ProposeError::Stopped { reason: e.to_string() }),
            Err(_) => Err(ProposeError::TimedOut(Duration::ZERO)),
        }
    }

    fn since_quorum_ack(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        if metrics.state != ServerState::Leader {
            return None;
        }
        let configs = metrics.membership_config.membership().get_joint_config();
        self.acks.since(configs, self.node, metrics.current_term, Instant::now())
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(self.raft.config().election_timeout_max)
    }

    /// True while this voter helps nobody to lead: a leader may count on it, or it leads a majority itself.
    fn holds_still(&self) -> bool {
        self.leadership.borrow().is_some() || self.contact.is_bound(Instant::now())
    }

    /// How long it is since any leader could count on this voter.
    fn silent(&self) -> Duration {
        if self.leadership.borrow().is_some() { Duration::ZERO } else { self.contact.silent(Instant::now()) }
    }

    /// Has another node become leader, without waiting for it.
    fn step_aside(&self) {
        self.silence.begin(Instant::now(), self.lease());
    }
}

impl std::fmt::Debug for QuorumHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuorumHandle").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The part of a broker whose directory is empty.
async fn part(options: &QuorumOptions, seat: &Seat) -> Result<Part, QuorumError> {
    let new_id = || raft_log::new_cluster_id(&options.context);
    if !options.voters.is_empty() {
        return forming::find_part(seat, &options.voters, new_id).await;
    }
    let node = node_id(options.node_id, 0).ok_or(QuorumError::NegativeNodeId(options.node_id))?;
    let known = Node { directory_id: Some(options.directory_id), address: options.address.clone() };
    let cluster_id = options.cluster_id.unwrap_or_else(new_id);
    Ok(Part { cluster_id, node, founders: BTreeMap::from([(node, known)]), is_newcomer: false })
}

/// The cluster's nodes as the disk of a node had them when it was taken into use.
fn membership_of(state: &NodeState) -> Membership {
    if state.is_newcomer {
        return Membership::default();
    }
    Membership::new(vec![state.founders.keys().copied().collect()], state.founders.clone())
}

fn place(options: &QuorumOptions) -> Place {
    Place {
        context: options.context.clone(),
        data_dir: options.data_dir.clone(),
        claim: Claim {
            node: options.node_id,
            cluster_id: options.cluster_id,
            directory_id: options.directory_id,
        },
        holds_partitions: options.holds_partitions,
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
