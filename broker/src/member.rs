//! This broker as the cluster knows it: registered when it starts, leading once its logs are open, fenced before it goes.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use floodmark_replication::cluster::image::{Endpoint, MOVES_FEATURE_LEVEL};
use floodmark_replication::cluster::{Broker, ClusterImage, Command, CommandError, Output};
use floodmark_replication::quorum::{FEATURE_LEVELS, ProposeError, QuorumHandle, QuorumOptions, Seat};
use floodmark_replication::registry::missing_logs;
use floodmark_storage::data_dir::DataDir;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::error::StartError;
use crate::lost_replicas;
use crate::readiness::Readiness;

/// A broker that stops does not wait long to say so: others notice anyway.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);
/// How long one try to get up to date takes at most.
const TRY_TIME: Duration = Duration::from_secs(2);
/// What is waited for is told at once, and again after this.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// How often what is waited for is looked at.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// What it takes to become a member.
pub(crate) struct Joining {
    pub(crate) quorum: QuorumOptions,
    /// What other brokers see meanwhile.
    pub(crate) seat: Seat,
    /// All data directories, the one with metadata first.
    pub(crate) data_dirs: Arc<[DataDir]>,
    pub(crate) rack: Option<String>,
    /// Where clients and brokers are told to connect, by door; Kafka's first.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Is told what is waited for.
    pub(crate) readiness: Arc<Readiness>,
}

/// A registered broker.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) quorum: QuorumHandle,
    pub(crate) id: BrokerId,
    /// Of this registration.
    pub(crate) epoch: BrokerEpoch,
    /// Whether other brokers can reach this one.
    pub(crate) is_reachable: bool,
    /// Logs that were on no disk when it came, and are made since. What was lost with them, the cluster knew before.
    pub(crate) missing: BTreeSet<(TopicId, u32)>,
}

/// What a registration comes to.
struct Registered {
    epoch: BrokerEpoch,
    missing: BTreeSet<(TopicId, u32)>,
}

impl Member {
    /// Takes part in the quorum and registers, however long that takes, unless `stop` comes first. The broker leads nothing yet.
    pub(crate) async fn join(
        joining: Joining,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Member, StartError> {
        let mut stop = pin!(stop);
        let Joining { quorum: options, seat, readiness, .. } = &joining;
        let starting = QuorumHandle::start_at(options.clone(), seat);
        let quorum = tokio::select! {
            started = telling(starting, seat, readiness) => started?,
            () = &mut stop => return Err(StartError::Stopped),
        };
        readiness.waits_for("this broker does not have all yet that the metadata quorum has agreed on");
        let registered = tokio::select! {
            registered = register(&quorum, &joining) => registered,
            () = &mut stop => Err(StartError::Stopped),
        };
        match registered {
            Ok(Registered { epoch, missing }) => Ok(Member {
                quorum,
                id: options.node_id,
                epoch,
                is_reachable: options.address.is_some(),
                missing,
            }),
            Err(e) => {
                // Its log is closed before the directory is let go.
                quorum.shutdown().await?;
                Err(e)
            }
        }
    }

    /// Says what this broker ought to have and does not: it must not count as holding it.
    pub(crate) async fn lose(&self, partitions: Vec<(TopicId, u32)>) -> Result<(), StartError> {
        let lose = Command::LoseReplicas { broker: self.id, epoch: self.epoch, partitions };
        Ok(have_known(&self.quorum, lose).await?)
    }

    /// Lets go of every leadership.
    pub(crate) async fn fence(&self) {
        let fence = Command::FenceBroker { broker: self.id, epoch: self.epoch };
        if let Err(e) = self.quorum.propose_within(fence, LEAVE_DEADLINE).await {
            tracing::warn!(error = %e, "the cluster was not told that this broker stops");
        }
    }

    /// Closes the log of metadata.
    pub(crate) async fn leave(&self) {
        if let Err(e) = self.quorum.shutdown().await {
            tracing::error!(error = %e, "the log of metadata was not closed");
        }
    }
}

/// Waits for `starting`, and has readiness say what that waits for.
async fn telling<T>(starting: impl Future<Output = T>, seat: &Seat, readiness: &Readiness) -> T {
    let mut starting = pin!(starting);
    loop {
        tokio::select! {
            started = &mut starting => return started,
            () = sleep(LOOK_AFTER) => {
                if let Some(what) = seat.waits_for() {
                    readiness.waits_for(what);
                }
            }
        }
    }
}

impl Joining {
    fn id(&self) -> BrokerId {
        self.quorum.node_id
    }

    /// The identities of the data directories.
    fn directories(&self) -> Vec<Uuid> {
        self.data_dirs.iter().map(|dir| dir.id().0).collect()
    }

    /// The registration in whose name this broker may say what is lost.
    fn before<'i>(&self, image: &'i ClusterImage) -> Option<&'i Arc<Broker>> {
        // In a cluster of older programs nobody can be told before this one is registered as newer.
        let knows_losses = image.feature_level() >= MOVES_FEATURE_LEVEL;
        let before = image.broker(self.id()).filter(|_| knows_losses)?;
        // Another disk says nothing in the name of this one; it is refused.
        let first = before.directories.first();
        first.is_none_or(|first| self.directories().first() == Some(first)).then_some(before)
    }

    /// The logs that should lie in the data directories and do not.
    async fn missing(&self, image: &Arc<ClusterImage>) -> Result<BTreeSet<(TopicId, u32)>, StartError> {
        let (data_dirs, image, id) = (Arc::clone(&self.data_dirs), Arc::clone(image), self.id());
        let look = move || missing_logs(&data_dirs, &image, id);
        // A look that panicked has found nothing out.
        spawn_blocking(look).await.map_err(|_| StartError::Ended)?.map_err(StartError::DataDir)
    }
}

/// Registers once this broker knows everything that the cluster has agreed on, and the cluster knows what this broker has lost. That comes
/// first: nothing has been made by then in the place of what is missing, and the registration before still says which directories there were.
/// Whenever this process ends, the next one finds the same, or the cluster knows.
async fn register(quorum: &QuorumHandle, joining: &Joining) -> Result<Registered, StartError> {
    let (missing, is_told) = loop {
        let image = catch_up(quorum, &joining.readiness).await?;
        if image.version() == 0 {
            begin_cluster(quorum).await?;
        }
        let missing = joining.missing(&image).await?;
        let Some(before) = joining.before(&image) else { break (missing, false) };
        let directories = joining.directories();
        let has_lost_directory = before.directories.iter().any(|id| !directories.contains(id));
        match tell_lost(quorum, joining, before.epoch, (&missing, has_lost_directory)).await {
            Ok(()) => break (missing, true),
            // An earlier process of this broker ended while its registration was on the way. There are no more of those than such processes.
            Err(Untold::Overtaken(e)) => tracing::info!("looking again at what the cluster knows: {e}"),
            Err(Untold::Failed(e)) => return Err(e),
        }
    };
    let random = &joining.quorum.context.random;
    let bits = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
    let command = Command::RegisterBroker {
        broker: joining.id(),
        incarnation: uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid(),
        rack: joining.rack.clone(),
        endpoints: joining.endpoints.clone(),
        feature_levels: FEATURE_LEVELS,
        directories: joining.directories(),
    };
    let epoch = loop {
        match quorum.propose(command.clone()).await {
            Ok(Output::BrokerRegistered { epoch }) => break epoch,
            // The same incarnation may register again.
            Err(e) if e.is_retryable() => tracing::info!("waiting to be registered: {e}"),
            other => return Err(StartError::NotRegistered { reason: said(other) }),
        }
    };
    if !is_told {
        tell_lost(quorum, joining, epoch, (&missing, false)).await?;
    }
    Ok(Registered { epoch, missing })
}

/// A new cluster begins with all that this program knows.
async fn begin_cluster(quorum: &QuorumHandle) -> Result<(), StartError> {
    loop {
        match quorum.propose(Command::SetFeatureLevel { level: FEATURE_LEVELS.1 }).await {
            // Brokers that start together may all propose it.
            Ok(_) | Err(ProposeError::Refused(_)) => return Ok(()),
            Err(e) if e.is_retryable() => tracing::info!("waiting to begin the cluster: {e}"),
            Err(e) => return Err(StartError::NotRegistered { reason: e.to_string() }),
        }
    }
}

/// Tells the cluster what is lost of the logs that are missing, in the name of the registration with this epoch.
async fn tell_lost(
    quorum: &QuorumHandle,
    joining: &Joining,
    epoch: BrokerEpoch,
    (missing, has_lost_directory): (&BTreeSet<(TopicId, u32)>, bool),
) -> Result<(), Untold> {
    if missing.is_empty() {
        return Ok(());
    }
    let broker = joining.id();
    // From here on it is given nothing and joins no in-sync set, on the strength of what it had: what the image says behind that stays so.
    have_known(quorum, Command::FenceBroker { broker, epoch }).await?;
    let image = catch_up(quorum, &joining.readiness).await?;
    let lost = lost_replicas::at_start(&image, broker, missing, has_lost_directory);
    if lost.is_empty() {
        return Ok(());
    }
    lost_replicas::tell_at_start(&image, &lost, &joining.data_dirs);
    if image.feature_level() < MOVES_FEATURE_LEVEL {
        have_known(quorum, Command::SetFeatureLevel { level: MOVES_FEATURE_LEVEL }).await?;
    }
    have_known(quorum, Command::LoseReplicas { broker, epoch, partitions: lost }).await
}

/// Why the cluster does not know what it was told.
enum Untold {
    /// The registration in whose name it was said is not this broker's last one.
    Overtaken(CommandError),
    /// The start ends.
    Failed(StartError),
}

impl From<StartError> for Untold {
    fn from(e: StartError) -> Untold {
        Untold::Failed(e)
    }
}

impl From<Untold> for StartError {
    fn from(untold: Untold) -> StartError {
        match untold {
            Untold::Overtaken(e) => StartError::NotRegistered { reason: e.to_string() },
            Untold::Failed(e) => e,
        }
    }
}

/// Returns once the cluster has agreed on it. For what, said twice, changes nothing more.
async fn have_known(quorum: &QuorumHandle, command: Command) -> Result<(), Untold> {
    use CommandError::{StaleBrokerEpoch, UnknownBroker};
    loop {
        match quorum.propose(command.clone()).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_retryable() => tracing::info!("waiting to say what was lost: {e}"),
            Err(ProposeError::Refused(e @ (StaleBrokerEpoch { .. } | UnknownBroker { .. }))) => {
                return Err(Untold::Overtaken(e));
            }
            Err(e) => return Err(Untold::Failed(StartError::NotRegistered { reason: e.to_string() })),
        }
    }
}

/// Waits for a leader, and until the image here has all that it had.
async fn catch_up(quorum: &QuorumHandle, readiness: &Readiness) -> Result<Arc<ClusterImage>, StartError> {
    let mut told: Option<Instant> = None;
    loop {
        match quorum.read_barrier_within(TRY_TIME).await {
            Ok(image) => return Ok(image),
            Err(e) if e.is_retryable() => {
                let voters: Vec<String> =
                    quorum.membership().voters.iter().map(|(broker, _)| broker.to_string()).collect();
                let what = format!("a majority of the voters (brokers {}) is needed: {e}", voters.join(", "));
                if told.is_none_or(|at| at.elapsed() >= TELL_AFTER) {
                    tracing::info!("waiting: {what}");
                    told = Some(Instant::now());
                }
                readiness.waits_for(what);
            }
            Err(e) => return Err(StartError::NotRegistered { reason: e.to_string() }),
        }
    }
}

fn said(answer: Result<Output, ProposeError>) -> String {
    match answer {
        Ok(output) => format!("{output:?} is no answer to a registration"),
        Err(e) => e.to_string(),
    }
}

#[cfg(test)]
mod tests;
