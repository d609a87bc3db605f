//! Messages that may grow, generated from `proto/` by `build/pb.rs`: what brokers keep and tell each other, and the gRPC door.

/// Cluster metadata: commands, images, the Raft log.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the words are in metadata.proto")]
pub mod metadata {
    include!(concat!(env!("OUT_DIR"), "/floodmark.metadata.rs"));
}

/// What brokers say to the one that decides for the cluster.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the words are in controller.proto")]
pub mod controller {
    include!(concat!(env!("OUT_DIR"), "/floodmark.controller.rs"));
}

/// How followers copy partitions from their leaders.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the words are in replica.proto")]
pub mod replica {
    include!(concat!(env!("OUT_DIR"), "/floodmark.replica.rs"));
}

/// What brokers tell each other about the metadata quorum.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the words are in quorum.proto")]
pub mod quorum {
    include!(concat!(env!("OUT_DIR"), "/floodmark.quorum.rs"));
}

/// The gRPC door. Services are generated in the crates that serve and call them.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    reason = "generated; the words are in floodmark/v1/*.proto"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/floodmark.v1.rs"));

    /// What the files say, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/floodmark.v1.descriptors"));
}
