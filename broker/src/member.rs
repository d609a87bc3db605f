//! This broker as the cluster knows it: registered when it starts, leading once its logs are open, fenced before it goes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use floodmark_replication::cluster::image::Endpoint;
use floodmark_replication::cluster::{Command, Output};
use floodmark_replication::quorum::{FEATURE_LEVELS, ProposeError, QuorumHandle, QuorumOptions, Seat};
use tokio::time::{Instant, sleep};

use crate::error::StartError;
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
    /// The identities of all data directories, the one with metadata first.
    pub(crate) directories: Vec<uuid::Uuid>,
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
    /// A data directory of the registration before is not there any more.
    pub(crate) has_lost_directory: bool,
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
            Ok((epoch, has_lost_directory)) => Ok(Member {
                quorum,
                id: options.node_id,
                epoch,
                is_reachable: options.address.is_some(),
                has_lost_directory,
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
        loop {
            match self.quorum.propose(lose.clone()).await {
                Ok(_) => return Ok(()),
                // Said twice it changes nothing more.
                Err(e) if e.is_retryable() => tracing::info!("waiting to say what was lost: {e}"),
                Err(e) => return Err(StartError::NotRegistered { reason: e.to_string() }),
            }
        }
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

/// Registers once this broker knows everything that the cluster has agreed on. Answers with its epoch, and whether it had a data directory
/// before that it has no more.
async fn register(quorum: &QuorumHandle, joining: &Joining) -> Result<(BrokerEpoch, bool), StartError> {
    let image = catch_up(quorum, &joining.readiness).await?;
    let before = image.broker(joining.quorum.node_id).map(|before| before.directories.clone());
    let has_lost = before.is_some_and(|ids| ids.iter().any(|id| !joining.directories.contains(id)));
    if image.version() == 0 {
        // A new cluster begins with all that this program knows.
        loop {
            match quorum.propose(Command::SetFeatureLevel { level: FEATURE_LEVELS.1 }).await {
                // Brokers that start together may all propose it.
                Ok(_) | Err(ProposeError::Refused(_)) => break,
                Err(e) if e.is_retryable() => tracing::info!("waiting to begin the cluster: {e}"),
                Err(e) => return Err(StartError::NotRegistered { reason: e.to_string() }),
            }
        }
    }
    let random = &joining.quorum.context.random;
    let bits = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
    let command = Command::RegisterBroker {
        broker: joining.quorum.node_id,
        incarnation: uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid(),
        rack: joining.rack.clone(),
        endpoints: joining.endpoints.clone(),
        feature_levels: FEATURE_LEVELS,
        directories: joining.directories.clone(),
    };
    loop {
        match quorum.propose(command.clone()).await {
            Ok(Output::BrokerRegistered { epoch }) => return Ok((epoch, has_lost)),
            // The same incarnation may register again.
            Err(e) if e.is_retryable() => tracing::info!("waiting to be registered: {e}"),
            other => return Err(StartError::NotRegistered { reason: said(other) }),
        }
    }
}

/// Waits for a leader, and until the image here has all that it had.
async fn catch_up(
    quorum: &QuorumHandle,
    readiness: &Readiness,
) -> Result<Arc<floodmark_replication::cluster::ClusterImage>, StartError> {
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
