//! What brokers say to each other. Must never know what clients say.

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
    pub(crate) mod replica {
        include!(concat!(env!("OUT_DIR"), "/floodmark.replica.rs"));
    }
}
