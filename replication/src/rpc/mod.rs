//! How brokers reach each other: channels, the check of who speaks to whom, and services. Must never know what clients say.
//!
//! - [`peers`]: where brokers are, and one channel for each and each purpose
//! - [`identity`]: what every call says of both ends, and what is refused
//! - `reason`: why a call failed, in words
//! - [`replica_server`], `replica_client`: both ends of a follower's call to its leader
//! - `outgoing`, `incoming`: the replies of that call below the generated code, without a copy of their batches

pub mod identity;
pub(crate) mod incoming;
mod outgoing;
pub mod peers;
mod reason;
pub(crate) mod replica_client;
pub mod replica_server;

#[cfg(test)]
pub(crate) mod gate;

pub use identity::{IdentityCheck, PeerIdentity, caller};
pub(crate) use outgoing::OWN_PIECE_BYTES_MIN;
pub(crate) use peers::FRAME_BYTES;
pub use peers::{Address, PeerError, Peers, Purpose};
pub use reason::reason;

/// What the cluster calls the listener of brokers among themselves.
pub const BROKER_LISTENER: &str = "BROKER";

/// Code that was generated from the .proto files.
#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the words are in the .proto files"
)]
pub(crate) mod generated {
    pub(crate) mod controller {
        include!(concat!(env!("OUT_DIR"), "/floodmark.controller.rs"));
    }
    pub(crate) mod replica {
        include!(concat!(env!("OUT_DIR"), "/floodmark.replica.rs"));
    }
}
