//! This broker as the cluster knows it: registered when it starts, leading once its logs are open, fenced before it goes.

use std::path::PathBuf;
use std::time::Duration;

use floodmark_proto::ids::{BrokerEpoch, BrokerId};
use floodmark_replication::cluster::image::Endpoint;
use floodmark_replication::cluster::{Command, Output};
use floodmark_replication::quorum::{
    FEATURE_LEVELS, ProposeError, QuorumHandle, QuorumOptions, QuorumTiming, SnapshotRule,
};
use floodmark_storage::data_dir::DirectoryId;
use floodmark_storage::log::LogContext;

use crate::error::StartError;

/// How long metadata is waited for when nobody gave a deadline.
const DEADLINE: Duration = Duration::from_secs(30);
/// A broker that stops does not wait long to say so: others notice anyway.
const LEAVE_DEADLINE: Duration = Duration::from_secs(2);

/// What it takes to become a member.
pub(crate) struct Joining {
    pub(crate) context: LogContext,
    /// The data directory that holds metadata, and its identity.
    pub(crate) data_dir: (PathBuf, DirectoryId),
    /// The identities of all data directories, that one first.
    pub(crate) directories: Vec<uuid::Uuid>,
    /// Whether any data directory holds partitions.
    pub(crate) holds_partitions: bool,
    pub(crate) id: BrokerId,
    /// Where clients are told to connect, by door; Kafka's first.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A registered broker.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) quorum: QuorumHandle,
    pub(crate) id: BrokerId,
    /// Of this registration.
    pub(crate) epoch: BrokerEpoch,
}

impl Member {
    /// Takes part in the quorum and registers. The broker leads nothing yet.
    pub(crate) async fn join(joining: Joining) -> Result<Member, StartError> {
        let random = joining.context.random.clone();
        let bits = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        let (data_dir, directory_id) = joining.data_dir;
        let quorum = QuorumHandle::start(QuorumOptions {
            context: joining.context,
            data_dir,
            directory_id,
            holds_partitions: joining.holds_partitions,
            node_id: joining.id,
            cluster_id: None,
            deadline: DEADLINE,
            snapshots: SnapshotRule::default(),
            voters: Vec::new(),
            address: None,
            timing: QuorumTiming::default(),
        })
        .await?;
        if quorum.image().version() == 0 {
            // A new cluster begins with all that this program knows.
            let begin = Command::SetFeatureLevel { level: FEATURE_LEVELS.1 };
            if let Err(e) = quorum.propose(begin).await {
                quorum.shutdown().await?;
                return Err(StartError::NotRegistered { reason: e.to_string() });
            }
        }
        let register = Command::RegisterBroker {
            broker: joining.id,
            incarnation: uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid(),
            rack: None,
            endpoints: joining.endpoints,
            feature_levels: FEATURE_LEVELS,
            directories: joining.directories,
        };
        let epoch = match quorum.propose(register).await {
            Ok(Output::BrokerRegistered { epoch }) => epoch,
            other => {
                let refused = StartError::NotRegistered { reason: said(other) };
                // Its log is closed before the directory is let go.
                quorum.shutdown().await?;
                return Err(refused);
            }
        };
        Ok(Member { quorum, id: joining.id, epoch })
    }

    /// From here on this broker leads.
    pub(crate) async fn serve(&self) -> Result<(), StartError> {
        let unfence = Command::UnfenceBroker { broker: self.id, epoch: self.epoch };
        match self.quorum.propose(unfence).await {
            Ok(_) => Ok(()),
            Err(e) => Err(StartError::NotRegistered { reason: e.to_string() }),
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

fn said(answer: Result<Output, ProposeError>) -> String {
    match answer {
        Ok(output) => format!("{output:?} is no answer to a registration"),
        Err(e) => e.to_string(),
    }
}
