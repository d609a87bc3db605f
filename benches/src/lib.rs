//! Figures as ratios in one run: the log beside a bare loop that moves the same bytes. README.md tells the method.
//! Must never decide whether a figure is good enough: it prints, people judge.
//!
//! - [`measure`]: CPU time, and two sides in turns
//! - [`workload`]: batches as a client sends them, and directories that go away
//! - [`server`]: brokers and bare servers in processes of their own; [`nodes`]: a cluster of them; [`echo`]: a bare server; [`mod@line`]: a way between them
//!   that takes its time
//! - [`kafka_wire`]: a load that costs nothing; [`kafka`]: calls that need not; [`round_trips`]: one at a time, and what it is held against
//! - [`report`]: a table for people, JSON for programs
//! - `src/bin/`: one program a figure; `smoke` runs them all at a tiny size

pub mod echo;
pub mod kafka;
pub mod kafka_wire;
pub mod line;
pub mod measure;
pub mod nodes;
pub mod report;
pub mod round_trips;
pub mod server;
pub mod workload;
