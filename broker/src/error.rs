//! Why a broker does not start, told so that whoever started it knows what to change.

use std::io;

use floodmark_replication::quorum::QuorumError;
use floodmark_storage::LogError;

use crate::config::HostPort;

/// A broker that could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody else listens there.
    #[error("{key} = {address} is in use by another process; stop that, or choose another port")]
    AddressInUse {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: HostPort,
    },
    /// The address is none of this machine, or the port is reserved.
    #[error("{key} = {address} cannot be listened on: {source}")]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: HostPort,
        /// The system's answer.
        source: io::Error,
    },
    /// Clients would be told to connect to an address that leads nowhere.
    #[error(
        "{door}.listen = {address} listens on all addresses; set {door}.advertised to the one that clients reach this broker by"
    )]
    NothingToAdvertise {
        /// Which clients.
        door: &'static str,
        /// What is listened on.
        address: HostPort,
    },
    /// A data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] LogError),
    /// No thread, or no descriptors for its runtime.
    #[error("no thread could be started: {0}")]
    Thread(#[source] io::Error),
    /// Metadata cannot be used, or does not come to life.
    #[error(transparent)]
    Metadata(#[from] QuorumError),
    /// The cluster does not take this broker.
    #[error("this broker could not be registered: {reason}")]
    NotRegistered {
        /// What the cluster said.
        reason: String,
    },
    /// It cannot go on, though it had begun well.
    #[error("the broker cannot go on: {reason}")]
    Failed {
        /// What happened.
        reason: String,
    },
    /// It was told to stop before it had started.
    #[error("stopped while starting")]
    Stopped,
    /// A thread of the broker has ended before it should.
    #[error("the broker's control thread has ended; the log says why")]
    Ended,
}
