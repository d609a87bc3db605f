//! One partition's log on one disk: synchronous, single writer, many readers. Must never know tokio, the network or clusters.

pub mod clock;
pub mod fs;
pub mod random;
