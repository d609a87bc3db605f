//! The gRPC door as its clients meet it: real sockets, code generated from the .proto files, and the Kafka door beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may panic")]

mod admin;
mod data;
mod events;
mod failed_logs;
#[path = "../free_ports/mod.rs"]
mod free_ports;
mod groups;
mod kafka;
mod refusals;
mod setup;
mod starting;
mod subscribe;

/// Clients that were generated from the .proto files.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client/floodmark.v1.rs"));
}
