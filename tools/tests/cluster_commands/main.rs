//! The commands of an operator, run as an operator runs them, against clusters of `floodmark serve` and `floodmark dev`.
#![allow(clippy::disallowed_methods, reason = "the tests look into data directories")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

#[path = "../deadline/mod.rs"]
mod deadline;
mod dev;
mod elections;
#[path = "../../../broker/tests/free_ports/mod.rs"]
mod free_ports;
mod left_alone;
mod members;
mod moves;
mod nodes;
mod outage;
mod status;
mod upgrades;
