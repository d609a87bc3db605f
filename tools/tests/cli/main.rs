//! The commands that talk to a cluster, run as a user runs them, against a broker in this process.
#![allow(clippy::disallowed_methods, reason = "the tests write files")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

mod bench;
mod cluster;
#[path = "../deadline/mod.rs"]
mod deadline;
mod events;
#[path = "../../../broker/tests/free_ports/mod.rs"]
mod free_ports;
mod groups;
mod readme;
mod records;
mod refusals;
mod replay;
mod terminal;
mod topics;
