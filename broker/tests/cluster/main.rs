//! Three brokers in one process, as clients of both doors meet them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests, which may panic")]

mod any_broker;
mod coordinators;
mod failover;
mod listeners;
mod moves;
mod replicas;
mod setup;

#[path = "../free_ports/mod.rs"]
mod free_ports;
#[path = "../kafka_client/mod.rs"]
mod kafka_client;

/// Clients that were generated from the .proto files.
#[allow(missing_docs, unreachable_pub, dead_code, clippy::all, clippy::pedantic, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/client/floodmark.v1.rs"));
}
