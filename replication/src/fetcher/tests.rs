//! Followers and leaders with real logs, on simulated disks and over real sockets; and each of them against another end that says what the test
//! wants.

mod leaders;
mod nodes;
mod scripted;
mod serving;
mod wire;
