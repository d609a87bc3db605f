//! This broker as the cluster knows it: registered when it starts, leading once its logs are open, fenced before it goes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId, TopicId};
use floodmark_replication::cluster::image::{Endpoint, InSyncDefaults, STAYING_FEATURE_LEVEL, Settings};
use floodmark_replication::cluster::settings::{Layers, SyncPolicy, TopicSettings};
use floodmark_replication::cluster::{ClusterImage, Command, Output};
use floodmark_replication::quorum::{FEATURE_LEVELS, ProposeError, QuorumHandle, QuorumOptions, Seat};
use floodmark_storage::LogConfig;
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
    /// Of its own defaults for topics, those on which it depends who is in sync.
    pub(crate) in_sync_defaults: InSyncDefaults,
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
    /// As which it registered.
    pub(crate) registration: Command,
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
            Ok((registration, epoch, has_lost_directory)) => Ok(Member {
                quorum,
                id: options.node_id,
                epoch,
                is_reachable: options.address.is_some(),
                has_lost_directory,
                registration,
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

/// What a broker with this file says of topics that say nothing themselves.
pub(crate) fn in_sync_defaults(file: &Settings) -> InSyncDefaults {
    let none = Settings::new();
    let layers = Layers { topic: &none, broker: &none, cluster: &none, file };
    let settings = TopicSettings::resolve(&layers, &LogConfig::default());
    InSyncDefaults {
        is_synced: settings.sync == SyncPolicy::Ack,
        min_insync_replicas: settings.min_insync_replicas,
    }
}

/// Registers the same start again, once the cluster keeps what it did not keep when this broker registered: otherwise nothing would be
/// known of its defaults until it starts again.
pub(crate) async fn complete_registration(
    quorum: QuorumHandle,
    (id, epoch): (BrokerId, BrokerEpoch),
    registration: Command,
) {
    let mut images = quorum.watch();
    loop {
        let left = completion(&images.borrow_and_update(), id, epoch);
        match left {
            Completion::Done => return,
            Completion::Waits => {
                if images.changed().await.is_err() {
                    return;
                }
            }
            Completion::Due => {
                if let Err(error) = quorum.propose(registration.clone()).await {
                    tracing::info!(%error, "waiting to say what this broker takes for topics that say nothing");
                    sleep(TELL_AFTER).await;
                }
            }
        }
    }
}

/// What is left to do for a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Completion {
    Done,
    Waits,
    Due,
}

fn completion(image: &ClusterImage, id: BrokerId, epoch: BrokerEpoch) -> Completion {
    match image.broker(id) {
        Some(broker) if broker.epoch == epoch && broker.in_sync_defaults.is_none() => {
            if image.feature_level() < STAYING_FEATURE_LEVEL { Completion::Waits } else { Completion::Due }
        }
        _ => Completion::Done,
    }
}

/// Registers once this broker knows everything that the cluster has agreed on. Answers with how it did, its epoch, and whether it had a data
/// directory before that it has no more.
async fn register(
    quorum: &QuorumHandle,
    joining: &Joining,
) -> Result<(Command, BrokerEpoch, bool), StartError> {
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
        in_sync_defaults: Some(joining.in_sync_defaults),
    };
    loop {
        match quorum.propose(command.clone()).await {
            Ok(Output::BrokerRegistered { epoch }) => return Ok((command, epoch, has_lost)),
            // The same incarnation may register again.
            Err(e) if e.is_retryable() => tracing::info!("waiting to be registered: {e}"),
            other => return Err(StartError::NotRegistered { reason: said(other) }),
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
mod tests {
    use super::*;
    use crate::test_cluster::{done, live};

    #[test]
    fn a_broker_says_what_its_file_says() {
        let file = |name: &str, value: &str| Settings::from([(name.to_owned(), value.to_owned())]);
        for (file, is_synced, min_insync_replicas) in [
            (Settings::new(), true, 1),
            (file("floodmark.sync", "none"), false, 1),
            (file("floodmark.sync", "interval"), false, 1),
            (file("floodmark.sync", "ack"), true, 1),
            (file("min.insync.replicas", "2"), true, 2),
        ] {
            assert_eq!(
                in_sync_defaults(&file),
                InSyncDefaults { is_synced, min_insync_replicas },
                "{file:?}"
            );
        }
    }

    #[test]
    fn a_start_registers_again_once_more_is_kept_and_only_then() {
        let mut image = live(1);
        let (id, epoch) = (BrokerId(1), image.broker(BrokerId(1)).unwrap().epoch);
        // It was registered without a word about that.
        assert_eq!(completion(&image, id, epoch), Completion::Due);
        assert_eq!(completion(&image, id, BrokerEpoch(epoch.0 + 1)), Completion::Done);
        assert_eq!(completion(&image, BrokerId(9), epoch), Completion::Done);
        let broker = image.broker(id).unwrap();
        let registration = Command::RegisterBroker {
            broker: id,
            incarnation: broker.incarnation,
            rack: None,
            endpoints: Vec::new(),
            feature_levels: FEATURE_LEVELS,
            directories: broker.directories.clone(),
            in_sync_defaults: Some(in_sync_defaults(&Settings::new())),
        };
        done(&mut image, &registration);
        assert_eq!(completion(&image, id, epoch), Completion::Done);
        assert!(image.is_live(id));
        let empty = ClusterImage::new(image.cluster_id());
        let (older, outcome) = floodmark_replication::cluster::apply(&empty, &registration);
        let Ok(Output::BrokerRegistered { epoch }) = outcome else { panic!() };
        assert_eq!(completion(&older, id, epoch), Completion::Waits);
    }
}
