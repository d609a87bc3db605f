//! Messages that are kept or sent between brokers and may grow, generated from `proto/*.proto` by `build/pb.rs`.

/// Cluster metadata: commands, images, the Raft log.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; the words are in metadata.proto")]
pub mod metadata {
    include!(concat!(env!("OUT_DIR"), "/floodmark.metadata.rs"));
}
